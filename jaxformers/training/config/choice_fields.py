"""Fields that may hold one of several dataclasses, switched by name: `--schedule cosine`."""

from __future__ import annotations

import copy
import dataclasses
import re
import typing
from itertools import pairwise
from typing import Any, TypeVar

from jaxformers.errors import ConfigError, did_you_mean

T = TypeVar("T")


def switch_kinds(default: T, args: list[str]) -> tuple[T, list[str]]:
    """Applies the arguments that name a field's dataclass, and returns the rest.

    The fields that the old and the new dataclass both have keep their values; the others take
    their defaults, and texts without one are looked up among the arguments (`--task.data.path`).

    Raises:
        ConfigError: a name that is none of the field's dataclasses, or one that cannot be made.
    """
    rest: list[str] = []
    words = iter(args)
    for word in words:
        option, equals, name = word.partition("=")
        path = _path(default, option)
        if path is None:
            rest.append(word)
            continue
        name = name if equals else next(words, "")
        default = _switched(default, path, option, name, _texts(args))
    return default, rest


def alternatives(owner: type, name: str) -> dict[str, type | None]:
    """The dataclasses, by name, that a field's annotation admits; "None" where it admits that.

    A base class stands for the dataclasses derived from it.
    """
    try:
        hint = typing.get_type_hints(owner)[name]
    except NameError:  # a hint that only a type checker imports
        return {}
    members = typing.get_args(hint) if not isinstance(hint, type) else (hint,)
    found: dict[str, type | None] = {}
    for member in members:
        if isinstance(member, type) and dataclasses.is_dataclass(member):
            found |= {leaf.__name__: leaf for leaf in _leaves(member)}
    if found and type(None) in members:
        found["None"] = None
    return found


def spelled(name: str) -> str:
    """`InverseSquareRoot` as it is written on the command line: `inverse-square-root`."""
    return name if name == "None" else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _leaves(cls: type) -> list[type]:
    below = [leaf for child in cls.__subclasses__() for leaf in _leaves(child)]
    return below or ([cls] if dataclasses.is_dataclass(cls) else [])


def _path(default: Any, option: str) -> list[str] | None:
    """The field's path, when `option` names one that may hold several dataclasses."""
    if not option.startswith("--"):
        return None
    path = option[2:].replace("-", "_").split(".")
    value = default
    for depth, name in enumerate(path):
        if not dataclasses.is_dataclass(value) or not hasattr(value, name):
            return None
        if depth == len(path) - 1:
            return path if len(alternatives(type(value), name)) > 1 else None
        value = getattr(value, name)
    return None


def _texts(args: list[str]) -> dict[str, str]:
    """Every option's value, by its path."""
    pairs = [word.partition("=") for word in args]
    found = {option: value for option, equals, value in pairs if equals}
    found |= {word: after for word, after in pairwise(args) if word.startswith("--")}
    return {option[2:].replace("-", "_"): value for option, value in found.items()}


def _switched(value: Any, path: list[str], option: str, name: str, texts: dict[str, str]) -> Any:
    """`value` with the field at `path` made anew as the dataclass called `name`."""
    old = getattr(value, path[0])
    if len(path) > 1:
        return _with(value, path[0], _switched(old, path[1:], option, name, texts))
    kinds = alternatives(type(value), path[0])
    plain = {re.sub(r"\W|_", "", kind).lower(): kind for kind in kinds}
    kind = plain.get(re.sub(r"\W|_", "", name).lower())
    if kind is None:
        names = [spelled(kind) for kind in kinds]
        hint = did_you_mean(name.lower(), names)
        raise ConfigError(f"{option}: {name!r} is not one of {', '.join(names)}{hint}")
    place = option[2:].replace("-", "_")
    here = {o.removeprefix(f"{place}."): text for o, text in texts.items()}
    try:
        return _with(value, path[0], _made(kinds[kind], old, option, here))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{option} {spelled(kind)}: {error}") from error


def _with(owner: Any, name: str, value: Any) -> Any:
    """`owner` with one field changed, its checks left to when all options are in."""
    changed = copy.copy(owner)
    object.__setattr__(changed, name, value)
    return changed


def _made(cls: type | None, old: Any, option: str, texts: dict[str, str]) -> Any:
    if cls is None or type(old) is cls:
        return None if cls is None else old
    fields = [f for f in dataclasses.fields(cls) if f.init]
    values = {f.name: getattr(old, f.name) for f in fields if hasattr(old, f.name)}
    none = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is none and f.default_factory is none]
    values |= {name: texts[name] for name in needed if name in texts}
    if missing := [name for name in needed if name not in values]:
        options = " and ".join(f"{option}.{name.replace('_', '-')}" for name in missing)
        raise ConfigError(f"{option} {spelled(cls.__name__)} also needs {options}")
    return cls(**values)
