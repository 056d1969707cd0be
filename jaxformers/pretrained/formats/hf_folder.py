"""What reading a folder of Hugging Face's begins with, whatever its architecture."""

from __future__ import annotations

from typing import Any, NamedTuple

from etils import epath

from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.mapping.config_fields import Fields


class Published(NamedTuple):
    """An opened folder."""

    fields: Fields
    """Of its `config.json`."""
    tensors: safetensors_folder.Tensors
    prefix: str
    """What stands before the names below the head; empty where there is nothing but those."""


def open_folder(path: Any, prefix: str) -> Published:
    """Opens a folder, some of whose names may begin with `prefix`.

    Raises:
        WeightsError: a damaged file; one line.
    """
    config_path = epath.Path(path) / safetensors_folder.CONFIG
    fields = Fields(safetensors_folder.read_json(config_path), str(config_path))
    tensors = safetensors_folder.Tensors(epath.Path(path))
    headed = any(name.startswith(prefix) for name in tensors.shapes)
    return Published(fields, tensors, prefix if headed else "")
