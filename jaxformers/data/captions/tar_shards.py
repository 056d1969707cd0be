"""Tar shards in WebDataset's layout, read in place.

An example is the members of one key, a member's name up to its first dot: `000123.jpg` with
`000123.txt` or `000123.json`. The shards are indexed once, by their headers alone; then an example
is read by its offset, so that the order stays a function of (seed, step).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxformers.data.captions.captioned_images import (
    CaptionedImages,
    CaptionSource,
    caption_lines,
    caption_texts,
    refuse_or_count,
)
from jaxformers.data.files.json_text import parse_json
from jaxformers.data.images.decoding import decoding, opened
from jaxformers.data.images.sources.folder_listing import ENDINGS
from jaxformers.errors import DataError

LARGEST_TEXT = 1 << 20  # bytes of a caption's file
CHUNK = 1 << 20  # bytes of a shard's end read at once


class Member(NamedTuple):
    """Where a member's bytes lie."""

    shard: int
    offset: int
    size: int


@dataclass(frozen=True)
class TarShards(CaptionSource):
    """Every `.tar` of a folder, or one `.tar`."""

    path: str
    caption_field: str = "caption"
    """Field of a `.json` member that holds the caption or captions, where there is no `.txt`."""
    skip_faulty: bool = False
    """Whether keys without an image or a caption, and damaged members, are left out and counted. To
    know, `open` decodes every image once. Of a damaged shard the members before the damage are
    kept; what follows counts as one."""

    def open(self) -> TarImages:
        """The examples of all shards, in order.

        Raises:
            DataError: no shard, a damaged or truncated one, a key without an image or a caption, or
                with two, or a damaged caption.
        """
        path = Path(self.path)
        shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not shards or not all(shard.is_file() for shard in shards):
            raise DataError(f"{self.path}: no .tar shards")
        keys: dict[tuple[int, str], dict[str, Member]] = {}
        faults = []
        for number, shard in enumerate(shards):
            members, fault = _index(shard, number)
            for key, ending, member in members:
                entry = keys.setdefault((number, key), {})
                if ending in entry:
                    faults.append(f"{shard.name}:{key} has two members {ending}")
                entry.setdefault(ending, member)
            if fault is not None:
                faults.append(fault)
        images = TarImages(self, shards, keys, faults)
        if self.skip_faulty:
            images.leave_out_damaged()
        return images


class TarImages(CaptionedImages):
    """The examples of shards; see `TarShards`.

    Args:
        config: of the source.
        shards: the files.
        keys: the members of each (shard, key), by ending.
        faults: what is wrong with shards, one line each.

    Raises:
        DataError: no example, or a faulty one where they may not be skipped.
    """

    def __init__(
        self,
        config: TarShards,
        shards: list[Path],
        keys: dict[tuple[int, str], dict[str, Member]],
        faults: Sequence[str] = (),
    ):
        self.source, self._shards = config.path, shards
        self._names: list[str] = []
        self._images: list[Member] = []
        self._captions: list[tuple[str, ...]] = []
        self._files: dict[int, int] = {}
        faults = list(faults)
        for (shard, key), members in keys.items():
            name = f"{shards[shard].name}:{key}"
            image = next((members[end] for end in members if end in ENDINGS), None)
            try:
                captions = self._read_captions(members, config.caption_field)
            except ValueError as error:
                faults.append(f"{name} {error}")
                continue
            if image is None or not captions:
                faults.append(f"{name} has no {'image' if image is None else 'caption'}")
                continue
            self._names.append(name)
            self._images.append(image)
            self._captions.append(captions)
        self.skipped = refuse_or_count(faults, config.path, config.skip_faulty)
        if not self._names:
            raise DataError(f"{config.path}: no image with a caption in its shards")

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> Image.Image:
        """The member's bytes, opened."""
        with decoding(self.where(index)):
            return opened(self._read(self._images[index]), self.where(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the image."""
        return self._captions[index]

    def where(self, index: int) -> str:
        """The example's shard and key."""
        return self._names[index]

    def name(self, index: int) -> str:
        """The example's shard and key."""
        return self._names[index]

    def _read(self, member: Member) -> bytes:
        if member.shard not in self._files:
            self._files[member.shard] = os.open(self._shards[member.shard], os.O_RDONLY)
        # A positional read: threads share the file without moving one another's position.
        return os.pread(self._files[member.shard], member.size, member.offset)

    def _read_captions(self, members: dict[str, Member], field: str) -> tuple[str, ...]:
        """The captions among an example's members; raises ValueError where they are damaged."""
        member = members.get(".txt") or members.get(".json")
        if member is None:
            return ()
        if member.size > LARGEST_TEXT:
            raise ValueError(f"has a caption of {member.size:,} bytes")
        try:
            text = self._read(member).decode("utf-8-sig")
            if ".txt" in members:
                return caption_lines(text)
            content = parse_json(text)
        except (ValueError, RecursionError):
            raise ValueError("has a damaged caption") from None
        return caption_texts(content.get(field)) if isinstance(content, dict) else ()

    def _select(self, indices: Sequence[int]) -> None:
        self._names = [self._names[i] for i in indices]
        self._images = [self._images[i] for i in indices]
        self._captions = [self._captions[i] for i in indices]

    def __getstate__(self) -> dict:
        return vars(self) | {"_files": {}}


def _index(shard: Path, number: int) -> tuple[list[tuple[str, str, Member]], str | None]:
    """(key, ending, member) of every regular file of a shard, and what is wrong with the shard.

    Raises:
        DataError: the file does not begin as a tar archive, or cannot be read.
    """
    members = []
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as archive:
            try:
                for info in archive:
                    if info.isfile() and info.offset_data + info.size <= size:
                        folder, _, base = info.name.rpartition("/")
                        stem, dot, ending = base.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        member = Member(number, info.offset_data, info.size)
                        members.append((key, (dot + ending).lower(), member))
            except (tarfile.TarError, EOFError, ValueError):
                intact = False
            else:
                # `tarfile` takes a damaged, zeroed or truncated header for the end of the archive.
                intact = _is_end_of_archive(shard, archive.offset)
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{shard} is no tar archive, or a damaged one: {error}") from None
    fault = f"{shard.name} is damaged or cut off at byte {min(end, size):,} of {size:,}"
    return members, None if intact else fault


def _is_end_of_archive(shard: Path, offset: int) -> bool:
    """Whether a block of zeros is at `offset`, and nothing but zeros follow."""
    length = 0
    with shard.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK):
            if chunk.strip(b"\0"):
                return False
            length += len(chunk)
    return length >= tarfile.BLOCKSIZE
