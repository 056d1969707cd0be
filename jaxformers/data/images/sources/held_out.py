"""A development set held out of training images that come without one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from jaxformers.data.images.sources.image_folder import ImageFolder
from jaxformers.data.images.sources.image_table import ImageTable
from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.images.sources.subset import ChosenImages
from jaxformers.errors import ConfigError
from jaxformers.fields import OpenFraction


@dataclass(frozen=True)
class HeldOut(ImageSource):
    """Training images without those that are held out, or those that are.

    Which images are held out is a function of their names and classes, the same share of every
    class; so it stays nearly the same when images are added.
    """

    source: ImageFolder | ImageTable = field(default_factory=ImageFolder)
    """All training images."""
    split: Literal["train", "dev"] = "train"
    share: OpenFraction = 0.15
    """Share of each class that is held out; at least one image of a class with two or more."""

    def other(self, split: Literal["dev", "test"]) -> ImageSource | None:
        """The held-out images, or the test images of the source, if it has any."""
        return replace(self, split="dev") if split == "dev" else self.source.other("test")

    def open(self) -> LabelledImages:
        """The images of the split; errors are those of the source.

        Raises:
            ConfigError: no folder is named, or there are too few images to hold any out.
        """
        if not self.source.path:
            raise ConfigError("no folder of images is named: give --data FOLDER")
        images = self.source.open()
        held_out = _held_out(images, self.share)
        if held_out.all() or not held_out.any():
            raise ConfigError(
                f"{images.source}: no development set can be held out of {len(images)} images; "
                "give a class at least two"
            )
        indices = np.flatnonzero(held_out == (self.split == "dev"))
        chosen = ChosenImages(images, indices)
        if self.split == "dev":
            chosen.skipped = 0  # damaged images are counted once, with the training images
        return chosen


def _held_out(images: LabelledImages, share: float) -> np.ndarray:
    """Whether each image is held out, bool [N]."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, label in enumerate(np.asarray(images.labels)):
        groups[b"" if images.multi_label else label.tobytes()].append(index)
    held_out = np.zeros(len(images), bool)
    for label, indices in groups.items():
        count = max(round(share * len(indices)), 1) if len(indices) > 1 else 0
        order = sorted(indices, key=lambda i: _digest(images.name(i), label))
        held_out[order[:count]] = True
    return held_out


def _digest(name: str, label: bytes) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape") + label).digest()
