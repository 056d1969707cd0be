"""What a Unified-IO answers to the fields of the page: a text, and a figure of pictures.

As in `answers`, a function takes the path or name of a model and what a person typed or uploaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from jaxformers import api
from jaxformers.api.ask import Asked
from jaxformers.errors import ConfigError, DataError
from jaxformers.serve.answers import read_line, read_upload


class Look(NamedTuple):
    """A task on a picture, and what it takes besides."""

    answer: Callable[..., Any]
    takes_name: bool = False
    takes_box: bool = False


LOOKS = {
    "describe it": Look(api.caption),
    "answer a question": Look(api.answer_about, takes_name=True),
    "boxes of all objects": Look(api.detect),
    "boxes of what is named": Look(api.locate, takes_name=True),
    "masks of what is named": Look(api.segment, takes_name=True),
    "joints of the person in the box": Look(api.keypoints, takes_box=True),
    "depth": Look(api.depth),
    "surface normals": Look(api.normals),
    "paint what is named into the box": Look(api.inpaint, takes_name=True, takes_box=True),
}
"""What the page offers on a picture, by its label."""


def ask(
    source: str, prompt: str, upload: str | None, output: str, seed: int
) -> tuple[str, Figure | None]:
    """The answer to a prompt, with a picture or without, as a `text` or an `image`."""
    picture = read_upload(upload) if upload else None
    return _text_and_figure(api.ask(source, read_line(prompt), picture, output, seed=int(seed)))


def look(
    source: str, upload: str | None, task: str, name: str, box: str
) -> tuple[str, Figure | None]:
    """The answer of a task in `LOOKS` on a picture."""
    if task not in LOOKS:
        raise ConfigError(f"no task {task!r}; choose one of the list")
    picture, arguments = read_upload(upload), []
    if LOOKS[task].takes_box:
        arguments.append(_read_box(box))
    if LOOKS[task].takes_name:
        arguments.append(read_line(name))
    return _text_and_figure(LOOKS[task].answer(source, picture, *arguments))


def paint(source: str, text: str, seed: int) -> tuple[str, Figure | None]:
    """A picture of what a text says."""
    return _text_and_figure(api.paint(source, read_line(text), int(seed)))


def explain(source: str, prompt: str, upload: str | None, answer: str | None) -> tuple[str, Figure]:
    """An answer, and the words and patches that it rests on; generated where none is typed."""
    picture = read_upload(upload) if upload else None
    text = read_line(answer) if answer and answer.strip() else None
    explanation = api.explain(source, picture, prompt=read_line(prompt), answer=text)
    return explanation.answer, explanation.figure()


def _text_and_figure(answer: Asked) -> tuple[str, Figure | None]:
    """Text of an answer with what was not understood of it, and its figure, if it has pictures."""
    lines = [answer.text or "", *(f"not understood: {problem}" for problem in answer.problems)]
    figure = None if answer.image is None and answer.picture is None else answer.figure()
    return "\n".join(line for line in lines if line), figure


def _read_box(text: str | None) -> tuple[float, ...]:
    """x1 y1 x2 y2 in pixels.

    Raises:
        DataError: anything else.
    """
    try:
        box = tuple(map(float, (text or "").replace(",", " ").split()))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise DataError("the box takes four numbers, x1 y1 x2 y2 in pixels of the picture")
    return box
