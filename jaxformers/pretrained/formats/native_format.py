"""The library's own format: any model, every field of its configuration, nothing rounded.

A folder of `config.json` (`{"family": "transformer", "format": "jaxformers", "config": {...}}`) and
`model.safetensors`, whose tensors are named by our paths, the vocabulary without its padding.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any

import flax.linen as nn
import typeguard
from etils import epath

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.mapping import name_map

FORMAT = "jaxformers"


def load(path: Any, execution: Execution = registry.PLAIN) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a folder that `save` wrote, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, an unknown family or field, or tensors that do not fit.
    """
    path = epath.Path(path)
    place = path / safetensors_folder.CONFIG
    content = safetensors_folder.read_json(place)
    family = registry.FAMILIES.get(content.get("family"))
    if content.get("format") != FORMAT or family is None:
        raise WeightsError(
            f"{place}: no family named {content.get('family')!r}; this version has "
            f"{', '.join(registry.FAMILIES)}"
        )
    model = family.module(from_fields(family.config, content.get("config"), str(place)), execution)
    paths = tuple(registry.variable_shapes(model))
    return registry.read(model, name_map.identity(paths), safetensors_folder.Tensors(path))


def save(model: nn.Module, variables: registry.Variables, path: Any, tokenizer: Any = None) -> None:
    """Writes the folder; `tokenizer` is a `text.Tokenizer`, or a folder that holds one's files.

    Raises:
        WeightsError: a foreign model, variables that do not fit it, or no room.
    """
    leaves = registry.published(model, variables)
    config = {
        "family": registry.family_of(model),
        "format": FORMAT,
        "config": dataclasses.asdict(model.config),
    }
    tensors = name_map.identity(tuple(leaves)).write(leaves)
    safetensors_folder.write_folder(path, tensors, {safetensors_folder.CONFIG: config}, tokenizer)


def from_fields(cls: type, fields: Any, place: str) -> Any:
    """The dataclass `cls` of the JSON object `fields`, each field's name and type checked.

    Raises:
        WeightsError: an unknown or missing field, a wrong type, a value that cannot be.
    """
    if not isinstance(fields, dict):
        raise WeightsError(f"{place} has no configuration: it must be an object of fields")
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise WeightsError(f"{place}: {cls.__name__} has no field {name!r}{hint}")
    hints = typing.get_type_hints(cls)
    values = {
        name: _value(hints[name], value, f"{place}: {name}") for name, value in fields.items()
    }
    try:
        return cls(**values)
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{place}: {error}") from None


def _value(hint: Any, value: Any, place: str) -> Any:
    # `Part | None` is no dataclass itself, but one of its members is.
    parts = [each for each in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(each)]
    if len(parts) == 1 and (value is not None or hint is parts[0]):
        return from_fields(parts[0], value, place)
    value = tuple(value) if isinstance(value, list) else value
    try:
        return typeguard.check_type(value, hint)
    except typeguard.TypeCheckError:
        raise WeightsError(f"{place} is {value!r}, not {_spelled(hint)}") from None


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
