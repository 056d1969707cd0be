"""Pictures as training sees them: cropped, mirrored, distorted; each a function of its draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageOps

from jaxformers.arrays import ImageSize, height_width, one_spelling
from jaxformers.data.images.augment.crops import (
    AsIs,
    CentralCrop,
    Frame,
    InceptionCrop,
    Interpolation,
    PaddedCrop,
    RandomCrop,
    WholeImage,
)
from jaxformers.data.images.augment.erasing import RandomErasing
from jaxformers.data.images.augment.jitter import ColorJitter
from jaxformers.data.images.augment.randaugment import RandAugment
from jaxformers.data.images.decoding import Alpha, ColourRule, GreyBits, pixels
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, Fraction

Crop = InceptionCrop | RandomCrop | PaddedCrop | CentralCrop | WholeImage | AsIs


@dataclass(frozen=True)
class Augmentation(CheckedFields):
    """Crop, then flip, then colour jitter, RandAugment and erasing, as timm orders them.

    Images stay uint8 all the way.
    Mixup and cutmix, which need a whole batch, are the task's.
    """

    size: ImageSize = 224
    """Of the images that come out: the side of a square, or (height, width)."""
    channels: Literal[1, 3] = 3
    """3, or 1 for grey; pictures are converted."""
    crop: Crop = InceptionCrop()
    """Which part of the picture is shown."""
    flip: Fraction = 0.5
    """Chance to be mirrored left to right."""
    distortions: RandAugment | None = None
    """Random operations on colours and geometry."""
    erasing: RandomErasing | None = None
    """A random rectangle overwritten with noise."""
    jitter: ColorJitter | None = None
    """Random brightness, contrast, saturation and hue."""
    interpolation: Interpolation = "bilinear"
    """Of all resizing, antialiased."""
    alpha: Alpha = "drop"
    """What becomes of transparency, as for `Preprocessing`."""
    grey_bits: GreyBits = 16
    """How many bits 16-bit greyscale uses, as for `Preprocessing`."""
    fast: bool = True
    """Decode JPEGs at a fraction of their size where that is enough, and the like: about a grey
    level's difference, several times the speed."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "size", one_spelling(self.size))
        longest = max(height_width(self.size))
        if getattr(self.crop, "resize", longest) < longest:
            raise ConfigError(
                f"a crop of {self.size} does not fit into a side resized to {self.crop.resize}"
            )
        erasing = self.erasing
        if erasing and {len(erasing.mean), len(erasing.std)} - {1, self.channels}:
            raise ConfigError(
                f"erasing's mean {erasing.mean} and std {erasing.std} need a number for each of "
                f"the {self.channels} channels, or one for all"
            )

    @property
    def draws(self) -> int:
        """How many uniform numbers a picture takes."""
        transforms = (self.crop, self.distortions, self.erasing, self.jitter)
        return 1 + sum(transform.draws for transform in transforms if transform is not None)

    def picture(
        self, picture: Image.Image, u: Float64[np.ndarray, "D"]
    ) -> UInt8[np.ndarray, "H W C"]:
        """One picture with its `draws` numbers from 0 to below 1."""
        shares = self._shares(u)
        frame = self._frame
        picture = frame.colours.convert(self.crop(picture, frame, shares[1]))
        if shares[0][0] < self.flip:
            picture = ImageOps.mirror(picture)
        if self.jitter is not None:
            picture = self.jitter(picture, shares[4])
        if self.distortions is not None:
            picture = self.distortions(picture, shares[2])
        image = pixels(picture, frame.colours)
        return image if self.erasing is None else self.erasing(image, shares[3])

    def arrays(
        self, images: UInt8[np.ndarray, "B H W C"], u: Float64[np.ndarray, "B D"]
    ) -> UInt8[np.ndarray, "B H W C"] | None:
        """The same for pictures of one size at once; None where that is not possible."""
        simple = isinstance(self.crop, PaddedCrop | AsIs)
        simple = simple and self.distortions is None and self.jitter is None
        if not simple or images.shape[-1] not in (1, self.channels):
            return None
        shares = self._shares(u)
        images = self.crop.arrays(images, self._frame, shares[1])
        mirrored = shares[0][:, 0] < self.flip
        images[mirrored] = images[mirrored, :, ::-1]
        if images.shape[-1] != self.channels:
            images = np.repeat(images, self.channels, axis=-1)
        if self.erasing is not None:
            images = np.stack(list(map(self.erasing, images, shares[3])))
        return images

    @property
    def _frame(self) -> Frame:
        colours = ColourRule(self.channels, self.alpha, self.grey_bits)
        return Frame(self.size, colours, self.interpolation, self.fast)

    def _shares(self, u: np.ndarray) -> tuple[np.ndarray, ...]:
        """The draws of flip, crop, distortions, erasing and jitter."""
        counts = [1, self.crop.draws]
        for transform in (self.distortions, self.erasing, self.jitter):
            counts.append(0 if transform is None else transform.draws)
        return tuple(np.split(u, np.cumsum(counts)[:-1], axis=-1))
