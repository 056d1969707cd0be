"""Random access to the lines of a text file, plain or gzipped, of any size."""

from __future__ import annotations

import gzip
import hashlib
import mmap
import tempfile
import zlib
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool

from jaxformers.errors import DataError
from jaxformers.regular_files import check_regular

BLOCK = 1 << 24
NEWLINE, TAB, SPACE, LAST_ASCII = 10, 9, 32, 127
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NoText(DataError):
    """A file without a line that says something."""


class Lines:
    """The lines of `path`: memory-mapped bytes and the offset of every line, no strings.

    A gzipped or remote file is first unpacked into a temporary file. The whole text is read once
    to find the lines, to check it and for `digest`, the SHA-256 of the text.

    Args:
        path: file, local or gs://; unpacked if its name ends in `.gz`.
        columns: how many tab-separated columns each line must have at least.

    Raises:
        NoText: nothing in it, or blank lines only.
        DataError: no such file, damaged gzip, invalid UTF-8 or a line with too few
            columns (the line is named).
    """

    def __init__(self, path: Any, columns: int = 1):
        self.path = epath.Path(path)
        self._content = _content(self.path)
        self._offsets, self.digest = self._index(columns)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._bytes(index).decode()

    def blank(self) -> Bool[np.ndarray, "lines"]:
        """Which lines hold nothing but white space."""
        first = np.frombuffer(self._content, np.uint8)[self._offsets[:-1]]
        blank = np.zeros(len(self), bool)
        for index in np.flatnonzero((first <= SPACE) | (first > LAST_ASCII)):
            blank[index] = not self[index].strip()
        return blank

    def _bytes(self, index: int) -> bytes:
        line = self._content[self._offsets[index] : self._offsets[index + 1]]
        if index == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        return line.rstrip(b"\r\n")

    def _index(self, columns: int) -> tuple[np.ndarray, str]:
        """Offsets of the lines [lines + 1], and the digest, from one pass over whole lines."""
        ends, digest, start, count = [np.zeros(1, np.int64)], hashlib.sha256(), 0, 0
        while start < len(self._content):
            newline = self._content.find(b"\n", start + BLOCK)
            stop = len(self._content) if newline < 0 else newline + 1
            block = self._content[start:stop]
            digest.update(block)
            line_ends = _line_ends(block)
            _check_text(block, self.path, count)
            _check_columns(block, line_ends, columns, self.path, count)
            ends.append(line_ends + start)
            start, count = stop, count + len(line_ends)
        return np.concatenate(ends), digest.hexdigest()


def _content(path: epath.Path) -> mmap.mmap:
    """The bytes of `path`, unpacked and local, as a memory map."""
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a text file")
    check_regular(path, DataError)
    try:
        if path.suffix == ".gz" or "://" in str(path):
            return _map(_unpacked(path), path)
        with open(path, "rb") as file:
            return _map(file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path} is not a gzip file, or it is damaged") from None


def _unpacked(path: epath.Path) -> Any:
    temporary = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as its memory map)
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        while block := file.read(BLOCK):
            temporary.write(block)
    temporary.flush()
    return temporary


def _map(file: Any, path: epath.Path) -> mmap.mmap:
    file.seek(0, 2)
    if not file.tell():
        raise NoText(f"{path} is empty: it must hold one sentence or pair a line")
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(content) < BLOCK and not content[:].strip():
        raise NoText(f"{path} holds blank lines only")
    return content


def _line_ends(block: bytes) -> np.ndarray:
    """Offset behind each line of `block`, whose last line may lack its newline."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE) + 1
    return ends if block.endswith(b"\n") else np.append(ends, len(block))


def _check_text(block: bytes, path: epath.Path, lines_before: int) -> None:
    try:
        block.decode()
    except UnicodeDecodeError as error:
        line = lines_before + block.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line:,}: invalid UTF-8 (byte 0x{block[error.start]:02x}); "
            "convert the file to UTF-8"
        ) from None


def _check_columns(
    block: bytes, ends: np.ndarray, columns: int, path: epath.Path, lines_before: int
) -> None:
    if columns < 2:
        return
    tabs = (np.frombuffer(block, np.uint8) == TAB).astype(np.int32)
    counts = np.add.reduceat(tabs, np.concatenate([[0], ends[:-1]])) + 1
    short = np.flatnonzero(counts < columns)
    if len(short):
        raise DataError(
            f"{path}, line {lines_before + short[0] + 1:,}: {counts[short[0]]} tab-separated "
            f"column(s), but column {columns} is needed"
        )
