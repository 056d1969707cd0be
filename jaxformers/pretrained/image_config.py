"""Fields that the `config.json` of every image model has: channels, classes and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxformers.errors import WeightsError
from jaxformers.pretrained.config_fields import LAYERS, Fields

LARGEST = 1 << 16


def class_names(config: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """The classes' names from `id2label`; empty where it is missing or says nothing."""
    named = config.get("id2label")
    if not classes or not isinstance(named, dict) or set(named) != set(map(str, range(classes))):
        return ()
    names = tuple(str(named[str(i)]) for i in range(classes))
    return () if names == tuple(f"LABEL_{i}" for i in range(classes)) else names


def class_fields(names: tuple[str, ...], classes: int) -> dict[str, Any]:
    """`id2label` and `label2id` of a head of that many classes."""
    names = names or tuple(f"LABEL_{i}" for i in range(classes))
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def whole_numbers(fields: Fields, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of whole numbers above 0, one for each stage of a network.

    Raises:
        WeightsError: it is none, or of a size that no model has.
    """
    found = fields.content.get(name, list(default))
    good = isinstance(found, list) and 0 < len(found) <= 16
    if not good or any(type(n) is not int or not 0 < n <= LARGEST for n in found):
        raise fields.refuse(name, "not a list of a few whole numbers above 0")
    if name == "depths" and max(found) > LAYERS:
        raise fields.refuse(name, "more blocks than any model has")
    return tuple(found)


def head_classes(shapes: Mapping[str, tuple[int, ...]], name: str, place: str) -> int:
    """Classes of the head whose kernel has that name; 0 where there is none.

    Raises:
        WeightsError: it is no matrix.
    """
    shape = shapes.get(name)
    if shape is None:
        return 0
    if len(shape) < 2 or shape[0] < 1:
        raise WeightsError(f"{place}: {name} {list(shape)} is no head over classes")
    return shape[0]
