"""Which options of a command hold for the runs that follow the first one.

An option holds for every run that has its field. Exceptions are fields in which a follow-up run
differs from the first one by design: it keeps its name, and its own model, frozen parameters and
weights where they are not the first run's. `--after.NAME.FIELD` sets a field of one run alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxformers.errors import ConfigError, did_you_mean
from jaxformers.training.config.choice_fields import (
    allows_choice,
    choice_options,
    choice_path,
    has_field,
    plain_options,
    switch_kinds,
)
from jaxformers.training.follow_up_runs import PATHS

AFTER = "--after."
OWN_FIELDS = ("frozen", "task.model", *(f"task.{name}" for name in PATHS))
"""Fields that a follow-up run keeps where its value is not the first run's."""
ENCODER = "task.model.encoder."
"""Fields of an MAE's encoder are fields of the model itself in a classifier that follows it."""
MISSING = object()


class Option(NamedTuple):
    """An option as it was typed, with its values."""

    name: str
    """With dashes, such as `--task.data-dir`; empty for words before the first option."""
    words: tuple[str, ...]

    @property
    def path(self) -> str:
        """The field's path, such as `task.data_dir`."""
        return self.name[2:].replace("-", "_")

    @property
    def value(self) -> str:
        """The first value; empty if there is none."""
        _, equals, value = self.words[0].partition("=")
        return value if equals else next(iter(self.words[1:]), "")

    def renamed(self, path: str) -> Option:
        """The same option for another path."""
        _, equals, value = self.words[0].partition("=")
        return Option(_dashed(f"--{path}"), (f"--{path}{equals}{value}", *self.words[1:]))


def parse_options(args: Sequence[str]) -> list[Option]:
    """Groups arguments into options, each with the values behind it."""
    groups: list[list[str]] = []
    for word in args:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    names = [_dashed(group[0].split("=")[0]) if group[0][:2] == "--" else "" for group in groups]
    return [Option(name, tuple(words)) for name, words in zip(names, groups, strict=True)]


def to_arguments(options: Iterable[Option]) -> list[str]:
    """The words of options, as they were typed."""
    return [word for option in options for word in option.words]


def split_addressed(
    options: Sequence[Option], names: Sequence[str]
) -> tuple[list[Option], dict[str, list[Option]]]:
    """Options for all runs, and by a follow-up run's name those for it alone (`--after.NAME.`).

    Raises:
        ConfigError: no follow-up run of that name.
    """
    addressed: dict[str, list[Option]] = {name: [] for name in names}
    shared = []
    for option in options:
        if not option.name.startswith(AFTER):
            shared.append(option)
            continue
        matches = [name for name in names if option.name.startswith(_dashed(f"{AFTER}{name}."))]
        if not matches:
            name = option.words[0].removeprefix(AFTER).split(".")[0]
            hint = did_you_mean(name, names)
            raise ConfigError(
                f"{option.words[0]}: no follow-up run {name!r}; there are {', '.join(names)}{hint}"
            )
        name = max(matches, key=len)
        prefix = len(f"{AFTER}{name}.")
        words = (f"--{option.words[0][prefix:]}", *option.words[1:])
        addressed[name].append(Option(f"--{option.name[prefix:]}", words))
    return shared, addressed


def options_of_first(first: Any, options: Sequence[Option]) -> list[Option]:
    """The options whose fields the first run has."""
    return [option for option, held in _held(first, options) if held]


def options_of_follow_up(first: Any, run: Any, options: Sequence[Option]) -> list[Option]:
    """The options that hold for a follow-up run, by the paths that the fields have there."""
    candidates = []
    for option in options:
        path = option.path
        if path.startswith(ENCODER) and _value(run, path) is MISSING:
            path = path.replace(ENCODER, "task.model.")
        if not _keeps_own(first, run, option.path, path):
            candidates.append(option if path == option.path else option.renamed(path))
    return [option for option, held in _held(run, candidates) if held]


def option_names(run: Any) -> list[str]:
    """The names of all options of a run."""
    return [*plain_options(run), *(option for option, _ in choice_options(run))]


def _held(run: Any, options: Sequence[Option]) -> list[tuple[Option, bool]]:
    """Each option with whether the run has its field, once kinds of fields are switched."""
    held: dict[int, bool] = {}
    choices: list[Option] = []
    switched = run
    for index, option in enumerate(options):
        path = choice_path(switched, option.name)
        if path is None:
            continue
        held[index] = allows_choice(switched, path, option.value)
        if held[index]:
            choices.append(option)
            plain = [option for option in options if choice_path(switched, option.name) is None]
            switched, _ = switch_kinds(run, to_arguments((*choices, *plain)))
    # A kind that the run does not know takes its fields along (`--task.data.path`).
    unknown = tuple(f"{options[index].name}." for index, allowed in held.items() if not allowed)
    names = {name for name in plain_options(switched) if not name.startswith(unknown)}
    return [(option, held.get(index, option.name in names)) for index, option in enumerate(options)]


def _keeps_own(first: Any, run: Any, first_path: str, path: str) -> bool:
    """Whether a follow-up run differs from the first one in a field by design."""
    if path == "name":
        return True
    if not any(path == field or path.startswith(f"{field}.") for field in OWN_FIELDS):
        return False
    if path.removeprefix("task.") in PATHS and type(first.task) is not type(run.task):
        return True
    first_value, run_value = _value(first, first_path), _value(run, path)
    if path == "task.model":
        return type(first_value) is not type(run_value)
    return first_value is not MISSING and run_value is not MISSING and first_value != run_value


def _value(run: Any, path: str) -> Any:
    """The value of a field, `no_` before its name left out; MISSING if there is no such field."""
    value = run
    for name in path.split("."):
        name = name if has_field(value, name) else name.removeprefix("no_")
        if not has_field(value, name):
            return MISSING
        value = getattr(value, name)
    return value


def _dashed(name: str) -> str:
    return name.replace("_", "-")
