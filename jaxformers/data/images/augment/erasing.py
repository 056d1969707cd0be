"""Random erasing (Zhong et al. 2017), as timm does it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, UInt8
from scipy.special import ndtri

from jaxformers.data.images.augment.crops import ATTEMPTS, between, check_aspect
from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from jaxformers.data.pipeline.stateless_random import uniform
from jaxformers.errors import ConfigError
from jaxformers.fields import (
    CheckedFields,
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveFraction,
)


@dataclass(frozen=True)
class RandomErasing(CheckedFields):
    """A random rectangle becomes noise of the data's mean and standard deviation.

    timm erases after normalisation with standard normal noise; here that noise is laid onto 0 to
    255 and cut off there, for pictures stay uint8 until they reach the device.
    """

    probability: Fraction = 0.25
    area: tuple[PositiveFraction, PositiveFraction] = (0.02, 1 / 3)
    """Share of the picture."""
    aspect: tuple[PositiveFloat, PositiveFloat] = (0.3, 1 / 0.3)
    """Height over width, uniform in its logarithm."""
    mean: tuple[FiniteFloat, ...] = IMAGENET_MEAN
    std: tuple[NonNegativeFloat, ...] = IMAGENET_STD
    """Of the data, from 0 to 1, one for each channel or one for all."""
    draws: ClassVar[int] = 2 + 4 * ATTEMPTS

    def __post_init__(self):
        super().__post_init__()
        if self.area[0] > self.area[1]:
            raise ConfigError(f"area {self.area} must hold the smaller share first")
        check_aspect(self.aspect)

    def __call__(
        self, image: UInt8[np.ndarray, "H W C"], u: Float64[np.ndarray, "D"]
    ) -> UInt8[np.ndarray, "H W C"]:
        """The picture, or one with a rectangle erased."""
        if u[0] >= self.probability or (box := self._box(*image.shape[:2], u[2:])) is None:
            return image
        top, left, height, width = box
        image = image.copy()
        image[top : top + height, left : left + width] = self._noise(
            (height, width, image.shape[-1]), int(u[1] * 2**53)
        )
        return image

    def _box(self, height: int, width: int, u: np.ndarray) -> tuple[int, int, int, int] | None:
        for share, stretch, down, across in u.reshape(ATTEMPTS, 4).tolist():
            area = between(self.area, share) * height * width
            aspect = math.exp(between(tuple(map(math.log, self.aspect)), stretch))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
        return None

    def _noise(self, shape: tuple[int, int, int], seed: int) -> np.ndarray:
        words = np.random.Philox(seed).random_raw(math.prod(shape)).reshape(shape)
        normal = ndtri(np.maximum(uniform(words), 2.0**-53))
        values = 255 * (np.asarray(self.mean) + np.asarray(self.std) * normal)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
