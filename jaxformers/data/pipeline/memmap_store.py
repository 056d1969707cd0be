"""Memory-mapped stores: arrays that are written into a folder once.

A folder holds one `.npy` file an array and `meta.json`: the caller's metadata and the size of each
file, by which an incomplete or damaged folder is recognised."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxformers.errors import DataError

META_FILE = "meta.json"
Progress = Callable[[int, int], None]


def cache_folder(cache: Any = None) -> Path:
    """`cache`, else $JAXFORMERS_CACHE, else ~/.cache/jaxformers."""
    default = os.environ.get("JAXFORMERS_CACHE") or Path.home() / ".cache" / "jaxformers"
    return Path(cache or default).expanduser()


def write_once(folder: Path, what: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """Let `write` make the files of `folder`, unless an earlier call has finished them.

    Processes of one machine may call this at once: one writes, the others wait for it. A folder
    that was not finished or was damaged is written anew.

    Args:
        folder: where the files go.
        what: the files in words, for the message.
        write: writes the files into the folder it is given; what it returns is stored for `meta`.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        with locked(folder):
            if not _complete(folder):
                _write(folder, write)
    except OSError as error:
        raise DataError(
            f"{what} cannot be written to {folder.parent}: {error.strerror}; "
            "set JAXFORMERS_CACHE to a folder with room"
        ) from error


def meta(folder: Path) -> dict[str, Any]:
    """What `write` returned when the files of `folder` were made."""
    return json.loads((folder / META_FILE).read_text())


def mapped(file: Path) -> np.ndarray:
    """The array in a .npy file, memory-mapped."""
    # A plain view: indexing np.memmap itself costs Python calls.
    return np.load(file, mmap_mode="r").view(np.ndarray)


def id_type(vocab_size: int) -> type:
    """The smallest type that ids are kept in."""
    return np.uint16 if vocab_size <= np.iinfo(np.uint16).max + 1 else np.int32


class Appended:
    """A one-dimensional .npy file that grows; its header gets the length when it is closed."""

    def __init__(self, path: Path, dtype: type):
        self._file, self._dtype, self._count = open(path, "wb"), np.dtype(dtype), 0  # noqa: SIM115

    def __enter__(self) -> Appended:
        self._header()
        return self

    def append(self, values: Sequence[int] | np.ndarray) -> None:
        """Write `values` behind the others."""
        self._count += len(values)
        np.asarray(values, self._dtype).tofile(self._file)

    def __exit__(self, *_) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def _header(self) -> None:
        # NumPy pads the header so that it keeps its size when this one axis grows.
        shape = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, shape)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against the other processes of this machine."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(folder: Path) -> bool:
    """Whether every file is there at the size that was noted when the folder was finished."""
    try:
        sizes = meta(folder)["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _write(folder: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Write to a temporary sibling of `folder` and rename it: complete or not there."""
    for abandoned in folder.parent.glob(f"{folder.name}.writing-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}.writing-{uuid.uuid4().hex}")
    unfinished.mkdir()
    try:
        metadata = write(unfinished)
        sizes = {file.name: file.stat().st_size for file in unfinished.iterdir()}
        (unfinished / META_FILE).write_text(json.dumps({**metadata, "sizes": sizes}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
