"""Decodes images with limits; what does not decode is one line.

Colours follow `ColourRule`: transparency is dropped, blended onto white or kept until after
resizing; palettes are looked up, CMYK goes through Pillow's plain conversion, 16-bit greyscale is
cut to eight of its bits, and of an animation the first frame is read. The orientation that a camera
noted (EXIF) is obeyed where a source or a user says so (`turned`).
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import AvifImagePlugin, ExifTags, Image, TiffImagePlugin, WebPImagePlugin

from jaxformers.errors import DamagedImageError, DataError
from jaxformers.fields import Range

# What Pillow opens without calling other programs; these three it knows once they are imported.
ADDED = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MOST_PIXELS = 2**27  # 400 MB decoded
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")
LAZY = ("JPEG", "MPO")  # their notes are read without decoding; they decode at reduced size, too
# What each orientation of EXIF asks for; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))  # height and width
NOTES = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")
_WARNINGS = threading.Lock()


Alpha = Literal["drop", "white", "late"]
GreyBits = Annotated[int, Range(ge=8, le=16)]


class ColourRule(NamedTuple):
    """How the colours of a file become grey or RGB."""

    channels: Literal[1, 3] = 3
    alpha: Alpha = "drop"
    """What becomes of transparency: dropped, blended onto white, or dropped after resizing."""
    grey_bits: int = 16
    """How many bits 16-bit greyscale uses: the upper eight of them are read."""

    def before_resizing(self, image: Image.Image) -> Image.Image:
        """The image as it is resized: converted, except by the rule "late"."""
        return image if self.alpha == "late" and image.mode not in WIDE else self.convert(image)

    def convert(self, image: Image.Image) -> Image.Image:
        """The image in grey or RGB; it is returned itself where it is that already.

        Raises:
            ValueError: pixels that are floating-point numbers.
        """
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode in WIDE:
            image = _upper_bits(image, self.grey_bits)
        elif image.mode == "F":
            raise ValueError("its pixels are floating-point numbers")
        elif self.alpha == "white" and _is_transparent(image):
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        if image.mode == mode:
            image.load()
            return image
        return image.convert(mode)


def _is_transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or image.info.get("transparency") is not None


def _upper_bits(image: Image.Image, bits: int) -> Image.Image:
    """An image of 16-bit greyscale in 8 bits; larger values than `bits` allow become white."""
    values = np.asarray(image).astype(np.int64)
    if image.mode != "I" or values.max(initial=0) > 255:  # mode "I" may hold 8-bit values
        values = values >> (bits - 8)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences Pillow on damaged headers and large images, which are checked here."""
    # `warnings.catch_warnings` is not safe in threads.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one DamagedImageError that names `where`."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(where):
            raise
        raise type(error)(f"{where}: {error}") from None
    # Decoders raise many kinds of errors on damaged bytes.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedImageError(f"{where} does not decode: {reason[:200]}") from error


def opened(data: bytes, where: str) -> Image.Image:
    """The image in `data`, its size read, its pixels not yet decoded.

    Raises:
        DamagedImageError: not an image in one of `FORMATS`, or of more than `MOST_PIXELS`.
    """
    try:
        with _without_warnings():
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise DamagedImageError(f"{where} is not a picture that can be decoded") from None
    except Image.DecompressionBombError:
        raise DamagedImageError(f"{where} {_oversize()}") from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedImageError(f"{where} does not decode: {reason[:200]}") from error
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise DamagedImageError(f"{where} {_oversize()}: {width:,} x {height:,}")
    return picture


def _oversize() -> str:
    return f"has more than {MOST_PIXELS // 10**6} million pixels, which may be a decompression bomb"


def pixels(image: Image.Image, rule: ColourRule | None = None) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an image, decoded or not; without a rule a grey image has one channel."""
    grey = image.mode in ("L", "1", *WIDE)
    array = np.asarray((rule or ColourRule(1 if grey else 3)).convert(image))
    return array[..., None] if array.ndim == 2 else array


def decode(
    data: bytes,
    where: str = "the picture",
    *,
    channels: Literal[1, 3] | None = 3,
    upright: bool = True,
) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an encoded image.

    Args:
        data: in one of `FORMATS`.
        where: what messages call it.
        channels: 1 or 3; None: 1 for a grey image, else 3.
        upright: whether it is turned as its EXIF note says.

    Raises:
        DamagedImageError: it does not decode, is truncated, or has too many pixels.
    """
    image = opened(data, where)
    with decoding(where):
        rule = None if channels is None else ColourRule(channels)
        return pixels(turned(image) if upright else image, rule)


def turned(image: Image.Image) -> Image.Image:
    """The image as its EXIF note says that it is seen; itself, not decoded, where it is upright.

    A damaged note is ignored. Pillow turns TIFF and AVIF files whatever is asked for.
    """
    if image.format not in LAZY:
        image.load()  # PNG's note may follow its pixels, whose damage must not pass for the note's
    try:
        with _without_warnings():
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return image
    if orientation not in TURNS:
        return image
    turned_image = TurnedImage(image, TURNS[orientation])
    if image.format not in LAZY:
        turned_image.load()
    return turned_image


class TurnedImage(Image.Image):
    """An image that is turned once it is decoded, so that a JPEG still decodes at a reduced size.

    Args:
        image: perhaps not yet decoded.
        method: how it is turned.
    """

    def __init__(self, image: Image.Image, method: Image.Transpose):
        super().__init__()
        self._original: Image.Image | None = image
        self._method, self.format = method, image.format
        # The note is obeyed once.
        self.info = {name: x for name, x in image.info.items() if name not in NOTES}
        self._take_size()

    def draft(self, mode: str | None, size: tuple[int, int] | None):
        """Lets a JPEG decode at a fraction of its size, at least `size`: (width, height)."""
        if self._original is None:
            return None
        result = self._original.draft(mode, size[::-1] if size and self._swaps else size)
        self._take_size()
        return result

    def load(self):
        """Decodes the image and turns it upright."""
        if self._original is not None:
            turned_image = self._original.transpose(self._method)
            self._original = None
            self.im, self._mode, self._size = (
                turned_image.im,
                turned_image.mode,
                turned_image.size,
            )
            self.palette = turned_image.palette
        return super().load()

    @property
    def _swaps(self) -> bool:
        return self._method in SWAPPING

    def _take_size(self) -> None:
        size = self._original.size
        self._size, self._mode = size[::-1] if self._swaps else size, self._original.mode
