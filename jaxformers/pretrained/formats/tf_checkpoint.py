"""TensorFlow's checkpoints (`NAME.index`, `NAME.data-00000-of-00001`), read without TensorFlow.

The index is a sorted table in LevelDB's form: blocks of entries that share prefixes, each block
under a checksum, found by a last block of their places. An entry is a small protocol buffer that
says a tensor's type, shape, place in the data file and checksum. Every length is checked against
the file that it speaks of, and every checksum is verified, before anything is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.formats.crc32c import crc32c, masked
from jaxformers.pretrained.formats.safetensors_folder import require_regular
from jaxformers.pretrained.mapping.transforms import Shape

INDEX = ".index"
MAGIC, FOOTER, TRAILER = 0xDB4775248B80FB57, 48, 5
INDEX_BYTES = 64 << 20
TYPES = {  # of TensorFlow's DataType; what has another number is refused when it is read
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}
DAMAGED = (IndexError, ValueError, OverflowError, struct.error)


class Stored(NamedTuple):
    """A tensor's entry: what it is and where it lies."""

    kind: int
    shape: Shape
    shard: int
    offset: int
    size: int
    checksum: int
    cut: bool
    """Whether it is kept in pieces, as partitioned variables are."""


class TensorBundle:
    """The tensors of a checkpoint: shapes now, values when asked.

    `index` is the file `NAME.index`; the data lies beside it.

    Raises:
        WeightsError: an index that is damaged, or written in a way that is not supported.
    """

    def __init__(self, index: epath.PathLike):
        self.place, index = str(index), epath.Path(index)
        content = _whole(index)
        try:
            entries = dict(_table(content))
            header = _fields(entries.pop(b""))
            self._tensors = {_name(key): _stored(value) for key, value in entries.items()}
        except _Unsupported as error:
            raise WeightsError(f"{index} {error}") from None
        except (*DAMAGED, KeyError):
            raise WeightsError(
                f"{index} is truncated, damaged or no index of a TensorFlow checkpoint: "
                "fetch it again"
            ) from None
        self._shards = _number(header, 1)
        if _number(header, 2):
            raise WeightsError(f"{index} is of a big-endian machine, which is not supported")
        self._stem = index.parent / index.name.removesuffix(INDEX)
        self.shapes: Mapping[str, Shape] = {n: entry.shape for n, entry in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32, from float16, bfloat16, float32 or float64.

        Raises:
            WeightsError: another type, or a data file that is missing, cut short or damaged.
        """
        entry = self._tensors[name]
        file = f"{self._stem}.data-{entry.shard:05d}-of-{self._shards:05d}"
        if entry.kind not in TYPES or entry.cut:
            what = "kept in pieces" if entry.cut else "not of floating point"
            raise WeightsError(f"{self.place}: {printable(name)} is {what}, which is not supported")
        kind = TYPES[entry.kind]
        if entry.size != math.prod(entry.shape) * kind.itemsize:
            raise WeightsError(f"{self.place}: {printable(name)} has not the size of its shape")
        raw = _part(epath.Path(file), name, entry.offset, entry.size)
        if masked(crc32c(raw)) != entry.checksum:
            raise WeightsError(f"{file} is damaged at {printable(name)}: fetch it again")
        return np.frombuffer(raw, kind).astype(np.float32).reshape(entry.shape)


class _Unsupported(Exception):
    """What the format allows and this reader does not."""


def _whole(file: epath.Path) -> bytes:
    require_regular(file)
    try:
        if file.stat().length > INDEX_BYTES:
            raise WeightsError(f"{file} is larger than {INDEX_BYTES:,} bytes: not an index")
        return file.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from None


def _part(file: epath.Path, name: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on."""
    require_regular(file)
    try:
        if offset + size > file.stat().length:
            raise WeightsError(
                f"{file} ends before {printable(name)}: it is truncated, fetch it again"
            )
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(size)
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from None


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The table's keys and values in order."""
    footer = content[-FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("no table")
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    end = key_bytes = 0
    for _, value in _block(content, offset, size):
        offset, size, _ = _handle(value, 0)
        if offset < end:
            raise ValueError("a block that is listed twice")
        end = offset + size
        for key, entry in _block(content, offset, size):
            # Prefixes that keys share are stored once, so that keys can outgrow the file.
            key_bytes += len(key)
            if key_bytes > INDEX_BYTES:
                raise ValueError("keys of excessive length")
            yield key, entry


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """A block's offset and size, and where the handle ends."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """A block's entries: each key repeats so much of the one before it."""
    block = content[offset : offset + size]
    compression, checksum = struct.unpack_from("<BI", content, offset + size)
    if masked(crc32c(content[offset : offset + size + 1])) != checksum:
        raise ValueError("checksum")
    if compression:
        raise _Unsupported("is compressed, which TensorFlow's own files are not: save it anew")
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise ValueError("an entry beyond its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        yield key, block[at - length : at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _fields(message: bytes) -> dict[int, list]:
    """A protocol buffer's values by their fields' numbers."""
    values_by_number: dict[int, list] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _value(message, at, tag & 7)
        values_by_number.setdefault(tag >> 3, []).append(value)
    return values_by_number


def _value(message: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == 0:
        return _varint(message, at)
    if wire == 5:
        return struct.unpack_from("<I", message, at)[0], at + 4
    if wire != 2:
        raise ValueError("a kind of field that these messages do not have")
    length, at = _varint(message, at)
    if at + length > len(message):
        raise ValueError("a field beyond its message")
    return message[at : at + length], at + length


def _number(fields: dict[int, list], field: int) -> int:
    """The field, 0 where it is left out."""
    value = fields.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError("no number")
    return value


def _name(key: bytes) -> str:
    name = key.decode()
    if not name.isprintable():
        raise ValueError("no name")
    return name


def _stored(message: bytes) -> Stored:
    fields = _fields(message)
    sizes = [_fields(dimension) for dimension in _fields(fields.get(2, [b""])[-1]).get(2, [])]
    numbers = (_number(fields, field) for field in (3, 4, 5, 6))
    shape = tuple(_number(dimension, 1) for dimension in sizes)
    return Stored(_number(fields, 1), shape, *numbers, cut=7 in fields)
