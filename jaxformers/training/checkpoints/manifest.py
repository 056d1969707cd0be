"""A checkpoint's manifest: path, size and SHA-256 of every file, to detect damage.

Orbax accepts a checkpoint with a flipped byte and silently restores wrong numbers. The manifest is
written last and atomically, so its presence also marks a checkpoint as complete:
    manifest.json                     complete (not necessarily undamaged)
    `incomplete`, no manifest.json    writing or deleting it was interrupted
    neither                           damaged: the manifest was lost
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from etils import epath

MANIFEST = "manifest.json"
INCOMPLETE = "incomplete"

_FORMAT = 1
_CHUNK = 1 << 22
_THREADS = 8


def begin(folder: epath.Path) -> None:
    """Creates an empty `folder`, replacing any old one, with the marker `incomplete`."""
    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INCOMPLETE).write_text("this checkpoint is being written\n")


def write(folder: epath.Path) -> None:
    """Hashes every file under `folder`, writes the manifest atomically, removes the marker."""
    names = [name for name in _names(folder) if name not in (MANIFEST, INCOMPLETE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(folder / name), names)
        files = dict(zip(names, digests, strict=True))
    partial = folder / f"{MANIFEST}.partial"
    partial.write_bytes(_encode(files))
    partial.replace(folder / MANIFEST)
    (folder / INCOMPLETE).unlink(missing_ok=True)


def is_complete(folder: epath.Path) -> bool:
    """Whether `folder` has a manifest; its files may still be damaged."""
    return (folder / MANIFEST).exists()


def never_finished(folder: epath.Path) -> bool:
    """Whether writing (or deleting) `folder` was interrupted."""
    if is_complete(folder):
        return False
    return (folder / INCOMPLETE).exists() or not any(folder.iterdir())


def find_damage(folder: epath.Path) -> str | None:
    """The first damage, as "file: what"; None where every byte matches the manifest."""
    files = _read(folder / MANIFEST)
    if isinstance(files, str):
        return f"{MANIFEST}: {files}"
    # Lengths first: that is a `stat` a file, while hashing reads every byte.
    for name, (size, _) in files.items():
        if wrong := _wrong_length(folder / name, size):
            return f"{name}: {wrong}"
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(folder / name), files)
        for (name, expected), digest in zip(files.items(), digests, strict=True):
            if digest != expected:
                return f"{name}: its contents have changed"
    return None


def remove(folder: epath.Path) -> None:
    """Deletes a checkpoint so that an interrupted deletion never looks like damage."""
    if not folder.exists():
        return
    # The marker comes first and goes last, the manifest goes before the files.
    marker = folder / INCOMPLETE
    marker.touch()
    (folder / MANIFEST).unlink(missing_ok=True)
    for child in folder.iterdir():
        if child.is_dir():
            child.rmtree()
        elif child.name != INCOMPLETE:
            child.unlink()
    marker.unlink()
    # An object store has no folder left once its last object is gone.
    if folder.exists():
        folder.rmdir()


def _names(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    for child in sorted(folder.iterdir(), key=lambda path: path.name):
        if child.is_dir():
            yield from _names(child, f"{prefix}{child.name}/")
        else:
            yield prefix + child.name


def _digest(path: epath.Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _encode(files: dict[str, tuple[int, str]]) -> bytes:
    rows = {name: {"size": size, "sha256": digest} for name, (size, digest) in files.items()}
    # The manifest has a digest of its own, so that damage to it is not reported as another file's.
    own = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return json.dumps({"format": _FORMAT, "files": rows, "sha256": own}, indent=1).encode()


def _read(path: epath.Path) -> dict[str, tuple[int, str]] | str:
    """The manifest's rows, or its damage as text: it must match `_encode` byte for byte."""
    try:
        content = path.read_bytes()
        rows = json.loads(content)["files"]
        files = {name: (row["size"], row["sha256"]) for name, row in rows.items()}
    except FileNotFoundError:
        return "missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not a manifest"
    return files if _encode(files) == content else "its contents have changed"


def _wrong_length(path: epath.Path, size: int) -> str | None:
    try:
        length = path.stat().length
    except FileNotFoundError:
        return "missing"
    if length == size:
        return None
    count = abs(length - size)
    return f"{count} byte{'s' * (count > 1)} {'short' if length < size else 'too long'}"
