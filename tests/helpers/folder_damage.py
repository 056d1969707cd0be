"""Random damage to one file or folder of a run, by a seed."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from jaxformers.training.checkpoints import manifest

NESTED = b"[" * 100_000
VALUES = (None, True, "text", -1, 0, 2**70, 1e308, float("nan"), [], {}, [[]] * 3, "\0", "\x1b[2J")
NAMES = ("state", "a\0b", "n" * 5000, "../../x", "/etc/passwd", "٣", "\x1b[2J")


def damage(folder: Path, seed: int) -> str:
    """Damages one entry of the folder; returns what was done, for a failure's message."""
    draw = random.Random(seed)
    entries = sorted(path for path in folder.rglob("*") if "tensorboard" not in path.parts)
    # Half of the draws are of the files that a run parses, the others of all.
    parsed = [path for path in entries if path.suffix in (".json", ".jsonl")]
    path = draw.choice(parsed if draw.random() < 0.5 else entries)
    kinds = FOLDER_KINDS if path.is_dir() else FILE_KINDS
    if path.name == manifest.MANIFEST:
        kinds = (*kinds, *[_manifest_name] * 4)
    elif path.suffix in (".json", ".jsonl"):
        kinds = (*kinds, *[_json_value] * 8)
    kind = draw.choice(kinds)
    kind(path, draw)
    return f"seed {seed}: {kind.__name__} of {path.relative_to(folder)}"


def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes()) or bytearray(b"x")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def _extend(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _garbage(path: Path, draw: random.Random) -> None:
    path.write_bytes(
        draw.choice([b"", NESTED, b"[1]", b"{}", b"null", b"\xff\xfe\x00", b"9" * 5000])
    )


def _remove(path: Path, draw: random.Random) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _as_folder(path: Path, draw: random.Random) -> None:
    _remove(path, draw)
    path.mkdir()


def _as_file(path: Path, draw: random.Random) -> None:
    _remove(path, draw)
    path.write_bytes(b"x")


def _as_pipe(path: Path, draw: random.Random) -> None:
    _remove(path, draw)
    os.mkfifo(path)


def _as_link(path: Path, draw: random.Random) -> None:
    _remove(path, draw)
    path.symlink_to(draw.choice(["nowhere", path.name, "/dev/zero", "/"]))


def _renamed(path: Path, draw: random.Random) -> None:
    path.rename(path.with_name(draw.choice(["٣", "007", "99999999999999999999", "n" * 200])))


def _json_value(path: Path, draw: random.Random) -> None:
    """Replaces one value, anywhere in the file, by one of another type or size."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = draw.randrange(len(lines))
    value = json.loads(lines[at])
    locations = list(_places(value))
    if locations:
        owner, key = draw.choice(locations)
        owner[key] = draw.choice(VALUES)
    lines[at] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")


def _places(value):
    """(owner, key) of every value within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, (dict, list)):
            yield from _places(item)


def _manifest_name(path: Path, draw: random.Random) -> None:
    """A manifest with a digest that is right and one name that no file of a checkpoint has."""
    rows = json.loads(path.read_text())["files"]
    files = {name: (row["size"], row["sha256"]) for name, row in rows.items()}
    files[draw.choice(NAMES)] = files.pop(draw.choice(list(files)))
    path.write_bytes(manifest._encode(files))


Kind = Callable[[Path, random.Random], None]
FILE_KINDS: tuple[Kind, ...] = (
    _flip, _flip, _truncate, _extend, _garbage, _garbage, _remove, _as_folder, _as_pipe, _as_link,
)  # fmt: skip
FOLDER_KINDS: tuple[Kind, ...] = (_remove, _as_folder, _as_file, _as_pipe, _as_link, _renamed)
