"""The library's own format: any model, every field of its configuration, nothing rounded.

A folder of `config.json` (`{"family": "transformer", "format": "jaxformers", "config": {...}}`) and
`model.safetensors`, whose tensors are named by our paths, the vocabulary without its padding.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any

import flax.linen as nn
import typeguard
from etils import epath

from jaxformers.errors import ConfigError, WeightsError, did_you_mean, printable
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.mapping import name_map
from jaxformers.pretrained.mapping.config_fields import LARGEST, LAYERS
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    published_shapes,
    read_model,
    unpadded_arrays,
)

FORMAT = "jaxformers"


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a folder that `save` wrote, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, an unknown family or field, or tensors that do not fit.
    """
    path = epath.Path(path)
    file = path / safetensors_folder.CONFIG
    content = safetensors_folder.read_json(file)
    name, modules = content.get("family"), registry.native_modules()
    if content.get("format") != FORMAT or not isinstance(name, str) or name not in modules:
        hint = did_you_mean(str(name), list(modules))
        raise WeightsError(
            f"{file}: no family named {printable(repr(name))}; this version has "
            f"{', '.join(modules)}{hint}"
        )
    family, module = modules[name]
    model = module(from_fields(family.config, content.get("config"), str(file)), execution)
    paths = tuple(published_shapes(model, str(file)))
    return read_model(model, name_map.identity(paths), safetensors_folder.Tensors(path))


def save(model: nn.Module, variables: Variables, path: Any, tokenizer: Any = None) -> None:
    """Writes the folder; `tokenizer` is as for `safetensors_folder.write_folder`.

    Raises:
        WeightsError: a foreign model, variables that do not fit it, or no room.
    """
    leaves = unpadded_arrays(model, variables)
    config = {
        "family": registry.native_name(model),
        "format": FORMAT,
        "config": dataclasses.asdict(model.config),
    }
    tensors = name_map.identity(tuple(leaves)).write(leaves)
    safetensors_folder.write_folder(path, tensors, {safetensors_folder.CONFIG: config}, tokenizer)


def from_fields(cls: type, fields: Any, path: str) -> Any:
    """The dataclass `cls` of the JSON object `fields`, each field's name and type checked.

    Raises:
        WeightsError: an unknown or missing field, a wrong type, a value that cannot be.
    """
    if not isinstance(fields, dict):
        raise WeightsError(f"{path} has no configuration: it must be an object of fields")
    names = [field.name for field in dataclasses.fields(cls)]
    for name in fields:
        if name not in names:
            hint = did_you_mean(name, names)
            raise WeightsError(f"{path}: {cls.__name__} has no field {printable(repr(name))}{hint}")
    hints = typing.get_type_hints(cls)
    values = {name: _value(hints[name], value, f"{path}: {name}") for name, value in fields.items()}
    try:
        return cls(**values)
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _value(hint: Any, value: Any, path: str) -> Any:
    # `Config | None` is no dataclass itself, but one of its members is.
    members = typing.get_args(hint) or (hint,)
    configs = [member for member in members if dataclasses.is_dataclass(member)]
    if len(configs) > 1 and isinstance(value, dict):
        # Every field is saved, so the names tell which of several configurations it is.
        names = {cls: {field.name for field in dataclasses.fields(cls)} for cls in configs}
        configs = [cls for cls in configs if names[cls] == value.keys()] or configs[:1]
    if len(configs) == 1 and (value is not None or hint is configs[0]):
        return from_fields(configs[0], value, path)
    value = tuple(value) if isinstance(value, list) else value
    try:
        value = typeguard.check_type(value, hint)
        items = value if isinstance(value, tuple) else (value,)
        if bool not in _types(hint) and any(type(item) is bool for item in items):
            raise typeguard.TypeCheckError("true is 1 to Python, and no number here")
    except typeguard.TypeCheckError:
        raise WeightsError(f"{path} is {printable(repr(value))}, not {_spelled(hint)}") from None
    _check_numbers(value, path)
    # JSON does not tell 1 from 1.0.
    is_float = type(value) is int and float in members and int not in members
    return float(value) if is_float else value


def _check_numbers(value: Any, path: str) -> None:
    """Raises WeightsError for numbers that no model has; they would only fill the memory."""
    most = LAYERS if path.endswith(("layers", "depths")) else LARGEST
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise WeightsError(f"{path} is {number}, not a finite number")
        if type(number) is int and abs(number) > most:
            raise WeightsError(f"{path} is {printable(number)}, larger than any model's")


def _types(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    members = typing.get_args(hint)
    return set().union(*map(_types, members)) if members else {hint}


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
