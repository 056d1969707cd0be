"""Published weights in one file without a configuration: `.npz` and `.safetensors`.

Which architecture it is, the tensors' names tell; how large it is, their shapes.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.pretrained.family import LoadedModel, SingleFileFormat
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.weight_sets import select_weights
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION

SUFFIXES = (".npz", ".safetensors")
BFLOAT16 = np.dtype("V2")


def is_single_file(path: Any) -> bool:
    """Whether the path is that of a file of weights."""
    path = epath.Path(path).expanduser()
    return path.suffix in SUFFIXES and path.is_file()


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
    names = ", ".join(sorted(source.shapes)[:3])
    raise WeightsError(f"{source.place}: no known model has its tensors ({names}, ...)")


def open_file(path: epath.Path) -> TensorSource:
    """The tensors of a `.npz` or `.safetensors` file: shapes now, values when asked."""
    return (
        Npz(path) if path.suffix == ".npz" else safetensors_folder.TensorFile(Path(path), str(path))
    )


class Npz:
    """The arrays of a `.npz` file. Nothing is unpickled: arrays of objects are refused.

    Raises:
        WeightsError: a damaged file, or an array that is larger or other than it should be.
    """

    def __init__(self, path: epath.Path):
        self.place, self._path = str(path), path
        try:
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                self.shapes: dict[str, Shape] = {
                    member.filename.removesuffix(".npy"): self._shape(archive, member)
                    for member in archive.infolist()
                }
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(
                f"{path} is truncated, damaged or no .npz file ({reason}): fetch it again"
            ) from None

    def read(self, name: str) -> np.ndarray:
        """One array as float32."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                array = arrays[name]
                # NumPy has no bfloat16: such arrays are stored as two bytes of no type.
                array = array.view(ml_dtypes.bfloat16) if array.dtype == BFLOAT16 else array
                return np.asarray(array, np.float32)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, zlib.error):
            raise WeightsError(f"{self.place}: {name} is damaged: fetch the file again") from None

    def _shape(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Shape:
        """What the array's header says, if it is of numbers and fills what the archive has."""
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"{member.filename} has format {version}")
            header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, _, kind = header(file)
            size = math.prod(shape) * kind.itemsize
            numbers = kind.kind in "fiu" or kind == BFLOAT16
            if not numbers or member.file_size != file.tell() + size:
                raise ValueError(f"{member.filename} is no array of numbers, or cut short")
        return tuple(shape)
