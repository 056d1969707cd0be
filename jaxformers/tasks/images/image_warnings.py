"""Warnings of choices that do not suit the images of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxformers.data.images import Augmentation, LabelledImages, PaddedCrop, Preprocessing
from jaxformers.data.images.survey import pixel_statistics, survey
from jaxformers.errors import DataError

SAMPLED = 16
SMALL_WINDOW = 0.5  # of an image's shorter side: below it a window shows less than a quarter
LARGEST_MEAN, SMALLEST_STD, LARGEST_STD = 3.0, 0.2, 5.0  # of normalised pixels


def image_warnings(
    images: LabelledImages, augmentation: Augmentation, preprocessing: Preprocessing
) -> Iterator[str]:
    """Lines that warn of choices which train on nonsense, by a sample of the training images.

    Warned of are windows that show a small part of an image, colours that are dropped, and a mean
    and deviation that do not normalise the pixels. A sample that does not decode is no matter of
    this function.
    """
    try:
        sample = survey(images, SAMPLED)
        mean, std = pixel_statistics(images, preprocessing, SAMPLED)
    except DataError:
        return
    side, shorter = min(np.atleast_1d(augmentation.size)), sample.shorter_side
    if isinstance(augmentation.crop, PaddedCrop) and side < SMALL_WINDOW * shorter:
        yield (
            f"warning: training cuts windows of {side} pixels out of images whose shorter side has "
            f"{shorter}, and evaluation sees the images whole: set --task.augmentation.crop "
            "inception-crop"
        )
    if preprocessing.channels == 1 and sample.channels == 3:
        yield (
            "warning: the images have colours, which a model of one channel does not see: set the "
            "model's, the augmentation's and the preprocessing's channels to 3"
        )
    own_mean = np.array(preprocessing.mean) / (255 * preprocessing.scale)
    own_std = np.array(preprocessing.std) / (255 * preprocessing.scale)
    centre = np.abs((np.array(mean) - own_mean) / own_std).max()
    spread = np.array(std) / own_std
    if centre > LARGEST_MEAN or spread.min() < SMALLEST_STD or spread.max() > LARGEST_STD:
        yield (
            f"warning: the images have mean {_text(mean)} and deviation {_text(std)} on a scale of "
            f"0 to 1, far from preprocessing's mean {_text(preprocessing.mean)} and std "
            f"{_text(preprocessing.std)}: set --task.preprocessing.mean and .std"
        )


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
