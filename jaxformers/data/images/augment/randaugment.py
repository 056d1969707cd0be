"""RandAugment (Cubuk et al. 2019): a few operations on colours and geometry, drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal, get_args

import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageEnhance, ImageOps

from jaxformers.data.images.augment.crops import Interpolation, resampling
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, Fraction, NonNegativeFloat, PositiveInt, Range

GREATEST = 10.0
WORDS = 5  # operation, whether, magnitude, sign, corner
Operation = Literal[
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]
TIMM: tuple[Operation, ...] = get_args(Operation)
ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


@dataclass(frozen=True)
class RandAugment(CheckedFields):
    """`layers` operations one after the other, each drawn from `operations`.

    As it stands it is timm's rand-m9-mstd0.5-inc1, with which MAE is fine-tuned; `RandAugment.
    big_vision` has Google's conventions.
    """

    layers: PositiveInt = 2
    magnitude: Annotated[float, Range(ge=0, le=GREATEST)] = 9.0
    """From 0 to 10 (timm cuts what is drawn there)."""
    deviation: NonNegativeFloat = 0.5
    """Standard deviation of the magnitude, drawn for each operation."""
    probability: Fraction = 0.5
    """Chance that a drawn operation is done: timm's 0.5."""
    increasing: bool = True
    """Whether posterize, solarize and the four enhancers grow stronger with the magnitude."""
    translation: NonNegativeFloat = 0.45
    """Furthest translation, as a share of the side."""
    fill: tuple[Annotated[int, Range(ge=0, le=255)], ...] = (124, 116, 104)
    """Colour of what comes in from outside; ImageNet's mean."""
    interpolation: Interpolation = "bicubic"
    """Of rotation, shear and translation."""
    cutout: NonNegativeFloat = 0.0
    """Half the side of cutout's square as a share of the picture's at magnitude 10; 0: none."""
    operations: tuple[Operation, ...] = TIMM
    """The operations drawn from, cutout aside; timm's 15."""

    def __post_init__(self):
        super().__post_init__()
        if self.interpolation not in ("nearest", "bilinear", "bicubic"):
            raise ConfigError(f"{self.interpolation} interpolation does not rotate: use bicubic")
        if not self.operations or not set(self.operations) <= set(TIMM):
            raise ConfigError(f"operations {self.operations} must be some of {', '.join(TIMM)}")

    @staticmethod
    def big_vision(layers: int = 2, magnitude: float = 10.0, size: int = 224) -> RandAugment:
        """Google's: always done, a fixed magnitude, translations of 100 and cutout of 40 pixels.

        Its posterize and solarize grow weaker with the magnitude.
        """
        return RandAugment(
            layers,
            magnitude,
            deviation=0.0,
            probability=1.0,
            increasing=False,
            translation=100 / size,
            fill=(128, 128, 128),
            interpolation="nearest",
            cutout=40 / size,
        )

    @property
    def draws(self) -> int:
        """How many uniform numbers a picture takes."""
        return WORDS * self.layers + 1

    def __call__(self, picture: Image.Image, u: Float64[np.ndarray, "D"]) -> Image.Image:
        """The picture after the drawn operations."""
        names = (*self.operations, "cutout") if self.cutout else self.operations
        for which, whether, size, sign, corner in u[: WORDS * self.layers].reshape(-1, WORDS):
            if whether >= self.probability:
                continue
            drawn = NormalDist().inv_cdf(min(max(size, 2.0**-53), 1 - 2.0**-53))
            level = self.magnitude + self.deviation * drawn if self.deviation else self.magnitude
            level = min(max(level, 0.0), GREATEST) / GREATEST
            name = names[int(which * len(names))]
            picture = self._operation(name)(picture, level, 1 if sign < 0.5 else -1, corner)
        return picture

    def _operation(self, name: str) -> Callable:
        return self._enhance(name) if name in ENHANCERS else getattr(self, f"_{name}")

    def _enhance(self, name: str) -> Callable:
        def enhanced(picture: Image.Image, level: float, sign: int, _) -> Image.Image:
            grown = max(0.1, 1 + sign * 0.9 * level)
            return ENHANCERS[name](picture).enhance(grown if self.increasing else 0.1 + 1.8 * level)

        return enhanced

    def _autocontrast(self, picture: Image.Image, *_) -> Image.Image:
        return ImageOps.autocontrast(picture)

    def _equalize(self, picture: Image.Image, *_) -> Image.Image:
        return ImageOps.equalize(picture)

    def _invert(self, picture: Image.Image, *_) -> Image.Image:
        return ImageOps.invert(picture)

    def _posterize(self, picture: Image.Image, level: float, *_) -> Image.Image:
        bits = 4 - int(level * 4) if self.increasing else int(level * 4)
        mask = 256 - 2 ** (8 - bits)  # ImageOps.posterize refuses to keep none
        return picture.point([value & mask for value in range(256)] * len(picture.getbands()))

    def _solarize(self, picture: Image.Image, level: float, *_) -> Image.Image:
        threshold = int(level * 256)
        return ImageOps.solarize(picture, 256 - threshold if self.increasing else threshold)

    def _solarize_add(self, picture: Image.Image, level: float, *_) -> Image.Image:
        added = int(level * 110)
        table = [min(255, value + added) if value < 128 else value for value in range(256)]
        return picture.point(table * len(picture.getbands()))

    def _rotate(self, picture: Image.Image, level: float, sign: int, _) -> Image.Image:
        filtered = resampling(self.interpolation)
        return picture.rotate(sign * 30 * level, filtered, fillcolor=self._fill(picture))

    def _shear_x(self, picture: Image.Image, level: float, sign: int, _) -> Image.Image:
        return self._affine(picture, (1, sign * 0.3 * level, 0, 0, 1, 0))

    def _shear_y(self, picture: Image.Image, level: float, sign: int, _) -> Image.Image:
        return self._affine(picture, (1, 0, 0, sign * 0.3 * level, 1, 0))

    def _translate_x(self, picture: Image.Image, level: float, sign: int, _) -> Image.Image:
        pixels = sign * self.translation * level * picture.width
        return self._affine(picture, (1, 0, pixels, 0, 1, 0))

    def _translate_y(self, picture: Image.Image, level: float, sign: int, _) -> Image.Image:
        pixels = sign * self.translation * level * picture.height
        return self._affine(picture, (1, 0, 0, 0, 1, pixels))

    def _cutout(self, picture: Image.Image, level: float, _, corner: float) -> Image.Image:
        # One number gives both coordinates of the middle.
        pixel = int(corner * picture.width * picture.height)
        y, x = divmod(pixel, picture.width)
        half = int(self.cutout * level * picture.width)
        picture = picture.copy()
        box = (max(x - half, 0), max(y - half, 0))
        box += (min(x + half, picture.width), min(y + half, picture.height))
        picture.paste(self._fill(picture), box)
        return picture

    def _affine(self, picture: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
        filtered, form = resampling(self.interpolation), Image.Transform.AFFINE
        return picture.transform(
            picture.size, form, matrix, filtered, fillcolor=self._fill(picture)
        )

    def _fill(self, picture: Image.Image) -> tuple[int, ...] | int:
        if picture.mode == "L":
            return math.floor(sum(self.fill) / len(self.fill))
        return self.fill
