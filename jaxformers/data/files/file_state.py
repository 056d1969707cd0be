"""Which files something was read from, for a cache to notice when they have changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

FileState = tuple[tuple[Any, ...], ...]


def files_state(files: Iterable[epath.Path]) -> FileState:
    """Path, identity, size and times of each file, in the order of their paths."""
    return tuple(sorted(_stat(file) for file in set(files)))


def source_state(source: Any) -> FileState:
    """The state of the files that a data source's fields `path` and `folder` name."""
    names = {field.name for field in dataclasses.fields(source)} & {"path", "folder"}
    paths = [epath.Path(value) for name in names if (value := getattr(source, name))]
    return files_state(file for path in paths for file in folder_files(path.expanduser()))


def folder_files(path: epath.Path) -> Iterator[epath.Path]:
    """The files in a folder and in the folders directly below it; a file stands for itself."""
    if not path.is_dir():
        yield path
        return
    for entry in path.iterdir():
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
