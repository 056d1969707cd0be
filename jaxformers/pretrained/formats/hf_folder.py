"""Opening a folder of Hugging Face's, of any architecture."""

from __future__ import annotations

from typing import Any, NamedTuple

from etils import epath

from jaxformers.pretrained.formats import flax_msgpack, safetensors_folder
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.mapping.name_map import TensorSource


class Published(NamedTuple):
    """An opened folder of Hugging Face's."""

    fields: Fields
    """The fields of its `config.json`."""
    tensors: TensorSource
    prefix: str
    """Prefix of the names below the head; empty where there is no head."""


def open_folder(path: Any, prefix: str) -> Published:
    """Opens a folder, some of whose names may begin with `prefix`.

    Raises:
        WeightsError: a damaged file; one line.
    """
    config_path = epath.Path(path) / safetensors_folder.CONFIG
    fields = Fields(safetensors_folder.read_json(config_path), str(config_path))
    tensors = open_tensors(epath.Path(path))
    headed = any(name.startswith(prefix) for name in tensors.shapes)
    return Published(fields, tensors, prefix if headed else "")


def open_tensors(folder: epath.Path) -> TensorSource:
    """The tensors of a folder: of its safetensors files, else of its Flax weights.

    Raises:
        WeightsError: no weights, or a damaged file.
    """
    names = (safetensors_folder.WEIGHTS, safetensors_folder.INDEX)
    if flax_msgpack.is_in(folder) and not any((folder / name).exists() for name in names):
        return flax_msgpack.FlaxTensors(folder)
    return safetensors_folder.Tensors(folder)
