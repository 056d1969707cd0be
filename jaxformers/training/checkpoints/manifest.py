"""A checkpoint's manifest: path, size and SHA-256 of every file, so that damage is seen.

Orbax accepts a checkpoint with a flipped byte and restores wrong numbers in silence. The
manifest is written after everything else and at once, so it is also what makes a checkpoint
count: a folder with the marker `incomplete` and no manifest was never finished, and a folder
with neither has lost its manifest.
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
    """Make an empty `folder` (what was there goes) that says it is incomplete."""
    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INCOMPLETE).write_text("this checkpoint is being written\n")


def write(folder: epath.Path) -> None:
    """Hash every file under `folder`, write the manifest atomically, and drop the marker."""
    names = [name for name in _names(folder) if name not in (MANIFEST, INCOMPLETE)]
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(folder / name), names)
        files = dict(zip(names, digests, strict=True))
    partial = folder / f"{MANIFEST}.partial"
    partial.write_bytes(_encode(files))
    partial.replace(folder / MANIFEST)
    (folder / INCOMPLETE).unlink(missing_ok=True)


def is_complete(folder: epath.Path) -> bool:
    """Whether `folder` was written to its end: it has a manifest (not that it is undamaged)."""
    return (folder / MANIFEST).exists()


def never_finished(folder: epath.Path) -> bool:
    """Whether the writing (or the deletion) of `folder` was cut short."""
    if is_complete(folder):
        return False
    return (folder / INCOMPLETE).exists() or not any(folder.iterdir())


def damage(folder: epath.Path) -> str | None:
    """What is wrong with the checkpoint, as "file: what", or None where every byte is right."""
    files = _read(folder / MANIFEST)
    if isinstance(files, str):
        return f"{MANIFEST}: {files}"
    # Lengths first: they cost nothing, and hashing a large checkpoint takes seconds.
    for name, (size, _) in files.items():
        if wrong := _wrong_length(folder / name, size):
            return f"{name}: {wrong}"
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: _digest(folder / name), files)
        for (name, expected), found in zip(files.items(), digests, strict=True):
            if found != expected:
                return f"{name}: its contents have changed"
    return None


def remove(folder: epath.Path) -> None:
    """Delete a checkpoint so that an interrupted deletion never looks like a damaged one."""
    if not folder.exists():
        return
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
    # Its own digest, so that a changed manifest does not lay the blame on another file.
    own = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return json.dumps({"format": _FORMAT, "files": rows, "sha256": own}, indent=1).encode()


def _read(path: epath.Path) -> dict[str, tuple[int, str]] | str:
    """The manifest's rows, or what is wrong with it; any byte but those we wrote is wrong."""
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
        found = path.stat().length
    except FileNotFoundError:
        return "missing"
    if found == size:
        return None
    count = abs(found - size)
    return f"{count} byte{'s' * (count > 1)} {'short' if found < size else 'too long'}"
