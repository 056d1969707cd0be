"""Some of the pictures of another set: as many as asked for, or those that are not damaged."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from jaxformers.data.images.sources.labelled_images import LabelledImages
from jaxformers.data.pipeline.memmap_store import cache_folder, mapped, write_once
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DamagedImageError, DataError

SOUND = "sound.npy"
BLOCK = 4096


class ChosenImages(LabelledImages):
    """The pictures of `images` at `indices`."""

    def __init__(self, images: LabelledImages, indices: Int[np.ndarray, "N"], skipped: int = 0):
        self._images, self._indices = images, indices
        self.source, self.class_names = images.source, images.class_names
        self.labelled, self.skipped = images.labelled, images.skipped + skipped
        self.multi_label, self.passed_over = images.multi_label, images.passed_over

    def __len__(self) -> int:
        return len(self._indices)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture and its class."""
        return self._images.example(int(self._indices[index]))

    def where(self, index: int) -> str:
        """What messages call the picture."""
        return self._images.where(int(self._indices[index]))

    def name(self, index: int) -> str:
        """The picture's file name, or its number."""
        return self._images.name(int(self._indices[index]))

    @property
    def classes(self) -> int:
        """Number of classes of the whole set."""
        return self._images.classes

    @cached_property
    def labels(self) -> Int[np.ndarray, "N"]:
        """The class of every picture, int32."""
        return self._images.labels[self._indices]

    @cached_property
    def content(self) -> str:
        """A hash of the whole set and of which pictures were chosen."""
        chosen = np.ascontiguousarray(self._indices, np.int64)
        return hashlib.sha256(self._images.content.encode() + chosen.tobytes()).hexdigest()


def limited(images: LabelledImages, limit: int | None) -> LabelledImages:
    """At most `limit` pictures, evenly spaced.

    Raises:
        ConfigError: `limit` is below 1.
    """
    chosen = evenly_spaced(len(images), limit)
    return ChosenImages(images, chosen) if len(chosen) < len(images) else images


def without_damaged(images: LabelledImages, state: str, cache: Any = None) -> LabelledImages:
    """The pictures that decode; how many do not is their `skipped`.

    Every picture is decoded once; which ones do is kept in the cache.

    Args:
        images: that are checked.
        state: a hash that changes with any of them.
        cache: folder; None: $JAXFORMERS_CACHE, else ~/.cache/jaxformers.

    Raises:
        DataError: none decodes.
    """
    folder = cache_folder(cache) / "pictures" / hashlib.sha256(state.encode()).hexdigest()[:32]

    def write(unfinished: Path) -> dict[str, Any]:
        np.save(unfinished / SOUND, _sound(images))
        return {"pictures": len(images)}

    write_once(folder, "which pictures decode", write)
    sound = mapped(folder / SOUND)
    if not len(sound):
        raise DataError(f"{images.source}: none of its {len(images):,} pictures decodes")
    damaged = len(images) - len(sound)
    return ChosenImages(images, sound, damaged) if damaged else images


def _sound(images: LabelledImages) -> np.ndarray:
    """Numbers of the pictures that decode."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        intact = [
            index
            for start in range(0, len(images), BLOCK)
            for index in pool.map(
                lambda index: index if _decodes(images, index) else -1,
                range(start, min(start + BLOCK, len(images))),
            )
            if index >= 0
        ]
    return np.array(intact, np.int64)


def _decodes(images: LabelledImages, index: int) -> bool:
    try:
        images.image(index)
    except DamagedImageError:
        return False
    return True
