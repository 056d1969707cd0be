"""Arguments of an experiment file's own: the parameters of its `experiment()` as options.

`def experiment(data: str | None = None)` takes `--data FOLDER` on the command line.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from jaxformers.errors import ConfigError
from jaxformers.training.config.follow_up_options import Option, parse_options, to_arguments

KINDS = {str: "a string", int: "an int", float: "a float"}


def split_arguments(
    function: Callable[..., Any], args: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of a function's parameters among `args`, and the remaining arguments.

    Args:
        function: its parameters have annotations `str`, `int` or `float`, or one of them or None.
        args: options with their values, such as `["--data", "FOLDER", "--steps", "9"]`.

    Raises:
        ConfigError: an option without a value, or with one of another type.
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    values: dict[str, Any] = {}
    remaining = []
    for option in parse_options(args):
        if option.path in parameters:
            values[option.path] = _value(option, hints.get(option.path, str))
        else:
            remaining.append(option)
    return values, to_arguments(remaining)


def describe_arguments(function: Callable[..., Any]) -> list[str]:
    """One line for each parameter of an experiment file's `experiment()`."""
    hints, lines = typing.get_type_hints(function), []
    for name, parameter in inspect.signature(function).parameters.items():
        option, kind = f"--{name.replace('_', '-')}", _kind(hints.get(name, str))
        lines.append(f"  {option:20} {KINDS[kind]} (default: {parameter.default})")
    return lines


def _value(option: Option, hint: Any) -> Any:
    words = option.words[1:] if "=" not in option.words[0] else (option.value,)
    if len(words) != 1 or not words[0]:
        raise ConfigError(f"{option.name}: takes one value")
    kind = _kind(hint)
    try:
        return kind(words[0])
    except ValueError:
        raise ConfigError(f"{option.name}: {words[0]!r} is not {KINDS[kind]}") from None


def _kind(hint: Any) -> type:
    """The type of a parameter that may be None."""
    members = [member for member in typing.get_args(hint) or (hint,) if member in KINDS]
    return members[0] if members else str
