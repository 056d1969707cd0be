"""Lists the images of folders, and counts what is passed over.

An image is a regular file with one of `ENDINGS`, whatever their case. Names that begin with "." and
folders that begin with "__" (`__MACOSX`, `__pycache__`) are left by other programs and never read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from jaxformers.errors import DataError

ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
)
DEEPEST = 32  # folders within folders
NAMED_KINDS = 6  # of what is passed over; the remaining kinds are summed up


class Entries(NamedTuple):
    """What lies in a folder, in order."""

    folders: list[str]
    images: list[str]
    passed_over: Counter[str]
    """Number of other files by their kind."""


def list_entries(folder: epath.Path) -> Entries:
    """Lists one level of a folder."""
    folders, images, passed_over = [], [], Counter()
    for name, is_folder, is_regular in _scan(folder):
        is_image = name.lower().endswith(ENDINGS)
        if name.startswith("."):
            passed_over["hidden"] += is_image
        elif is_folder:
            folders += [] if name.startswith("__") else [name]
        elif is_image and is_regular:
            images.append(name)
        elif is_image:
            passed_over["no regular file"] += 1
        else:
            passed_over[os.path.splitext(name)[1].lower() or "without an ending"] += 1
    return Entries(sorted(folders), sorted(images), +passed_over)


def list_images_below(folder: epath.Path) -> tuple[list[str], Counter[str]]:
    """Paths of all images below a folder, relative to it and in order, and what is passed over.

    Raises:
        DataError: folders within folders too deep, as where a link leads to a folder above it.
    """
    images, passed_over = [], Counter()
    for prefix, entries in _walk(folder):
        images += [prefix + name for name in entries.images]
        passed_over += entries.passed_over
    return sorted(images), passed_over


def holds_images(folder: epath.Path) -> bool:
    """Whether there is any image below a folder."""
    return any(entries.images for _, entries in _walk(folder))


def describe_passed_over(counts: Counter[str]) -> str:
    """Kinds of files and their numbers, the most frequent first: `5 .heic, 1 .txt`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{count:,} {kind}" for kind, count in ordered[:NAMED_KINDS]]
    if remaining := sum(count for _, count in ordered[NAMED_KINDS:]):
        texts.append(f"{remaining:,} of other kinds")
    return ", ".join(texts)


def _walk(folder: epath.Path) -> Iterator[tuple[str, Entries]]:
    """Each folder from `folder` down as a prefix of paths, and its entries."""
    pending = [("", 0)]
    while pending:
        prefix, depth = pending.pop()
        if depth > DEEPEST:
            raise DataError(
                f"{folder / prefix} lies more than {DEEPEST} folders deep: does a link lead to a "
                "folder above it?"
            )
        entries = list_entries(folder / prefix if prefix else folder)
        yield prefix, entries
        pending += [(f"{prefix}{name}/", depth + 1) for name in reversed(entries.folders)]


def _scan(folder: epath.Path) -> Iterator[tuple[str, bool, bool]]:
    """Name of each entry, whether it is a folder, and whether it is a regular file."""
    if "://" in str(folder):
        for path in folder.iterdir():
            is_folder = path.is_dir()
            yield path.name, is_folder, not is_folder
        return
    try:
        with os.scandir(folder) as entries:  # far faster than asking for each entry's kind
            for entry in entries:
                yield entry.name, entry.is_dir(), entry.is_file()
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from None
