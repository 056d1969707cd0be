"""Ranges of configuration fields, stated in their types and checked at construction.

A numeric field says its range in its annotation, `b2: Rate = 0.98`, where
`Rate = Annotated[float, Range(ge=0, lt=1)]`. A dataclass derived from `CheckedFields` compares
its values with the ranges of its numbers and the choices of its `Literal` fields before any check
of its own, whether Python, the command line or a saved experiment constructs it.
`numeric_fields` lists what was stated, for the table in `docs/fields.md`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal

from jaxformers.errors import ConfigError, did_you_mean

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Range:
    """Bounds of a finite number: `ge` and `le` are allowed values, `gt` and `lt` are not."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    also: tuple[float, ...] = ()
    """Further values with a meaning of their own, such as -1 for "the remaining devices"."""

    def __contains__(self, value: float) -> bool:
        return value in self.also or (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        """The bounds: `at least 1`, `from 0 to below 1`, `above 0 and at most 1`."""
        low, high = (
            (self.ge, "at least") if self.gt is None else (self.gt, "above"),
            (self.le, "at most") if self.lt is None else (self.lt, "below"),
        )
        if self.ge is not None and high[0] is not None:
            return f"from {self.ge} to {'' if self.lt is None else 'below '}{high[0]}"
        stated = [f"{word} {bound}" for bound, word in (low, high) if bound is not None]
        return " and ".join(stated) or "any finite number"


PositiveInt = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
Seed = Annotated[int, Range(ge=0, le=2**32 - 1)]
PositiveFloat = Annotated[float, Range(gt=0)]
NonNegativeFloat = Annotated[float, Range(ge=0)]
FiniteFloat = Annotated[float, Range()]
Fraction = Annotated[float, Range(ge=0, le=1)]
PositiveFraction = Annotated[float, Range(gt=0, le=1)]
OpenFraction = Annotated[float, Range(gt=0, lt=1)]
# A rate of dropout, of smoothing or of an average's decay: at 1 nothing would be left.
Rate = Annotated[float, Range(ge=0, lt=1)]


class CheckedFields:
    """Base class of configuration dataclasses: checks ranges and choices at construction.

    A dataclass with a `__post_init__` of its own calls this one first.

    Raises:
        ConfigError: a number outside its range or of the wrong type, or a value that is none of
            its field's choices.
    """

    def __post_init__(self):
        for name, choices in _choices(type(self)).items():
            _check_choice(name, getattr(self, name), choices)
        for field in numeric_fields(type(self)):
            field.check(self)


@dataclass(frozen=True)
class NumericField:
    """A numeric field of a configuration dataclass.

    Attributes:
        name: of the field.
        range: of every number in it.
        whole: whether its numbers are integers.
        alternatives: types other than numbers that it may hold: `str`, `NoneType`.
    """

    name: str
    range: Range
    whole: bool
    alternatives: frozenset[type]

    def check(self, config: Any) -> None:
        """Raises ConfigError unless all numbers in the field are in range."""
        value = getattr(config, self.name)
        if not all(self._allows(number) for number in _leaves(value)):
            owner = type(config).__name__
            raise ConfigError(f"{owner}: {self.name} is {value!r}; it is {self}")

    def _allows(self, value: Any) -> bool:
        if type(value) in self.alternatives:
            return True
        kind = numbers.Integral if self.whole else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        return value in self.range and (not self.whole or value <= self._largest)

    @property
    def _largest(self) -> float:
        """Integers reach the device as int32 unless the range says otherwise."""
        return INT32_MAX if self.range.le is None else self.range.le

    def __str__(self) -> str:
        """`a whole number, at least 1`, `from 0 to below 1, or None`."""
        words = {str: "a name", type(None): "None"}
        named = [text for kind, text in words.items() if kind in self.alternatives]
        bounds = f"a whole number, {self.range}" if self.whole else str(self.range)
        return ", or ".join([bounds, *map(str, self.range.also), *named])


@functools.cache
def numeric_fields(cls: type) -> tuple[NumericField, ...]:
    """The fields of a dataclass that state a range, in order."""
    hints = _hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    return tuple(field for name in names if (field := _numeric_field(name, hints.get(name))))


def _numeric_field(name: str, hint: Any) -> NumericField | None:
    leaves = list(_leaf_hints(hint))
    annotated = [leaf for leaf in leaves if typing.get_origin(leaf) is Annotated]
    if not annotated:
        return None
    number, bounds = typing.get_args(annotated[0])
    plain = {leaf for leaf in leaves if isinstance(leaf, type)}
    for leaf in leaves:
        if typing.get_origin(leaf) is Literal:
            plain |= {type(choice) for choice in typing.get_args(leaf)}
    return NumericField(name, bounds, number is int, frozenset(plain))


def _leaf_hints(hint: Any) -> Iterator[Any]:
    """The members of unions and the items of tuples, nested ones too."""
    if typing.get_origin(hint) in (UnionType, typing.Union, tuple):
        for member in typing.get_args(hint):
            yield from _leaf_hints(member)
    elif hint is not Ellipsis:
        yield hint


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


@functools.cache
def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    hints = _hints(cls).items()
    return {n: typing.get_args(hint) for n, hint in hints if typing.get_origin(hint) is Literal}


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:  # a name that only a type checker, or the function around the class, has
        return {}


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        choice_names = [str(choice) for choice in choices]
        hint = did_you_mean(str(value), choice_names)
        raise ConfigError(f"{name} is {value!r}, not one of {', '.join(choice_names)}{hint}")
