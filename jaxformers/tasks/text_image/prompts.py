"""Which inputs and answers the prompts of the tasks go with."""

from __future__ import annotations

import re
from functools import cache

from jaxformers.errors import ConfigError, DataError
from jaxformers.tasks.text_image.base import TextImageTask
from jaxformers.tasks.text_image.paper_mixture import TASKS


def check_prompt(prompt: str, has_image: bool, output: str) -> None:
    """Refuses the prompt of a task with another input or another answer than the task's.

    A prompt that is none of a task's passes, and so do questions, which are free text.

    Raises:
        ConfigError: a picture is asked for where the task answers in text, or the reverse.
        DataError: the task is about a picture and there is none, or it takes none.
    """
    tasks = [task for pattern, task in _patterns() if pattern.fullmatch(prompt)]
    if not tasks:
        return
    name = f"the prompt {prompt[:60]!r} of {tasks[0].__name__}"
    if not any(output == task.OUTPUT for task in tasks):
        if output == "image":
            raise ConfigError(f"{name} is answered by a text: leave out the picture as output")
        raise ConfigError(f'{name} is answered by a picture: give --output FILE, or output="image"')
    tasks = [task for task in tasks if output == task.OUTPUT]
    if has_image and not any(task.INPUT == "image" for task in tasks):
        raise DataError(f"{name} takes no picture: leave out --image")
    if not has_image and not any(task.INPUT == "text" for task in tasks):
        raise DataError(f"{name} is about a picture: give one, by --image FILE")


@cache
def _patterns() -> list[tuple[re.Pattern[str], type[TextImageTask]]]:
    """A pattern of each task's prompt, its blanks filled by any text."""
    patterns = []
    for task in TASKS.values():
        words = re.split(r"\{\w+\}", task.PROMPT)
        if words[0]:  # else it begins with free text, as a question does
            pattern = re.compile(".+".join(map(re.escape, words)), re.DOTALL)
            patterns.append((pattern, task))
    return patterns
