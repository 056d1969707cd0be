"""The runs of a grid: every combination of some fields' values and of some seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxformers.errors import ConfigError
from jaxformers.training.config.choice_fields import to_option_value
from jaxformers.training.config.overrides import override
from jaxformers.training.experiment import Experiment

Grid = Mapping[str, Sequence[Any]]
LONGEST = 48  # characters of a value in a folder's name
NOT_TRIED = {
    "seed": "seeds are given by --seeds",
    "name": "each run is named by its values",
    "after": "only the run itself is tuned",
}


@dataclass(frozen=True)
class Setting:
    """The values of a run of a grid."""

    name: str
    """Its folder: the values that were tried and the seed."""
    values: dict[str, str]
    """The value of each field as a table shows it."""
    experiment: Experiment


def settings(experiment: Experiment, grid: Grid, seeds: Sequence[int]) -> list[Setting]:
    """All runs of a grid, the seeds of a setting one after another; the same run comes once.

    Args:
        experiment: what is tried; runs that follow it are left out.
        grid: values by the paths of fields, such as `{"schedule.peak": (5e-5, 3e-5)}`; a value is
            of the field's type, or written as on the command line.
        seeds: of each setting.

    Raises:
        ConfigError: an unknown field, or a value that is not of its type, before anything is run.
    """
    values = {
        field.lstrip("-").replace("-", "_"): tuple(choices) for field, choices in grid.items()
    }
    for field, tried in values.items():
        if field in NOT_TRIED:
            raise ConfigError(f"{field} cannot be tried: {NOT_TRIED[field]}")
        if not tried:
            raise ConfigError(f"--try {field}: give the values to try behind it")
    by_name: dict[str, Setting] = {}
    for chosen in itertools.product(*values.values()):
        words = [w for f, v in zip(values, chosen, strict=True) for w in _words(experiment, f, v)]
        experiment_of_setting = override(replace(experiment, after=()), words, "jaxformers tune")
        for seed in seeds:
            _add(by_name, values, replace(experiment_of_setting, seed=seed))
    return list(by_name.values())


def _add(by_name: dict[str, Setting], fields: Sequence[str], experiment: Experiment) -> None:
    texts = {field: _shown(_value(experiment, field)) for field in fields}
    labels = [f"{_label(field, fields)}={_safe(text)}" for field, text in texts.items()]
    name = ",".join([*labels, f"seed={experiment.seed}"])
    experiment = replace(experiment, name=f"{experiment.name} {name}")
    if name in by_name and by_name[name].experiment != experiment:
        raise ConfigError(f"two settings would both be called {name!r}: give one of them alone")
    by_name[name] = Setting(name, texts, experiment)


def _words(experiment: Experiment, field: str, value: Any) -> Iterator[str]:
    """The field's value as words of the command line."""
    before, option = _value(experiment, field), "--" + field.replace("_", "-")
    if isinstance(before, tuple):
        yield option
        yield from value.split() if isinstance(value, str) else map(str, value)
    elif isinstance(before, bool):
        if str(value).lower() not in ("true", "false"):
            raise ConfigError(f"{option}: {value!r} is neither true nor false")
        path, _, name = option[2:].rpartition(".")
        negated = f"--{path}.no-{name}" if path else f"--no-{name}"
        yield option if str(value).lower() == "true" else negated
    else:
        yield f"{option}={value}"


def _value(owner: Any, field: str) -> Any:
    """What stands at the path; None where there is no such field, for `override` to refuse."""
    for name in field.split("."):
        owner = getattr(owner, name, None)
    return owner


def _shown(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return to_option_value(type(value).__name__)
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _label(field: str, fields: Sequence[str]) -> str:
    """The last name of the path, or all of it where two fields end alike."""
    last = field.rpartition(".")[2]
    return last if sum(path.rpartition(".")[2] == last for path in fields) == 1 else field


def _safe(text: str) -> str:
    """A value as a part of a folder's name, that the shell reads as it is."""
    plain = re.sub(r"[^\w.+-]", "_", text)
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[-LONGEST + 9 :]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
