"""Random changes of colour, as torchvision's ColorJitter and RandomGrayscale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageEnhance

from jaxformers.fields import CheckedFields, Fraction, Range

Strength = Annotated[float, Range(ge=0, le=1)]


@dataclass(frozen=True)
class ColorJitter(CheckedFields):
    """Brightness, contrast, saturation and hue drawn at random, then perhaps grey.

    The operations are Pillow's, as in torchvision, in that order (torchvision shuffles them);
    of pictures without colour, brightness and contrast alone change.
    """

    probability: Fraction = 0.8
    """Chance that the four are changed at all (SimCLR: 0.8)."""
    brightness: Strength = 0.4
    """The factor is uniform in 1 - `brightness` to 1 + `brightness`."""
    contrast: Strength = 0.4
    """The same of the contrast."""
    saturation: Strength = 0.4
    """The same of the saturation."""
    hue: Annotated[float, Range(ge=0, le=0.5)] = 0.1
    """The shift is uniform in -`hue` to `hue` of the circle of hues."""
    grayscale: Fraction = 0.0
    """Chance that the picture loses its colours (SimCLR: 0.2)."""
    draws: ClassVar[int] = 6

    def __call__(self, picture: Image.Image, u: Float64[np.ndarray, "D"]) -> Image.Image:
        """The picture with its colours changed by six numbers from 0 to below 1."""
        if u[0] < self.probability:
            enhancers = (
                (ImageEnhance.Brightness, self.brightness),
                (ImageEnhance.Contrast, self.contrast),
                (ImageEnhance.Color, self.saturation),
            )
            for (enhancer, strength), share in zip(enhancers, u[1:4], strict=True):
                picture = enhancer(picture).enhance(1 + strength * (2 * share - 1))
            if self.hue and picture.mode == "RGB":  # the way to HSV and back rounds
                picture = shifted_hue(picture, self.hue * (2 * u[4] - 1))
        return picture.convert("L").convert(picture.mode) if u[5] < self.grayscale else picture


def shifted_hue(picture: Image.Image, shift: float) -> Image.Image:
    """The picture with its hues moved by a share of their circle, from -0.5 to 0.5."""
    hue, saturation, value = picture.convert("HSV").split()
    levels = int(shift * 255) % 256  # Pillow's hues are one byte, round the circle
    hue = hue.point([(level + levels) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
