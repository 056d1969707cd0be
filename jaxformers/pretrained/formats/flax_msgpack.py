"""Flax's msgpack files of weights: read without unpickling, and written, array by array.

Such a file is a nested map from names to arrays. It is scanned header by header: every length is
checked against the file, and no array is read before it is asked for. `FlaxFile` has the file's own
names. `FlaxTensors` reads Hugging Face's, `flax_model.msgpack` whole or in shards, under PyTorch's
names and layouts by the rule with which transformers converted between the two, so that one name
map serves both: `kernel` [in, out] is `weight` [out, in], `scale` and `embedding` are `weight`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath
from flax import traverse_util

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.formats.safetensors_folder import (
    INDEX_BYTES,
    read_json,
    require_regular,
)
from jaxformers.pretrained.mapping.transforms import Shape

SUFFIX = ".bin"
WEIGHTS, INDEX = "flax_model.msgpack", "flax_model.msgpack.index.json"
COLLECTIONS = ("params", "batch_stats")
TYPES = {
    name: np.dtype(name) for name in ("float16", "float32", "float64", "int8", "int32", "int64")
}
TYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
LAST_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
KERNEL_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
"""Axes of a dense, a 1D and a 2D convolution's kernel, in PyTorch's order, by their number."""
DEPTH, ENTRIES, NAME_BYTES, DIMENSIONS = 32, 100_000, 1024, 32
ARRAY, SCALAR = 1, 3
"""Flax's extension types: an array, and a NumPy scalar in the form of one."""
LENGTHS = {  # code -> kind, bytes of the length
    **{0xC4 + i: ("binary", 1 << i) for i in range(3)},
    **{0xC7 + i: ("extension", 1 << i) for i in range(3)},
    **{0xD9 + i: ("text", 1 << i) for i in range(3)},
    **{0xDC + i: ("array", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
}


class StoredArray(NamedTuple):
    """Where an array lies in a file, in the layout of Flax."""

    file: epath.Path
    offset: int
    dtype: np.dtype
    shape: Shape
    axes: tuple[int, ...]
    """The order in which PyTorch has its axes."""


class FlaxFile:
    """One file's arrays under its own names, joined by slashes: shapes now, values when asked.

    A collection `params` around all of them is left out of the names.

    Raises:
        WeightsError: a truncated or damaged file, or lengths that lie.
    """

    def __init__(self, path: epath.PathLike):
        path = epath.Path(path)
        self.place = str(path)
        entries = _scan(path)
        inner = bool(entries) and all(names[0] == "params" and names[1:] for names, _ in entries)
        self._arrays: dict[str, StoredArray] = {}
        for names, array in entries:
            name = "/".join(names[1:] if inner else names)
            if name in self._arrays:
                raise WeightsError(f"{path} repeats {printable(name)}: fetch it again")
            self._arrays[name] = array
        self.shapes: Mapping[str, Shape] = {n: a.shape for n, a in self._arrays.items()}

    def read(self, name: str) -> np.ndarray:
        """Reads an array as float32."""
        return _read(self._arrays[name], name)


class FlaxTensors:
    """A folder's arrays under PyTorch's names and in its layout: shapes now, values when asked.

    Raises:
        WeightsError: a truncated or damaged file, lengths that lie, or shards that do not fit
            their index.
    """

    def __init__(self, folder: epath.PathLike):
        folder = epath.Path(folder)
        is_single_file = (folder / WEIGHTS).exists()
        self.place = str(folder / (WEIGHTS if is_single_file else INDEX))
        files = [WEIGHTS] if is_single_file else self._read_index(folder)
        self._arrays: dict[str, StoredArray] = {}
        for file in files:
            for path, array in _scan(folder / file):
                name, array = _as_torch(path, array)
                if name in self._arrays:
                    raise WeightsError(f"{folder / file} repeats {printable(name)}: fetch it again")
                self._arrays[name] = array
        self.shapes: Mapping[str, Shape] = {
            name: tuple(array.shape[axis] for axis in array.axes)
            for name, array in self._arrays.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Reads an array as float32."""
        return _read(self._arrays[name], name)

    def _read_index(self, folder: epath.Path) -> list[str]:
        index = read_json(folder / INDEX, INDEX_BYTES).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise WeightsError(f"{self.place} has no weight_map from tensors to files")
        for file in index.values():
            if not isinstance(file, str) or not re.fullmatch(r"\w[\w.-]*\.msgpack", file):
                quoted = printable(repr(file))
                raise WeightsError(
                    f"{self.place} names {quoted}, which is no msgpack file beside it"
                )
            if not (folder / file).exists():
                raise WeightsError(f"{self.place} names {file}, which is missing")
        return sorted(set(index.values()))


def _read(array: StoredArray, name: str) -> np.ndarray:
    """The values of an array as float32, its axes in the order that it states."""
    size = math.prod(array.shape) * array.dtype.itemsize
    try:
        with array.file.open("rb") as file:
            file.seek(array.offset)
            values = np.frombuffer(file.read(size), array.dtype).reshape(array.shape)
    except (OSError, ValueError):
        raise WeightsError(f"{array.file} has changed at {printable(name)}") from None
    return values.transpose(array.axes).astype(np.float32, order="C")


def is_file(path: epath.Path) -> bool:
    """Whether a `.bin` file may be Flax's: a pickle of PyTorch's, zipped or not, is not."""
    if path.suffix != SUFFIX:
        return False
    require_regular(path)
    with path.open("rb") as file:
        return file.read(2)[:1] not in (b"P", b"\x80")


def is_in(folder: epath.Path) -> bool:
    """Whether a folder holds such weights."""
    return (folder / WEIGHTS).exists() or (folder / INDEX).exists()


def _as_torch(path: tuple[str, ...], array: StoredArray) -> tuple[str, StoredArray]:
    """PyTorch's name of an array, and the array with PyTorch's order of axes."""
    path = path[1:] if path[0] in COLLECTIONS and len(path) > 1 else path
    axes = KERNEL_AXES.get(len(array.shape)) if path[-1] == "kernel" else None
    name = ".".join((*path[:-1], LAST_NAMES.get(path[-1], path[-1])))
    return name, array._replace(axes=axes) if axes else array


def _scan(path: epath.Path) -> list[tuple[tuple[str, ...], StoredArray]]:
    """All arrays of a file by their paths of names.

    Raises:
        WeightsError: the file is truncated or damaged.
    """
    require_regular(path)
    try:
        with path.open("rb") as file:
            scanner = _Scanner(path, file, path.stat().length)
            entries = list(scanner.entries())
            scanner.require_end()
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is truncated, damaged or no msgpack of Flax's ({printable(error)}): "
            "fetch it again"
        ) from None
    return entries


class _Scanner:
    """Reads the headers of MessagePack values in turn; ValueError where they cannot be."""

    def __init__(self, path: epath.Path, file: IO[bytes], size: int):
        self.path, self.file, self.size = path, file, size
        self.position = self.num_entries = 0

    def entries(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], StoredArray]]:
        """The arrays in the next value, a nested map."""
        kind, length = self.head()
        if kind == "extension" and path:
            yield path, self.array(length)
            return
        if kind != "map" or len(path) > DEPTH:
            raise ValueError(f"{'/'.join(path)} is neither an array nor a map of arrays")
        for _ in range(length):
            self.num_entries += 1
            if self.num_entries > ENTRIES:
                raise ValueError(f"more than {ENTRIES:,} names")
            yield from self.entries((*path, self.text(NAME_BYTES)))

    def array(self, length: int) -> StoredArray:
        """The array in an extension of `length` bytes; its numbers are passed over."""
        if self.number(1) not in (ARRAY, SCALAR):
            raise ValueError("an extension that is no array")
        end = self.position + length
        self.expect("array", 3)
        num_dimensions = self.expect("array")
        if num_dimensions > DIMENSIONS:
            raise ValueError(f"an array of {num_dimensions} dimensions")
        shape = tuple(self.expect("number") for _ in range(num_dimensions))
        dtype = TYPES.get(name := self.text(NAME_BYTES))
        if dtype is None:
            raise ValueError(f"an array of type {name}")
        size = self.expect("binary")
        if size != math.prod(shape) * dtype.itemsize or self.position + size != end:
            raise ValueError(f"an array of another size than its shape {list(shape)}")
        offset = self.position
        self.skip(size)
        return StoredArray(self.path, offset, dtype, shape, tuple(range(len(shape))))

    def head(self) -> tuple[str, int]:
        """Kind and length of the next value; of a number, its value."""
        code = self.number(1)
        if code < 0x80:
            return "number", code
        if code < 0xA0:
            return ("map" if code < 0x90 else "array"), code & 0x0F
        if code < 0xC0:
            return "text", code & 0x1F
        if 0xCC <= code <= 0xCF:
            return "number", self.number(1 << (code - 0xCC))
        if 0xD4 <= code <= 0xD8:
            return "extension", 1 << (code - 0xD4)
        if code not in LENGTHS:
            raise ValueError(f"a value of code {code:#x}")
        kind, width = LENGTHS[code]
        return kind, self.number(width)

    def expect(self, kind: str, length: int | None = None) -> int:
        """The length of the next value, which must be of this kind (and length)."""
        head = self.head()
        if head[0] != kind or length not in (None, head[1]):
            raise ValueError(f"a {head[0]} in place of a {kind}")
        return head[1]

    def text(self, most: int) -> str:
        length = self.expect("text")
        if length > most:
            raise ValueError(f"a name of {length:,} bytes")
        return self.read(length).decode()

    def number(self, width: int) -> int:
        return int.from_bytes(self.read(width), "big")

    def read(self, count: int) -> bytes:
        offset = self.position
        self.skip(count, seek=False)
        data = self.file.read(count)
        if len(data) != count:
            raise ValueError(f"it ends at byte {offset + len(data):,}")
        return data

    def skip(self, count: int, seek: bool = True) -> None:
        """Advances by `count` bytes, which the file must have."""
        self.position += count
        if self.position > self.size:
            raise ValueError(f"it ends at byte {self.size:,}, and is to go on to {self.position:,}")
        if seek:
            self.file.seek(self.position)

    def require_end(self) -> None:
        """The file must end here."""
        if self.position != self.size:
            raise ValueError(f"{self.size - self.position:,} bytes after its end")


def write_file(path: epath.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by names joined by slashes as Flax's nested map, one array at a time.

    The file is that of `flax.serialization.to_bytes` for the same tree.
    """
    tree = traverse_util.unflatten_dict(dict(tensors), sep="/")
    with path.open("wb") as file:
        for chunk in _packed(tree):
            file.write(chunk)


def _packed(value: Any) -> Iterator[bytes | memoryview]:
    """MessagePack bytes of a nested map of arrays."""
    if isinstance(value, Mapping):
        yield _length(len(value), 0x80, 16, 0xDE, 2)
        for name, item in value.items():
            yield _packed_text(name)
            yield from _packed(item)
        return
    array = np.ascontiguousarray(value)
    shape = b"".join(map(_packed_number, np.shape(value)))
    head = b"\x93" + bytes([0x90 | np.ndim(value)]) + shape + _packed_text(array.dtype.name)
    head += _length(array.nbytes, 0, 0, 0xC4, 1)
    size = len(head) + array.nbytes
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    yield bytes([fixed[size]]) if size in fixed else _length(size, 0, 0, 0xC7, 1)
    yield bytes([ARRAY]) + head
    yield array.reshape(-1).view(np.uint8).data


def _length(length: int, short: int, below: int, code: int, width: int) -> bytes:
    """The head of a value: in one byte `short + length` if `below`, else the narrowest code."""
    if length < below:
        return bytes([short | length])
    while length >= 1 << 8 * width:
        code, width = code + 1, 2 * width
    return bytes([code]) + length.to_bytes(width, "big")


def _packed_text(text: str) -> bytes:
    data = text.encode()
    return _length(len(data), 0xA0, 32, 0xD9, 1) + data


def _packed_number(number: int) -> bytes:
    return _length(number, 0, 128, 0xCC, 1)
