"""Errors a person can mend: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import functools
import numbers
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints its one line and exits 2."""


class ConfigError(UserError):
    """An option, a field or an experiment file that cannot be used."""


class ShardingError(UserError):
    """A parameter or activation that the mesh cannot divide, or that no table row names."""


class DataError(UserError):
    """Data that is missing, empty, malformed, or not what the run was started with."""


class WeightsError(UserError):
    """Published weights with missing, unexpected or misshapen tensors, or a damaged file."""


class CheckpointError(UserError):
    """A run's folder that cannot be written, is in use, or holds no usable checkpoint."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean A or B?` of what is closest to `name`, or an empty string.

    Options such as `--task.model.width` are also found by their last part.
    """
    name = name.replace("_", "-")
    last = _last(name)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    close = close or [k for k in known if _last(k) == last][:3]
    close = close or [k for k in known if k.startswith(f"{name}.")][:3]
    close = (
        close or [k for k in known if difflib.get_close_matches(last, [_last(k)], cutoff=0.8)][:2]
    )
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def check_top(top: Any) -> None:
    """Raises ConfigError unless it is a number of things to name."""
    if not isinstance(top, numbers.Integral) or top < 1:
        raise ConfigError(f"top is {top!r}; it is a whole number of at least 1")


def check_choices(config: Any) -> None:
    """Raises ConfigError where a dataclass's field of Literal type holds none of its choices."""
    for name, choices in _choices(type(config)).items():
        value = getattr(config, name)
        if value not in choices:
            choice_names = [str(choice) for choice in choices]
            near = did_you_mean(str(value), choice_names)
            raise ConfigError(f"{name} is {value!r}, not one of {', '.join(choice_names)}{near}")


@functools.cache
def _choices(kind: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(kind)
    return {n: get_args(hint) for n, hint in hints.items() if get_origin(hint) is Literal}


def check_rates(config: Any, *names: str) -> None:
    """Raises ConfigError unless these fields are from 0 to below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; it is from 0 to below 1")


def _last(option: str) -> str:
    return option.lstrip("-").split(".")[-1]
