"""Keeps what was loaded last, and loads it again when the files that it came from have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

import jax
from etils import epath

from jaxformers.data.files.file_state import FileState, files_state, folder_files
from jaxformers.pretrained import resolve
from jaxformers.pretrained.formats.safetensors_folder import OLD_PLACE
from jaxformers.tasks.processor import TOKENIZER
from jaxformers.training.checkpoints.manifest import MANIFEST
from jaxformers.training.run_directory import CHECKPOINTS, EXPERIMENT, MODEL, is_run

Value = TypeVar("Value")


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
    """The state of each file that a model, tokenizer or pooling is read from.

    Of a run these are its experiment, its exported model, its tokenizer and the manifests of its
    checkpoints, so that its logs do not count.
    """
    if not path.is_dir():
        return files_state([path, *path.parent.glob("*.json")])
    if not is_run(path):
        files = list(folder_files(path))
        # A folder of sentence-transformers states its pooling beside the encoder's folder.
        files += folder_files(path.parent) if path.name == OLD_PLACE else ()
        return files_state(files)
    folders = [path / name for name in (MODEL, TOKENIZER) if (path / name).is_dir()]
    files = [path / EXPERIMENT, *(file for folder in folders for file in folder_files(folder))]
    return files_state([*files, *(path / CHECKPOINTS).glob(f"*/{MANIFEST}")])


def _resolved(path: epath.Path) -> str:
    return str(path) if "://" in str(path) else os.path.realpath(path)
