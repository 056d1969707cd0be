"""What every source of labelled pictures gives."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from jaxformers.data.images.decoding import decoding, pixels
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields


class LabelledImages:
    """Pictures that can be looked up, with their classes.

    Attributes:
        source: where they come from.
        class_names: what the classes are called, in order; empty: they are numbers, or unknown.
        labelled: whether there are labels at all.
        multi_label: whether an image has any number of labels.
        skipped: damaged pictures that were left out.
        passed_over: numbers and kinds of files that are not among the images.
    """

    source: str = ""
    class_names: tuple[str, ...] = ()
    labelled: bool = True
    multi_label: bool = False
    skipped: int = 0
    passed_over: str = ""

    def __len__(self) -> int:
        raise NotImplementedError

    def example(self, index: int) -> tuple[Image.Image, Any]:
        """The picture at `index`, perhaps not yet decoded, and its class (-1: none).

        With `multi_label`, 0 or 1 for each class: int32 [classes].
        """
        raise NotImplementedError

    def where(self, index: int) -> str:
        """What messages call the picture at `index`."""
        return f"{self.source}, picture {index:,}"

    def name(self, index: int) -> str:
        """The picture's file name where it has one, else its number."""
        return str(index)

    def image(self, index: int) -> UInt8[np.ndarray, "H W C"]:
        """The pixels of the picture at `index`: one channel where it is grey, else three."""
        with decoding(self.where(index)):
            return pixels(self.example(index)[0])

    @property
    def classes(self) -> int:
        """Number of classes, as far as their names or labels tell."""
        if self.multi_label:
            return self.labels.shape[1]
        return len(self.class_names) or int(self.labels.max(initial=-1)) + 1

    @cached_property
    def labels(self) -> Int[np.ndarray, "N *classes"]:
        """The class of every picture, int32; may have to read all of them.

        With `multi_label`, [N, classes] of 0 and 1.
        """
        return np.array([self.example(index)[1] for index in range(len(self))], np.int32)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Source, number and a content hash."""
        return {"source": self.source, "examples": len(self), "content": self.content}

    @cached_property
    def content(self) -> str:
        """A hash of what the pictures and labels are."""
        raise NotImplementedError


class ArrayImages(LabelledImages):
    """Pictures of one size, held in memory.

    Args:
        images: uint8 `[N, H, W, C]`.
        labels: classes [N].
        class_names: one for each class, or none.
        source: where they come from.

    Raises:
        DataError: no picture, or another number of labels.
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "N H W C"],
        labels: Int[np.ndarray, "N"] | None = None,
        class_names: tuple[str, ...] = (),
        source: str = "arrays",
    ):
        if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
            raise DataError(f"{source}: pictures are {images.dtype} {images.shape}, not uint8 NHWC")
        if labels is not None and len(labels) != len(images):
            raise DataError(f"{source}: {len(images)} pictures, but {len(labels)} labels")
        self.images, self.source, self.class_names = images, source, class_names
        self.labelled = labels is not None
        unknown = np.full(len(images), -1, np.int32)
        self.labels = unknown if labels is None else labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture and its class."""
        return as_picture(self.images[index]), int(self.labels[index])

    @cached_property
    def content(self) -> str:
        """SHA-256 of all pixels and labels."""
        digest = hashlib.sha256(str(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images))
        digest.update(self.labels)
        return digest.hexdigest()


def as_picture(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """An array with one or three channels as Pillow's image."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


class ImageSource(CheckedFields):
    """What the sources share: configuration that `open` reads."""

    def open(self) -> LabelledImages:
        """The pictures; raises DataError where they are missing or malformed."""
        raise NotImplementedError

    def other(self, split: Literal["dev", "test"]) -> ImageSource | None:
        """The same data's development or test set, where there is one."""
        return None


def check_classes(images: LabelledImages, expected: int) -> None:
    """Refuse data whose number of classes is not the model's.

    Raises:
        ConfigError: with both numbers.
    """
    if images.classes != expected:
        raise ConfigError(
            f"{images.source} has {images.classes} classes, but the model {expected}; "
            f"set the model's classes to {images.classes}"
        )
