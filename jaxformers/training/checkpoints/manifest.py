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

from jaxformers.errors import printable
from jaxformers.training.stored_files import (
    DamagedFile,
    parse_json,
    read_bytes,
    reason,
    regular_size,
)

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
    if is_complete(folder) or not folder.is_dir():
        return False
    return (folder / INCOMPLETE).exists() or not any(folder.iterdir())


def find_damage(folder: epath.Path) -> str | None:
    """The first damage, as "file: what"; None where every byte matches the manifest."""
    if not folder.is_dir():  # a file, or a link that leads nowhere
        return "not a folder"
    try:
        files = _read(folder / MANIFEST)
    except FileNotFoundError:
        return f"{MANIFEST}: missing"
    except DamagedFile as damage:
        return f"{MANIFEST}: {damage}"
    # Lengths first: that is a `stat` a file, while hashing reads every byte.
    for name, (size, _) in files.items():
        if wrong := _wrong_length(folder / name, size):
            return f"{printable(name)}: {wrong}"
    with ThreadPoolExecutor(_THREADS) as pool:
        damages = pool.map(lambda name: _wrong_contents(folder / name, files[name]), files)
        for name, wrong in zip(files, damages, strict=True):
            if wrong:
                return f"{printable(name)}: {wrong}"
    return None


def remove(folder: epath.Path) -> None:
    """Deletes a checkpoint so that an interrupted deletion never looks like damage."""
    if not folder.is_dir():
        folder.unlink(missing_ok=True)  # a file or a link in its place
        return
    # The marker comes first and goes last, the manifest goes before the files.
    marker = folder / INCOMPLETE
    marker.touch()
    _delete(folder / MANIFEST)
    for child in folder.iterdir():
        if child.name != INCOMPLETE:
            _delete(child)
    _delete(marker)
    # An object store has no folder left once its last object is gone.
    if folder.exists():
        folder.rmdir()


def _delete(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink(missing_ok=True)


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


def _read(path: epath.Path) -> dict[str, tuple[int, str]]:
    """The manifest's rows.

    Raises:
        FileNotFoundError: there is no manifest.
        DamagedFile: it does not match `_encode` byte for byte, or names what no checkpoint holds.
    """
    content = read_bytes(path)
    try:
        rows = parse_json(content)["files"]
        files = {name: (int(row["size"]), row["sha256"]) for name, row in rows.items()}
        encoded = _encode(files)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise DamagedFile("not a manifest") from None
    if encoded != content:
        raise DamagedFile("its contents have changed")
    if outside := [name for name in files if not {"", ".", ".."}.isdisjoint(name.split("/"))]:
        raise DamagedFile(f"names {printable(outside[0])!r}, which is no file of a checkpoint")
    return files


def _wrong_length(path: epath.Path, size: int) -> str | None:
    try:
        length = regular_size(path)
    except FileNotFoundError:
        return "missing"
    except DamagedFile as damage:
        return str(damage)
    except (OSError, ValueError) as error:  # a name that no file system takes
        return reason(error)
    if length == size:
        return None
    count = abs(length - size)
    return f"{count} byte{'s' * (count > 1)} {'short' if length < size else 'too long'}"


def _wrong_contents(path: epath.Path, expected: tuple[int, str]) -> str | None:
    try:
        return None if _digest(path) == expected else "its contents have changed"
    except OSError as error:
        return reason(error)
