"""Measures a set of images: sizes, grey or coloured, mean and standard deviation of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxformers.data.images.decoding import ColourRule, decoding
from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.data.images.sources.labelled_images import LabelledImages
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DataError

SAMPLED = 256
DIGITS = 3


@dataclass(frozen=True)
class Survey:
    """What images are like, by a sample of them."""

    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each sampled image."""
    channels: int
    """1 where all sampled images are grey, else 3."""
    unreadable: tuple[str, ...] = ()
    """What is wrong with each sampled image that does not decode."""

    @property
    def shorter_side(self) -> int:
        """Median of the shorter sides in pixels."""
        return int(np.median([min(size) for size in self.sizes]))


def survey(images: LabelledImages, sampled: int = SAMPLED) -> Survey:
    """Measures a sample of images, evenly spaced.

    Raises:
        DataError: none of the sampled images decodes.
    """
    sizes, grey, unreadable = [], True, []
    for index in evenly_spaced(len(images), sampled):
        try:
            with decoding(images.where(int(index))):
                image = images.example(int(index))[0]
                sizes.append(image.size)
                grey = grey and _is_grey(image)
        except DataError as error:
            unreadable.append(str(error))
    if not sizes:
        raise DataError(f"{images.source}: no image decodes; {unreadable[0]}")
    return Survey(tuple(sizes), 1 if grey else 3, tuple(unreadable))


def pixel_statistics(
    images: LabelledImages, preprocessing: Preprocessing, sampled: int = SAMPLED
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of preprocessed pixels, scaled to 0 to 1.

    Over a sample of images, evenly spaced; those that do not decode are left out. A deviation is at
    least one grey level, so that nothing is divided by 0. Rounded to three digits.

    Raises:
        DataError: none of the sampled images decodes.
    """
    sums, squares, count = np.zeros(preprocessing.channels), np.zeros(preprocessing.channels), 0
    for index in evenly_spaced(len(images), sampled):
        try:
            with decoding(images.where(int(index))):
                image = preprocessing.picture(images.example(int(index))[0])
        except DataError:
            continue
        values = image.reshape(-1, image.shape[-1]) / 255  # [pixels, C]
        sums += values.sum(0)
        squares += np.square(values).sum(0)
        count += len(values)
    if not count:
        raise DataError(f"{images.source}: no sampled image decodes")
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return _rounded(mean), _rounded(np.maximum(deviation, 1 / 255))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), DIGITS) for value in values)


def _is_grey(image) -> bool:
    """Whether an image has no colour; a small copy is looked at."""
    if image.mode in ("L", "1", "LA") or image.mode.startswith("I"):
        return True
    image.draft("RGB", (64, 64))
    pixels = np.asarray(ColourRule(3).convert(image).resize((64, 64))).astype(
        np.int16
    )  # [64, 64, 3]
    return int(np.ptp(pixels, axis=-1).max()) <= 2
