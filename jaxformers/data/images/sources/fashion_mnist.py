"""The bundled part of Fashion-MNIST."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from jaxformers.data.images.sources.labelled_images import ArrayImages, ImageSource
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import ConfigError
from jaxformers.fields import PositiveInt, Range

FILE = Path(__file__).parents[2] / "bundled" / "fashion_mnist_10k.npz"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HELD_OUT = 10  # every tenth training picture is for development


@dataclass(frozen=True)
class BundledFashionMnist(ImageSource):
    """The 12,000 Fashion-MNIST pictures inside the package (bundled/NOTICE.md), 28 x 28, grey.

    Of the 10,000 for training every tenth, 1,000 in all, is held out for development; 2,000 are for
    testing.
    """

    split: Literal["train", "dev", "test", "train+dev"] = "train"
    limit: PositiveInt | None = None
    """At most so many pictures, evenly spaced."""
    classes: tuple[Annotated[int, Range(ge=0, le=9)], ...] = ()
    """Only these of the ten classes, numbered from 0 in this order; empty: all."""

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.classes)) < len(self.classes) or not set(self.classes) <= set(range(10)):
            raise ConfigError(f"classes {self.classes} must be different numbers from 0 to 9")

    def other(self, split: Literal["dev", "test"]) -> BundledFashionMnist:
        """All development or test pictures of the same classes."""
        return replace(self, split=split, limit=None)

    def open(self) -> ArrayImages:
        """The chosen pictures, uint8 `[N, 28, 28, 1]`."""
        images, labels = _read("test" if self.split == "test" else "train")
        number = np.arange(len(labels)) % HELD_OUT == HELD_OUT - 1
        chosen = {"train": ~number, "dev": number}.get(self.split, np.ones(len(labels), bool))
        classes = self.classes or tuple(range(10))
        indices = np.flatnonzero(chosen & np.isin(labels, classes))
        indices = indices[evenly_spaced(len(indices), self.limit)]
        renumbered = np.array(
            [classes.index(label) for label in labels[indices].tolist()], np.int32
        )
        names = tuple(CLASSES[label] for label in classes)
        return ArrayImages(images[indices], renumbered, names, f"Fashion-MNIST, {self.split}")


def _read(split: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE) as file:
        return file[f"{split}_images"][..., None], file[f"{split}_labels"]
