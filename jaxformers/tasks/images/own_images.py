"""Tasks on a folder of one's own images: everything that the folder tells is set from it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxformers.arrays import ImageSize, height_width
from jaxformers.data.images import (
    Augmentation,
    HeldOut,
    ImageFolder,
    ImageTable,
    InceptionCrop,
    Preprocessing,
)
from jaxformers.data.images.sources.image_table import find_table
from jaxformers.data.images.survey import pixel_statistics, survey
from jaxformers.errors import ConfigError
from jaxformers.tasks.images.image_classification import ImageClassification
from jaxformers.tasks.images.image_data import ImageData
from jaxformers.tasks.images.masked_image import MaskedImage

LARGEST_SIDE, SMALLEST_SIDE = 224, 8
PATCHES = (16, 8, 4, 2)
FEWEST = 7  # patches along a side
CROP = InceptionCrop((0.35, 1.0))


@dataclass(frozen=True)
class OwnImages:
    """A folder of images and what it tells of a task on them."""

    data: ImageData
    """The training images; `data.other` gives the development and test images."""
    count: int
    """Training images."""
    size: ImageSize
    """Side in pixels: the median of the shorter sides, at most 224, a multiple of `patch_size`;
    that of published weights may be (height, width)."""
    channels: int
    """1 where all images are grey, else 3."""
    classes: int
    multi_label: bool
    preprocessing: Preprocessing
    """With the mean and deviation of the training images' pixels."""

    @property
    def patch_size(self) -> int:
        """Of a ViT: 16 for images of 112 pixels or more, down to 2 for the smallest.

        Raises:
            ConfigError: no patch of these divides the size.
        """
        side = min(height_width(self.size))
        for patch in PATCHES:
            if side % patch == 0 and (side >= FEWEST * patch or patch == PATCHES[-1]):
                return patch
        raise ConfigError(f"size {side} is no multiple of {PATCHES[-1]}: give another --size")

    @property
    def rows(self) -> int:
        """Images of a batch: at most 64, and at least 8 batches an epoch where that is possible."""
        most = 64 if max(height_width(self.size)) < 96 else 32
        return max(8, min(most, self.count // 8))

    def steps(self, epochs: float) -> int:
        """Optimizer updates of so many passes over the training images."""
        return max(1, int(epochs * self.count / self.rows))


def own_images(
    folder: str | None,
    labels: str | None = None,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> OwnImages:
    """Measures a folder of images.

    Labels come from class folders or from a table (`ImageTable`). Without a development set in the
    folder 15 % of each class's training images are held out.

    Args:
        folder: of images; None: what a rehearsal needs, and training is refused.
        labels: the table of labels; None: the one in the folder, else class folders.
        size: side in pixels; None: that of the weights, else from the images.
        preprocessing: that of published weights, whose mean and deviation are kept; None: from the
            images.

    Raises:
        DataError: no such folder, or no image in it that decodes.
        ConfigError: too few images to hold any out.
    """
    if preprocessing is not None and size is not None:
        preprocessing = _resized(preprocessing, size)
    if folder is None:
        plain = preprocessing or Preprocessing(size or LARGEST_SIDE)
        return OwnImages(HeldOut(), 0, plain.size, plain.channels, 2, False, plain)
    source = _source(folder, labels)
    data = source if source.other("dev") else HeldOut(source)
    images = data.open()
    sample = survey(images)
    if preprocessing is None:
        side = size or _side(sample.shorter_side)
        channels = sample.channels
        half = (0.5,) * channels
        plain = Preprocessing(side, channels=channels, mean=half, std=half)
        mean, std = pixel_statistics(images, plain)
        preprocessing = replace(plain, mean=mean, std=std)
    return OwnImages(
        data=data,
        count=len(images),
        size=preprocessing.size,
        channels=preprocessing.channels,
        classes=images.classes if images.labelled else 0,
        multi_label=images.multi_label,
        preprocessing=preprocessing,
    )


def classification(
    images: OwnImages, model: Any, weights: str | None = None
) -> ImageClassification:
    """The task of classifying one's own images with a model of their size and classes.

    Raises:
        ConfigError: images without labels, or of a single class.
    """
    if images.classes < 2 and not images.multi_label and images.count:
        raise ConfigError(
            f"{_path(images)} has {images.classes or 'no'} class{'es' * (images.classes == 0)}: "
            "put the images of each class into a folder of its own, or give --labels FILE"
        )
    several = images.multi_label
    return ImageClassification(
        model=model,
        data=images.data,
        augmentation=_augmentation(images),
        preprocessing=images.preprocessing,
        rows=images.rows,
        objective="sigmoid" if several else "softmax",
        multi_label=several,
        smoothing=0.0 if several else 0.1,
        weights=weights,
    )


def masked_images(images: OwnImages, model: Any) -> MaskedImage:
    """The task of masked autoencoding of one's own images."""
    return MaskedImage(
        model=model,
        data=images.data,
        augmentation=_augmentation(images),
        preprocessing=images.preprocessing,
        rows=images.rows,
    )


def _resized(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """The same preprocessing for another size; what it resizes to keeps its ratio."""
    old = min(height_width(preprocessing.size))
    resize = preprocessing.resize
    if resize is not None:
        resize = round(min(height_width(resize)) * size / old)
    return replace(preprocessing, size=size, resize=resize)


def _side(shorter_side: int) -> int:
    """Side of the images for a model, rounded down to a multiple of a patch."""
    side = min(max(shorter_side, SMALLEST_SIDE), LARGEST_SIDE)
    patch = next(patch for patch in PATCHES if side >= FEWEST * patch or patch == PATCHES[-1])
    return side // patch * patch


def _augmentation(images: OwnImages) -> Augmentation:
    form = images.preprocessing
    return Augmentation(
        images.size,
        channels=images.channels,
        crop=CROP,
        interpolation=form.interpolation,
        alpha=form.alpha,
        grey_bits=form.grey_bits,
    )


def _source(folder: str, labels: str | None) -> ImageFolder | ImageTable:
    """The images of a folder, labelled by a table or by class folders; damaged ones left out."""
    path = os.path.abspath(os.path.expanduser(folder)) if "://" not in folder else folder
    if labels is not None:
        table = os.path.abspath(os.path.expanduser(labels))
        return ImageTable(path, table, skip_damaged=True)
    if "://" not in folder and find_table(Path(path)) is not None:
        return ImageTable(path, skip_damaged=True)
    return ImageFolder(path, skip_damaged=True)


def _path(images: OwnImages) -> str:
    data = images.data
    return data.source.path if isinstance(data, HeldOut) else data.path
