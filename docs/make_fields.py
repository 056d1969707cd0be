"""Writes docs/fields.md: every numeric field of the configuration with its range and default.

python docs/make_fields.py
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from pathlib import Path

import jaxformers
from jaxformers.fields import CheckedFields, numeric_fields

PAGE = Path(__file__).with_name("fields.md")
HEAD = """# Numeric fields

Every numeric field of the configuration, with the numbers that it takes. Another number is refused
in one line, on the command line (`--optimizer.b2 1.5`), in Python and in a saved experiment.
Numbers are finite; whole numbers are below 2^31 where no other bound is stated. Written by
`docs/make_fields.py` from the annotations of the dataclasses; `jaxformers/fields.py` checks them.

| field | range | default |
| --- | --- | --- |
"""


def configuration_classes() -> list[type]:
    """Every configuration dataclass of the package, by module and name."""
    for module in pkgutil.walk_packages(jaxformers.__path__, "jaxformers."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = {
        cls for cls in _subclasses(CheckedFields) if cls.__module__.startswith("jaxformers.")
    }
    dataclass_types = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    return sorted(dataclass_types, key=lambda cls: (cls.__module__, cls.__name__))


def page() -> str:
    """The contents of docs/fields.md."""
    rows = [
        f"| `{cls.__name__}.{name}` | {bounds} | {default} |"
        for cls in configuration_classes()
        for name, bounds, default in _rows(cls)
    ]
    return HEAD + "\n".join(rows) + "\n"


def _rows(cls: type) -> Iterator[tuple[str, str, str]]:
    """(name, range, default) of each numeric field; of inherited ones where they differ."""
    ranges = {field.name: str(field) for field in numeric_fields(cls)}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        choices = typing.get_args(hints[field.name])
        if typing.get_origin(hints[field.name]) is typing.Literal and type(choices[0]) is int:
            ranges[field.name] = ", or ".join(map(str, choices))
        if field.name in ranges:
            required = field.default is dataclasses.MISSING
            yield field.name, ranges[field.name], "required" if required else f"{field.default}"


def _subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


if __name__ == "__main__":
    PAGE.write_text(page())
