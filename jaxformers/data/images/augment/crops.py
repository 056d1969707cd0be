"""Which part of a picture is shown, and at what size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from jaxformers.arrays import ImageSize, height_width
from jaxformers.data.images.decoding import MOST_PIXELS, ColourRule
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import (
    CheckedFields,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
)

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Box = tuple[float, float, float, float]
GAP = 2.0  # a fast resize first halves until so many times the size is left
ATTEMPTS = 10


class Frame(NamedTuple):
    """What every crop is brought to."""

    size: ImageSize
    colours: ColourRule
    interpolation: Interpolation
    fast: bool
    """Whether a JPEG may be decoded at a half, a quarter or an eighth, and the like."""

    @property
    def height(self) -> int:
        """Height of the frame in pixels."""
        return height_width(self.size)[0]

    @property
    def width(self) -> int:
        """Width of the frame in pixels."""
        return height_width(self.size)[1]

    def box_at(self, left: int, top: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the frame from a corner on."""
        return left, top, left + self.width, top + self.height


def resampling(interpolation: Interpolation) -> Image.Resampling:
    """Pillow's filter; all but "nearest" are antialiased."""
    return Image.Resampling[interpolation.upper()]


def check_aspect(aspect: tuple[float, float]) -> None:
    """Raises ConfigError unless a ratio can be drawn between its two numbers."""
    if not 0 < aspect[0] <= aspect[1] < math.inf:
        raise ConfigError(f"aspect {aspect} must be two positive numbers, smaller first")


def small_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with the shorter of them `side`, the longer cut to a whole number."""
    short = min(size)
    return tuple(side if length == short else int(side * length / short) for length in size)


def resized_part(
    picture: Image.Image, size: tuple[int, int], corner: tuple[int, int], frame: Frame
) -> Image.Image:
    """The frame, from `corner` (left, top) on, of a picture that is resized to (width, height).

    It is resized whole and cut, as publishers do. A thin one, which would grow beyond
    `MOST_PIXELS`, is resized in that frame alone, which is nearly the same.
    """
    filtered, box = resampling(frame.interpolation), frame.box_at(*corner)
    if size[0] * size[1] <= MOST_PIXELS:
        resized = picture if picture.size == size else picture.resize(size, filtered)
        return resized.crop(box)
    return picture.resize((frame.width, frame.height), filtered, _unscaled(box, size, picture))


def _unscaled(box: Box, size: tuple[int, int], picture: Image.Image) -> Box:
    """`box` of the picture resized to `size`, in the picture as it is."""
    x, y = picture.width / size[0], picture.height / size[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def shown(picture: Image.Image, box: Box, frame: Frame) -> Image.Image:
    """The part of a picture inside `box`, resized to the frame.

    Where the frame is fast, a JPEG is decoded at a fraction of its size, the part is not cut out
    before it is resized (pixels at its edge see their neighbours outside), and a large part is
    halved before it is filtered. What comes out differs by about a grey level. By the colour rule
    "late" it is not yet converted.
    """
    if frame.fast:
        picture, box = _reduced(picture, box, frame)
    else:
        picture = frame.colours.before_resizing(picture).crop(tuple(map(round, box)))
        box = (0, 0, *picture.size)
    gap = GAP if frame.fast else None
    size, filtered = (frame.width, frame.height), resampling(frame.interpolation)
    return frame.colours.before_resizing(picture).resize(size, filtered, box, gap)


def _reduced(picture: Image.Image, box: Box, frame: Frame) -> tuple[Image.Image, Box]:
    """The picture told to decode no larger than is needed, and `box` in its new size."""
    width, height = picture.size
    ratio = min((box[2] - box[0]) / frame.width, (box[3] - box[1]) / frame.height)
    if ratio >= 2:
        picture.draft(None, (math.ceil(width / ratio), math.ceil(height / ratio)))
    across, down = picture.width / width, picture.height / height
    return picture, (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


@dataclass(frozen=True)
class InceptionCrop(CheckedFields):
    """A part of random area and aspect (Szegedy et al. 2014), as torchvision's RandomResizedCrop.

    The aspect is uniform in its logarithm; after ten parts that do not fit, the largest central one
    of an allowed aspect is taken. (TensorFlow's sample_distorted_bounding_box draws the aspect
    itself uniformly, and tries 100 times.)
    """

    area: tuple[PositiveFraction, PositiveFraction] = (0.05, 1.0)
    """Share of the picture; MAE pre-trains with 0.2 to 1, torchvision's default is 0.08 to 1."""
    aspect: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    """Width over height."""
    draws: ClassVar[int] = 4 * ATTEMPTS

    def __post_init__(self):
        super().__post_init__()
        if self.area[0] > self.area[1]:
            raise ConfigError(f"area {self.area} must hold the smaller share first")
        check_aspect(self.aspect)

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The drawn part, in the frame."""
        return shown(picture, self.box(picture.size, u), frame)

    def box(self, size: tuple[int, int], u: Float64[np.ndarray, "D"]) -> Box:
        """(left, top, right, bottom) of the drawn part of a picture of (width, height)."""
        width, height = size
        for share, stretch, down, across in u.reshape(ATTEMPTS, 4).tolist():
            area = width * height * between(self.area, share)
            aspect = math.exp(between(tuple(map(math.log, self.aspect)), stretch))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(down * (height - h + 1)), int(across * (width - w + 1))
                return left, top, left + w, top + h
        return self._central(width, height)

    def _central(self, width: int, height: int) -> Box:
        aspect = min(max(width / height, self.aspect[0]), self.aspect[1])
        w = width if width / height <= aspect else round(height * aspect)
        h = height if width / height >= aspect else round(width / aspect)
        top, left = (height - h) // 2, (width - w) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class RandomCrop(CheckedFields):
    """The shorter side resized, then a random part cut out: BiT's rule for larger pictures."""

    resize: PositiveInt = 256
    """What the shorter side becomes."""
    draws: ClassVar[int] = 2

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The drawn part, in the frame."""
        return _cut(picture, self.resize, frame, float(u[0]), float(u[1]))


@dataclass(frozen=True)
class CentralCrop(CheckedFields):
    """The shorter side resized, then the middle cut out."""

    resize: PositiveInt = 256
    """What the shorter side becomes."""
    draws: ClassVar[int] = 0

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The middle, in the frame."""
        return _cut(picture, self.resize, frame, 0.5, 0.5)


def _cut(picture: Image.Image, side: int, frame: Frame, down: float, across: float):
    width, height = small_side(picture.size, side)
    top = int(down * (height - frame.height + 1))
    left = int(across * (width - frame.width + 1))
    if not frame.fast:
        converted = frame.colours.before_resizing(picture)
        return resized_part(converted, (width, height), (left, top), frame)
    box = frame.box_at(left, top)
    return shown(picture, _unscaled(box, (width, height), picture), frame)


@dataclass(frozen=True)
class PaddedCrop(CheckedFields):
    """A black margin, then a random part of the picture's own scale: CIFAR's usual crop."""

    padding: NonNegativeInt = 4
    """Pixels on each side."""
    draws: ClassVar[int] = 2

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The crop that `u` draws."""
        picture = frame.colours.convert(picture)
        top, left = (
            int(v[0]) for v in self._corners(picture.height, picture.width, frame, u[None])
        )
        left, top = left - self.padding, top - self.padding
        return picture.crop(frame.box_at(left, top))

    def arrays(self, images: np.ndarray, frame: Frame, u: Float64[np.ndarray, "B D"]) -> np.ndarray:
        """The same for pictures of one size [B, H, W, C] at once."""
        tops, lefts = self._corners(*images.shape[1:3], frame, u)
        margin = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), margin, margin, (0, 0)))
        windows = sliding_window_view(padded, (frame.height, frame.width), (1, 2))
        return np.moveaxis(windows[np.arange(len(images)), tops, lefts], 1, -1)

    def _corners(self, height: int, width: int, frame: Frame, u: np.ndarray) -> list[np.ndarray]:
        room = [
            side + 2 * self.padding - length + 1
            for side, length in ((height, frame.height), (width, frame.width))
        ]
        if min(room) < 1:
            raise DataError(
                f"a picture of {width} x {height} with a margin of {self.padding} is smaller "
                f"than {frame.width} x {frame.height}: set a crop that resizes"
            )
        return [(u[:, axis] * room[axis]).astype(np.int64) for axis in (0, 1)]


@dataclass(frozen=True)
class WholeImage:
    """The whole picture, resized to the frame whatever its aspect."""

    draws: ClassVar[int] = 0

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The picture, in the frame."""
        return shown(picture, (0, 0, *picture.size), frame)


@dataclass(frozen=True)
class AsIs:
    """The picture as it is, which must have the size already."""

    draws: ClassVar[int] = 0

    def __call__(self, picture: Image.Image, frame: Frame, u: Float64[np.ndarray, "D"]):
        """The image unchanged, in the frame's colours."""
        check_size(*picture.size, frame)
        return frame.colours.convert(picture)

    def arrays(self, images: np.ndarray, frame: Frame, u: Float64[np.ndarray, "B D"]) -> np.ndarray:
        """The pictures [B, H, W, C]."""
        check_size(images.shape[2], images.shape[1], frame)
        return images.copy()


def check_size(width: int, height: int, frame: Frame) -> None:
    """Raises DataError where a picture that nothing resizes has another size than the frame."""
    if (width, height) != (frame.width, frame.height):
        raise DataError(
            f"a picture of {width} x {height} is not {frame.width} x {frame.height}, and is not "
            "resized: set a crop or a rule that resizes"
        )


def between(limits: tuple[float, float], u: float) -> float:
    """The number at share `u` of the way between two."""
    return limits[0] + (limits[1] - limits[0]) * u
