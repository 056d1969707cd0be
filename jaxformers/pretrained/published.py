"""What reading a folder of Hugging Face's begins with, whatever its architecture."""

from __future__ import annotations

from typing import Any, NamedTuple

from etils import epath

from jaxformers.pretrained import folder
from jaxformers.pretrained.config_fields import Fields


class Published(NamedTuple):
    """An opened folder."""

    fields: Fields
    """Of its `config.json`."""
    tensors: folder.Tensors
    prefix: str
    """What stands before the names below the head; empty where there is nothing but those."""


def open_folder(path: Any, prefix: str) -> Published:
    """Opens a folder, some of whose names may begin with `prefix`.

    Raises:
        WeightsError: a damaged file; one line.
    """
    place = epath.Path(path) / folder.CONFIG
    fields = Fields(folder.read_json(place), str(place))
    tensors = folder.Tensors(epath.Path(path))
    headed = any(name.startswith(prefix) for name in tensors.shapes)
    return Published(fields, tensors, prefix if headed else "")
