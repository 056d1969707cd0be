"""Published weights in one file without a configuration: `.npz`, `.safetensors`, Flax's `.bin`.

The names of the tensors identify the architecture, their shapes its size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etils import epath

from jaxformers.errors import WeightsError, printable
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.pretrained.family import LoadedModel, SingleFileFormat
from jaxformers.pretrained.formats import flax_msgpack, safetensors_folder
from jaxformers.pretrained.formats.npz_file import NpzFile
from jaxformers.pretrained.formats.weight_sets import select_weights
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION

SUFFIXES = (".npz", ".safetensors")


def is_single_file(path: Any) -> bool:
    """Whether the path is that of a file of weights."""
    path = epath.Path(path).expanduser()
    return path.is_file() and (path.suffix in SUFFIXES or flax_msgpack.is_file(path))


def load(
    path: Any, execution: Execution = DEFAULT_EXECUTION, weights: str | None = None
) -> LoadedModel:
    """The model in the file, and its variables as `execution` stores them.

    Args:
        path: the file.
        execution: how the model computes.
        weights: which of several sets of weights, as for `select_weights`.

    Raises:
        WeightsError: a damaged file, names that are no known architecture's, several sets without
            a choice, or tensors that do not fit; one line.
    """
    source, file_format = recognise(path, weights)
    return file_format.load(source, execution)


def recognise(path: Any, weights: str | None = None) -> tuple[TensorSource, SingleFileFormat]:
    """Opens a file, and finds the format of a registered family that its tensors' names are of.

    Names are without the prefixes of training wrappers; `weights` as for `select_weights`.

    Raises:
        WeightsError: a damaged file, names that are no known architecture's, or several sets of
            weights without a choice.
    """
    formats = registry.formats(SingleFileFormat)
    source = select_weights(
        open_file(epath.Path(path).expanduser()),
        lambda shapes: any(entry.recognises(shapes) for entry in formats),
        weights,
    )
    for file_format in formats:
        if file_format.recognises(source.shapes):
            return source, file_format
    names = ", ".join(map(printable, sorted(source.shapes)[:3]))
    raise WeightsError(f"{source.place}: no known model has its tensors ({names}, ...)")


def open_file(path: epath.Path) -> TensorSource:
    """The tensors of a file: shapes now, values when asked.

    Raises:
        WeightsError: a damaged file.
    """
    if path.suffix == ".npz":
        return NpzFile(path)
    if path.suffix == flax_msgpack.SUFFIX:
        return flax_msgpack.FlaxFile(path)
    return safetensors_folder.TensorFile(Path(path), str(path))
