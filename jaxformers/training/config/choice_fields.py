"""Fields that may hold one of several dataclasses, selected by name: `--schedule cosine`."""

from __future__ import annotations

import copy
import dataclasses
import re
import typing
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

from jaxformers.errors import ConfigError, did_you_mean

T = TypeVar("T")


def switch_kinds(default: T, args: list[str]) -> tuple[T, list[str]]:
    """Applies the arguments that select a field's dataclass; returns the remaining arguments.

    Fields that the old and the new dataclass share keep their values; the others take their
    defaults, and required ones are looked up among the arguments (`--task.data.path`).

    Raises:
        ConfigError: a name that is none of the field's dataclasses, or one that lacks a value.
    """
    remaining: list[str] = []
    words = iter(args)
    for word in words:
        option, equals, name = word.partition("=")
        path = choice_path(default, option)
        if path is None:
            remaining.append(word)
            continue
        name = name if equals else next(words, "")
        default = _switch(default, path, option, name, _option_values(args))
    return default, remaining


def alternatives(owner: type, name: str) -> dict[str, type | None]:
    """The dataclasses, by name, that a field's annotation allows; "None" if it is optional.

    A base class stands for the dataclasses derived from it.
    """
    try:
        hint = typing.get_type_hints(owner)[name]
    except NameError:  # a hint that only a type checker imports
        return {}
    members = typing.get_args(hint) if not isinstance(hint, type) else (hint,)
    classes: dict[str, type | None] = {}
    for member in members:
        if isinstance(member, type) and dataclasses.is_dataclass(member):
            classes |= {leaf.__name__: leaf for leaf in _leaf_classes(member)}
    if classes and type(None) in members:
        classes["None"] = None
    return classes


def choice_options(default: Any, prefix: str = "--") -> Iterator[tuple[str, list[str]]]:
    """Options of the fields that may hold one of several dataclasses, and those dataclasses."""
    for field in dataclasses.fields(default):
        value, option = getattr(default, field.name), prefix + field.name.replace("_", "-")
        kinds = alternatives(type(default), field.name)
        if len(kinds) > 1:
            yield option, list(kinds)
        if dataclasses.is_dataclass(value):
            yield from choice_options(value, f"{option}.")


def plain_options(default: Any, prefix: str = "--") -> Iterator[str]:
    """Every plain field's option, such as `--task.model.width`."""
    for field in dataclasses.fields(default):
        value, name = getattr(default, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from plain_options(value, f"{prefix}{name}.")
            continue
        yield f"{prefix}{name}"
        if isinstance(value, bool):
            yield f"{prefix}no-{name}"


def to_option_value(name: str) -> str:
    """`InverseSquareRoot` as on the command line: `inverse-square-root`."""
    words = r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z])"  # ViTConfig: vit-config
    return name if name == "None" else re.sub(words, "-", name).lower()


def _leaf_classes(cls: type) -> list[type]:
    leaves = [leaf for child in cls.__subclasses__() for leaf in _leaf_classes(child)]
    return leaves or ([cls] if dataclasses.is_dataclass(cls) else [])


def has_field(value: Any, name: str) -> bool:
    """Whether `value` is a dataclass with a field of that name; a property is none."""
    return dataclasses.is_dataclass(value) and name in {f.name for f in dataclasses.fields(value)}


def choice_path(default: Any, option: str) -> list[str] | None:
    """The path of the field that `option` names, if it may hold one of several dataclasses."""
    if not option.startswith("--"):
        return None
    path = option[2:].replace("-", "_").split(".")
    value = default
    for depth, name in enumerate(path):
        if not has_field(value, name):
            return None
        if depth == len(path) - 1:
            return path if len(alternatives(type(value), name)) > 1 else None
        value = getattr(value, name)
    return None


def _option_values(args: list[str]) -> dict[str, str]:
    """Every option's value, by its path."""
    pairs = [word.partition("=") for word in args]
    values = {option: value for option, equals, value in pairs if equals}
    values |= {word: following for word, following in pairwise(args) if word.startswith("--")}
    return {option[2:].replace("-", "_"): value for option, value in values.items()}


def _switch(value: Any, path: list[str], option: str, name: str, texts: dict[str, str]) -> Any:
    """A copy of `value` whose field at `path` is a new instance of the dataclass `name`."""
    old = getattr(value, path[0])
    if len(path) > 1:
        return _with_field(value, path[0], _switch(old, path[1:], option, name, texts))
    kinds = alternatives(type(value), path[0])
    kind = _choice(kinds, name)
    if kind is None:
        names = [to_option_value(kind) for kind in kinds]
        hint = did_you_mean(name.lower(), names)
        raise ConfigError(f"{option}: {name!r} is not one of {', '.join(names)}{hint}")
    prefix = option[2:].replace("-", "_") + "."
    field_texts = {o.removeprefix(prefix): text for o, text in texts.items()}
    try:
        return _with_field(value, path[0], _construct(kinds[kind], old, option, field_texts))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{option} {to_option_value(kind)}: {error}") from error


def _choice(kinds: dict[str, type | None], name: str) -> str | None:
    """The name among `kinds` that is spelled `name`, whatever its case and dashes."""
    by_plain_name = {re.sub(r"\W|_", "", kind).lower(): kind for kind in kinds}
    return by_plain_name.get(re.sub(r"\W|_", "", name).lower())


def allows_choice(default: Any, path: list[str], name: str) -> bool:
    """Whether the field at `path` may hold the dataclass that an option calls `name`."""
    for field in path[:-1]:
        default = getattr(default, field)
    return _choice(alternatives(type(default), path[-1]), name) is not None


def _with_field(owner: Any, name: str, value: Any) -> Any:
    """A copy of `owner` with one field changed.

    Not `dataclasses.replace`, whose `__post_init__` would check values before all options are
    applied.
    """
    changed = copy.copy(owner)
    object.__setattr__(changed, name, value)
    return changed


def _construct(cls: type | None, old: Any, option: str, texts: dict[str, str]) -> Any:
    if cls is None or type(old) is cls:
        return None if cls is None else old
    fields = [f for f in dataclasses.fields(cls) if f.init]
    values = {f.name: getattr(old, f.name) for f in fields if hasattr(old, f.name)}
    no = dataclasses.MISSING
    required = [f.name for f in fields if f.default is no and f.default_factory is no]
    values |= {name: texts[name] for name in required if name in texts}
    if missing := [name for name in required if name not in values]:
        options = " and ".join(f"{option}.{name.replace('_', '-')}" for name in missing)
        raise ConfigError(f"{option} {to_option_value(cls.__name__)} also needs {options}")
    return cls(**values)
