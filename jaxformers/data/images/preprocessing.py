"""Deterministic preprocessing of images for evaluation and use: resize, crop, normalise."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from etils import epath
from jaxtyping import Float32, UInt8
from PIL import Image

from jaxformers.arrays import ImageSize, height_width, one_spelling
from jaxformers.data.images.augment.crops import (
    AsIs,
    Frame,
    Interpolation,
    check_size,
    resized_part,
    small_side,
)
from jaxformers.data.images.decoding import (
    Alpha,
    ColourRule,
    GreyBits,
    decoding,
    opened,
    pixels,
    turned,
)
from jaxformers.data.images.sources.labelled_images import as_picture
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, FiniteFloat, PositiveFloat
from jaxformers.regular_files import check_regular

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGEST_FILE = 2**29  # bytes
LARGEST = 2**14  # side; what a file asks for beyond it is a mistake or an attack
Picture = Image.Image | np.ndarray | bytes | str | os.PathLike[str]


@dataclass(frozen=True)
class Preprocessing(CheckedFields):
    """Resize, cut out the middle, scale, subtract the mean, divide by the standard deviation.

    The defaults are Google's ViTs': the whole picture resized to a square, and (x - 127.5) / 127.5.
    Files are decoded whole and resized antialiased, by Pillow.
    """

    size: ImageSize = 224
    """Of the images that come out: the side of a square, or (height, width)."""
    resize: ImageSize | None = None
    """What a picture is resized to before the middle of `size` is cut out; None: `size`."""
    rule: Literal["direct", "small", "none"] = "direct"
    """What is resized to that: both sides, or the shorter one with the aspect kept; or nothing."""
    interpolation: Interpolation = "bilinear"
    scale: PositiveFloat = 1 / 255
    """What pixels, 0 to 255, are multiplied with first."""
    mean: tuple[FiniteFloat, ...] = (0.5, 0.5, 0.5)
    """Of the scaled pixels, one for each channel; a single one stands for all channels."""
    std: tuple[PositiveFloat, ...] = (0.5, 0.5, 0.5)
    channels: Literal[1, 3] = 3
    """3, or 1 for grey; pictures are converted."""
    crop: Literal["floor", "round"] = "floor"
    """Where the middle begins: half of the surplus, rounded down (Hugging Face, TensorFlow), or to
    the nearest with halves to even (torchvision, timm, OpenAI)."""
    alpha: Alpha = "drop"
    """What becomes of transparency: dropped before resizing (torchvision, timm, TFDS), blended onto
    white (Hugging Face's do_convert_rgb), or dropped after resizing and cropping, palettes being
    resized by nearest neighbours (OpenAI, open_clip)."""
    grey_bits: GreyBits = 16
    """How many bits 16-bit greyscale files use: the upper eight of them are read, larger values are
    white. 12 for cameras and scanners whose images would be nearly black by 16."""
    draws: ClassVar[int] = 0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "size", one_spelling(self.size))
        if self.resize is not None:
            object.__setattr__(self, "resize", one_spelling(self.resize))
        if self.rule == "small" and isinstance(self._resized, tuple):
            raise ConfigError(
                f"rule 'small' resizes the shorter side: resize {self.resize} must be one number, "
                f"at least the longer side of size {self.size}"
            )
        sides = zip(height_width(self.size), height_width(self._resized), strict=True)
        if not all(side <= resized <= LARGEST for side, resized in sides):
            raise ConfigError(
                f"size {self.size} must fit into what is resized to {self.resize}, which is "
                f"at most {LARGEST}"
            )
        if {len(self.mean), len(self.std)} - {1, self.channels}:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} need {self.channels} numbers each"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            object.__setattr__(self, name, values * (self.channels // len(values)))

    @staticmethod
    def central(size: int = 224, fraction: float = 0.875, **changes: Any) -> Preprocessing:
        """The shorter side resized to `size` / `fraction`, then the middle, as torchvision does."""
        return Preprocessing(size, round(size / fraction), "small", **{"crop": "round"} | changes)

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Float32[np.ndarray, "B H W C"]:
        """What the model reads.

        Args:
            pictures: one or several: paths, encoded bytes, Pillow's images, or uint8 arrays
                `[H, W]`, `[H, W, C]`; but for arrays they are turned as their EXIF note says.

        Raises:
            DataError: a picture that is not there or does not decode, by its name.
        """
        return self.normalised(self.pixels(pictures))

    def pixels(self, pictures: Picture | Sequence[Picture]) -> UInt8[np.ndarray, "B H W C"]:
        """The same before it is scaled and normalised."""
        if not (listed := one_by_one(pictures)):
            return np.zeros((0, *height_width(self.size), self.channels), np.uint8)
        return np.stack([self._read(image, number) for number, image in enumerate(listed, 1)])

    def _read(self, source: Any, number: int) -> np.ndarray:
        where = str(source) if hasattr(source, "__fspath__") or isinstance(source, str) else None
        where = where or f"picture {number}"
        with decoding(where):
            return self.picture(read_picture(source, where))

    def picture(
        self, picture: Image.Image, u: np.ndarray | None = None
    ) -> UInt8[np.ndarray, "H W C"]:
        """The pixels of one picture; `u` are the draws of an augmentation, and not needed."""
        frame = self._frame
        picture = frame.colours.before_resizing(picture)
        size = picture.size  # (width, height), as Pillow has it
        if self.rule == "none":
            check_size(*size, frame)
        elif self.rule == "direct":
            size = height_width(self._resized)[::-1]
        else:
            size = small_side(size, self._resized)
        half = round if self.crop == "round" else math.floor  # Python rounds halves to even
        left, top = half((size[0] - frame.width) / 2), half((size[1] - frame.height) / 2)
        return pixels(resized_part(picture, size, (left, top), frame), frame.colours)

    def arrays(self, images: UInt8[np.ndarray, "B H W C"], u: Any) -> np.ndarray | None:
        """Pictures that have the size already, all at once; None where they have not."""
        if images.shape[1:3] != height_width(self.size) or images.shape[-1] not in (
            1,
            self.channels,
        ):
            return None
        if self.rule != "none" and self.resize not in (None, self.size):
            return None
        images = AsIs().arrays(images, self._frame, u)
        return images if images.shape[-1] == self.channels else np.repeat(images, self.channels, -1)

    def normalised(self, images: Any) -> Any:
        """float32 `[..., C]` of uint8 pixels; NumPy or JAX arrays, as they were given."""
        # The shape is spelled out, for ranks are not promoted in strict programs.
        axes = (1,) * (images.ndim - 1)
        mean = np.float32(self.mean).reshape(*axes, -1)
        std = np.float32(self.std).reshape(*axes, -1)
        return (images.astype(np.float32) * np.float32(self.scale) - mean) / std

    @property
    def _resized(self) -> ImageSize:
        return self.size if self.resize is None else self.resize

    @property
    def _frame(self) -> Frame:
        colours = ColourRule(self.channels, self.alpha, self.grey_bits)
        return Frame(self.size, colours, self.interpolation, False)


def one_by_one(pictures: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several, an array of a batch among them, as a list."""
    single = isinstance(pictures, str | bytes | Image.Image | os.PathLike) or (
        isinstance(pictures, np.ndarray) and pictures.ndim < 4
    )
    if not single and not isinstance(pictures, Iterable):
        raise DataError(f"{type(pictures).__name__} is no picture, nor several")
    return [pictures] if single else list(pictures)


def read_picture(source: Any, where: str = "the picture") -> Image.Image:
    """A path, encoded bytes, an array or an image as Pillow's image, turned upright by its EXIF.

    Raises:
        DataError: it is not there, or none of these.
    """
    if isinstance(source, Image.Image):
        return turned(source)
    if isinstance(source, np.ndarray):
        return _of_array(source, where)
    if isinstance(source, bytes):
        return turned(opened(source, where))
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        raise DataError(f"{where} is {type(source).__name__}, not a path, bytes, image or array")
    return turned(opened(read_file(source), where))


def read_file(path: epath.PathLike) -> bytes:
    """The bytes of a file, at most `LARGEST_FILE`.

    Raises:
        DataError: it cannot be read, is too large, or is neither a regular file nor standard input.
    """
    name = os.path.expanduser(str(path))
    check_regular(name, DataError, standard_input=True)
    try:
        if "://" in name:
            return epath.Path(path).read_bytes()
        with open(name, "rb") as file:  # twice as fast as epath
            size = os.fstat(file.fileno()).st_size
            # A pipe has no size. `read(n)` allocates n bytes first, so a file's end is its bound.
            content = b"" if size > LARGEST_FILE else file.read(-1 if size else LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    if max(size, len(content)) > LARGEST_FILE:
        raise DataError(f"{path} has more than {LARGEST_FILE >> 20} MiB: it is no image")
    return content


def _of_array(array: np.ndarray, where: str) -> Image.Image:
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise DataError(
            f"{where} is {array.dtype} {array.shape}, not uint8 [H, W] or [H, W, 1, 3 or 4]"
        )
    if not array.size:
        raise DataError(f"{where} is empty: {array.shape}")
    return as_picture(np.ascontiguousarray(array))
