"""Keeps what was loaded last, and loads it again when the files that it came from have changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

import jax
from etils import epath

from jaxformers.pretrained import resolve
from jaxformers.pretrained.formats.safetensors_folder import OLD_PLACE
from jaxformers.tasks.processor import TOKENIZER
from jaxformers.training.checkpoints.manifest import MANIFEST
from jaxformers.training.run_directory import CHECKPOINTS, EXPERIMENT, MODEL, is_run

Value = TypeVar("Value")
FileState = tuple[tuple[Any, ...], ...]


class FileCache(Generic[Value]):
    """The values loaded last, by the resolved paths of their sources.

    A value is loaded anew when a file of its source is another one, or has another size or time:
    weights saved again into the same folder, a relative path after a change of directory, a link
    that was moved, a run with a newer checkpoint. So it is within another mesh, to whose devices
    arrays belong.

    Args:
        load: takes the local path of a folder or file.
        size: how many values are kept.
    """

    def __init__(self, load: Callable[[epath.Path], Value], size: int = 2):
        self._load, self._size = load, size
        self._entries: dict[str, tuple[tuple[FileState, Any], Value]] = {}

    def get(self, path_or_name: Any) -> Value:
        """The value loaded from a path, or from the hub's model of that name."""
        path = local_path(path_or_name)
        key, state = _resolved(path), (file_state(path), jax.sharding.get_mesh())
        entry = self._entries.pop(key, None)
        # The state is taken before loading: a file written meanwhile leads to loading once more.
        if entry is None or entry[0] != state:
            entry = (state, self._load(path))
        self._entries[key] = entry  # the newest comes last
        while len(self._entries) > self._size:
            del self._entries[next(iter(self._entries))]
        return entry[1]


def local_path(path_or_name: Any) -> epath.Path:
    """The path itself where something is there, else the hub's model of that name, fetched.

    Raises:
        WeightsError: neither exists.
    """
    path = epath.Path(path_or_name).expanduser()
    return path if path.exists() else _fetched(str(path_or_name))


# A name is looked up at the hub once a session: what was fetched does not change.
_fetched = lru_cache(maxsize=16)(resolve)


def file_state(path: epath.Path) -> FileState:
    """Path, identity, size and times of each file that a model, tokenizer or pooling is read from.

    Of a run these are its experiment, its exported model, its tokenizer and the manifests of its
    checkpoints, so that its logs do not count.
    """
    if not path.is_dir():
        files = [path, *path.parent.glob("*.json")]
    elif is_run(path):
        files = [path / EXPERIMENT]
        files += [file for folder in (MODEL, TOKENIZER) for file in _files(path / folder)]
        files += (path / CHECKPOINTS).glob(f"*/{MANIFEST}")
    else:
        files = list(_files(path))
        # A folder of sentence-transformers states its pooling beside the encoder's folder.
        files += _files(path.parent) if path.name == OLD_PLACE else ()
    return tuple(sorted(_stat(file) for file in set(files)))


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """The files in a folder and in the folders directly below it."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from (file for file in entry.iterdir() if not file.is_dir())
        else:
            yield entry


def _stat(file: epath.Path) -> tuple[Any, ...]:
    try:
        if "://" in str(file):
            remote = file.stat()
            return str(file), remote.length, remote.mtime
        local = os.stat(file)
        times = local.st_mtime_ns, local.st_ctime_ns
        return str(file), local.st_dev, local.st_ino, local.st_size, *times
    except OSError:  # removed meanwhile, or a link to nowhere
        return (str(file),)


def _resolved(path: epath.Path) -> str:
    return str(path) if "://" in str(path) else os.path.realpath(path)
