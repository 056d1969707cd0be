"""An index of the pictures below a folder: their unit vectors on disk, kept in step with the files.

The index is a folder of safetensors files, each with some pictures' names, states and vectors, and
the fingerprint of the weights that gave them. Files are added and replaced as wholes, so that work
that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxformers.data.images.sources.folder_listing import describe_passed_over, list_images_below
from jaxformers.data.pipeline.memmap_store import cache_folder, locked
from jaxformers.errors import DataError

CHUNK = 512  # pictures of a file
FORMAT = "jaxformers image index 1"
PATTERN = "image-index-*.safetensors"
SLACK = 16  # files beyond what the pictures need, before all are written anew

Embed = Callable[[list[str]], tuple[Float[np.ndarray, "n E"], list[bool]]]
"""Paths -> unit vectors, and which pictures decode; the vectors of the others do not count."""
State = tuple[int, int, int]
Progress = Callable[[int, int], None]
"""Called with how many pictures are read, and how many there are to read."""


@dataclass(frozen=True)
class ImageIndex:
    """Pictures and their vectors.

    Attributes:
        paths: of the pictures, in the order of their names.
        vectors: of unit length, float32 `[n, E]`.
        damaged: paths of the pictures that do not decode.
    """

    paths: list[str]
    vectors: np.ndarray
    damaged: list[str]


class _Entry(NamedTuple):
    state: State
    readable: bool
    chunk: np.ndarray
    row: int


def weights_fingerprint(model: Any, variables: Any, preprocessing: Any) -> str:
    """SHA-256 of what a picture's vector depends on: preprocessing, configuration and weights.

    Args:
        model: of a `CLIP` the image tower alone counts.
        variables: its variables.
        preprocessing: that of its images.
    """
    config, params = model.config, variables
    if hasattr(config, "text"):
        config = config.image
        params = {name: tree["image"] for name, tree in variables.items() if "image" in tree}
    digest = hashlib.sha256(repr((preprocessing, config, model.execution.dtype)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).reshape(-1))
    return digest.hexdigest()


def default_folder(pictures: epath.PathLike, fingerprint: str) -> Path:
    """Where the index of a folder of pictures lies, in the library's cache."""
    name = str(pictures) if "://" in str(pictures) else os.path.realpath(pictures)
    key = hashlib.sha256(f"{name} {fingerprint}".encode()).hexdigest()[:32]
    return cache_folder() / "image_index" / key


def refresh(
    index: Path,
    pictures: epath.PathLike,
    fingerprint: str,
    embed: Embed,
    progress: Progress | None = None,
) -> ImageIndex:
    """Brings an index up to date with its pictures: reads those that are new or have changed.

    Another process that refreshes the same index is waited for.

    Args:
        index: folder of the index; it need not exist.
        pictures: folder of the pictures, those in folders below it included.
        fingerprint: of the weights; vectors of other weights are replaced.
        embed: computes vectors.
        progress: is called after each file that is written.

    Raises:
        DataError: no pictures, or an index that cannot be written.
    """
    folder = epath.Path(pictures).expanduser()
    if not folder.is_dir():
        raise DataError(f"{pictures} is no folder: give the folder of the pictures to search")
    names, passed_over = list_images_below(folder)
    if not names:
        described = f"; passed over: {describe_passed_over(passed_over)}" if passed_over else ""
        raise DataError(f"{pictures} holds no image{described}")
    states = {name: _state(folder / name) for name in names}
    with _writable(index), locked(index):
        index.mkdir(exist_ok=True)
        entries, files, rows = _read(index, fingerprint)
        current = {n: e for n, e in entries.items() if states.get(n) == e.state}
        unread = [name for name in names if name not in current]
        for start in range(0, len(unread), CHUNK):
            block = unread[start : start + CHUNK]
            vectors, readable = embed([str(folder / name) for name in block])
            block_states = [states[name] for name in block]
            _write(index, fingerprint, block, block_states, readable, vectors)
            for row, name in enumerate(block):
                current[name] = _Entry(states[name], readable[row], vectors, row)
            rows, files = rows + len(block), files + 1
            if progress is not None:
                progress(start + len(block), len(unread))
        entries = {name: current[name] for name in names}
        if rows > 2 * len(names) or files > 2 * (len(names) // CHUNK) + SLACK:
            _compact(index, fingerprint, entries)
    searched = [name for name in names if entries[name].readable]
    vectors = [entries[name].chunk[entries[name].row] for name in searched]
    return ImageIndex(
        [str(folder / name) for name in searched],
        np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
        [str(folder / name) for name in names if not entries[name].readable],
    )


def _state(path: epath.Path) -> State:
    """Size and times by which a changed file is noticed; negative where it is gone."""
    try:
        if "://" in str(path):
            remote = path.stat()
            return remote.length, int(remote.mtime), 0
        status = os.stat(path)
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(index: Path, fingerprint: str) -> tuple[dict[str, _Entry], int, int]:
    """The entries by picture, the newest of each; and how many files and rows hold them.

    Files of other weights, and files that are damaged, are removed: they are written anew.
    """
    entries: dict[str, _Entry] = {}
    files = rows = 0
    for path in sorted(index.glob(PATTERN), key=lambda path: path.stat().st_mtime_ns):
        chunk = _read_file(path, fingerprint)
        if chunk is None:
            path.unlink()
            continue
        entries |= chunk
        files, rows = files + 1, rows + len(chunk)
    return entries, files, rows


def _read_file(path: Path, fingerprint: str) -> dict[str, _Entry] | None:
    """The entries of a file; None where it is damaged or of other weights."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("weights")) != (FORMAT, fingerprint):
                return None
            names = json.loads(metadata["names"])
            vectors, states, readable = map(file.get_tensor, ("vectors", "states", "readable"))
    except (SafetensorError, ValueError, KeyError, RecursionError):
        return None
    if vectors.ndim != 2 or states.shape != (len(vectors), 3) or len(names) != len(vectors):
        return None
    return {
        str(name): _Entry(tuple(state), bool(decodes), vectors, row)
        for row, (name, state, decodes) in enumerate(
            zip(names, states.tolist(), readable.tolist(), strict=False)
        )
    }


def _write(
    index: Path,
    fingerprint: str,
    names: Sequence[str],
    states: Sequence[State],
    readable: Sequence[bool],
    vectors: Float[np.ndarray, "n E"],
) -> None:
    """Adds a file to the index: it is there as a whole or not at all."""
    tensors = {
        "vectors": np.asarray(vectors, np.float32),
        "states": np.asarray(states, np.int64).reshape(len(names), -1),
        "readable": np.asarray(readable, np.uint8),
    }
    metadata = {"format": FORMAT, "weights": fingerprint, "names": json.dumps(list(names))}
    name = PATTERN.replace("*", uuid.uuid4().hex)
    unfinished = index / f".{name}"
    unfinished.write_bytes(save(tensors, metadata))
    unfinished.replace(index / name)


def _compact(index: Path, fingerprint: str, entries: dict[str, _Entry]) -> None:
    """Writes all entries anew, without those of pictures that are gone or have changed."""
    old = list(index.glob(PATTERN))
    names = list(entries)
    for start in range(0, len(names), CHUNK):
        block = [entries[name] for name in names[start : start + CHUNK]]
        states, readable = [e.state for e in block], [e.readable for e in block]
        vectors = np.stack([e.chunk[e.row] for e in block])
        _write(index, fingerprint, names[start : start + CHUNK], states, readable, vectors)
    for path in old:
        path.unlink()


@contextlib.contextmanager
def _writable(index: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the index {index} cannot be written: {error.strerror or error}; give another folder"
        ) from None
