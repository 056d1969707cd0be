"""NumPy's `.npz` files of weights. Nothing is unpickled: arrays of objects are refused."""

from __future__ import annotations

import math
import tokenize
import warnings
from typing import IO

import ml_dtypes
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.formats.zip_members import DAMAGED, ZipMembers
from jaxformers.pretrained.mapping.transforms import Shape

SUFFIX = ".npy"
BFLOAT16 = np.dtype("V2")
"""NumPy has no bfloat16: such arrays are stored as two bytes of no type."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzFile:
    """The arrays of a `.npz` file: shapes now, values when asked.

    Raises:
        WeightsError: a damaged file, or an array whose header does not fit its size.
    """

    def __init__(self, path: epath.PathLike):
        self._members = ZipMembers(path, ".npz file")
        self.place = self._members.place
        self.shapes: dict[str, Shape] = {}
        for member in self._members.sizes:
            name = member.removesuffix(SUFFIX)
            if name in self.shapes:
                raise WeightsError(f"{self.place} holds {printable(name)} twice: fetch it again")
            self.shapes[name] = self._read_shape(member)

    def read(self, name: str) -> np.ndarray:
        """One array as float32.

        Raises:
            WeightsError: it is damaged.
        """
        member = f"{name}{SUFFIX}" if f"{name}{SUFFIX}" in self._members.sizes else name
        with self._members.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if array.dtype == BFLOAT16:
                array = array.view(ml_dtypes.bfloat16)
            return np.asarray(array, np.float32)

    def _read_shape(self, member: str) -> Shape:
        """The shape in the array's header, if it holds numbers and has the member's size."""
        with self._members.open(member) as file:
            try:
                shape, dtype = _read_header(file)
            except DAMAGED as error:
                raise self._members.damaged(error, member) from None
            size = math.prod(shape) * dtype.itemsize
            is_numeric = dtype.kind in "fiu" or dtype == BFLOAT16
            if not is_numeric or self._members.sizes[member] != file.tell() + size:
                raise self._members.damaged(ValueError("no array of numbers, or cut short"), member)
        return shape


def _read_header(file: IO[bytes]) -> tuple[Shape, np.dtype]:
    """Shape and type from an array's header; raises one of DAMAGED."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"format {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of headers that need a second, lenient parser
        try:
            shape, _, dtype = HEADERS[version](file)
        except (SyntaxError, tokenize.TokenError, Warning) as error:
            raise ValueError(f"header: {error}") from None
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return tuple(shape), dtype
