"""Encoded pictures to pixels, with limits, and one line for what does not decode.

Colours are made as torchvision's and TFDS's pipelines make them: transparency is dropped (not laid
on white), palettes are looked up, CMYK goes through Pillow's plain conversion, 16-bit greys keep
their upper eight bits, and of an animation the first frame is taken. The camera's note of its
orientation (EXIF) is ignored for data sets, as those pipelines do, and obeyed for pictures that a
person hands in (`upright`).
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import UInt8
from PIL import AvifImagePlugin, Image, ImageOps, TiffImagePlugin, WebPImagePlugin

from jaxformers.errors import DataError

# What Pillow opens without calling other programs; these three it knows once they are imported.
ADDED = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MOST_PIXELS = 2**27  # 400 MB decoded
WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# `warnings.catch_warnings` is not safe in threads.
_OPENING = threading.Lock()


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one DataError that says `where`."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(where):
            raise
        raise DataError(f"{where}: {error}") from None
    # Decoders raise many kinds of errors on damaged bytes.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{where} does not decode: {reason[:200]}") from error


def opened(data: bytes, where: str) -> Image.Image:
    """The picture in `data`, its size known, its pixels not yet decoded.

    Raises:
        DataError: not a picture in one of `FORMATS`, or of more than `MOST_PIXELS`.
    """
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise DataError(f"{where} is not a picture that can be decoded") from None
    except Image.DecompressionBombError:
        raise DataError(f"{where} {_oversize()}") from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{where} does not decode: {reason[:200]}") from error
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise DataError(f"{where} {_oversize()}: {width:,} x {height:,}")
    return picture


def _oversize() -> str:
    return f"has more than {MOST_PIXELS // 10**6} million pixels, which may be a decompression bomb"


def coloured(picture: Image.Image, channels: int = 3) -> Image.Image:
    """The decoded picture in grey (`channels` 1) or in red, green and blue (3)."""
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == mode:
        picture.load()
        return picture
    if picture.mode in WIDE:
        # Pillow would clip what is above 255.
        values = np.asarray(picture).astype(np.int64)
        values = values >> 8 if picture.mode != "I" or values.max(initial=0) > 255 else values
        picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    return picture.convert(mode)


def pixels(picture: Image.Image, channels: int | None = None) -> UInt8[np.ndarray, "H W C"]:
    """The pixels with `channels` 1 or 3; None: 1 for a grey picture, else 3."""
    grey = picture.mode in ("L", "1", *WIDE)
    array = np.asarray(coloured(picture, channels or (1 if grey else 3)))
    return array[..., None] if array.ndim == 2 else array


def decode(
    data: bytes, where: str = "the picture", *, channels: int | None = 3, upright: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an encoded picture.

    Args:
        data: in one of `FORMATS`.
        where: what messages call it.
        channels: 1 or 3; None: 1 for a grey picture, else 3.
        upright: turn it as its EXIF note says.

    Raises:
        DataError: it does not decode, is truncated, or has too many pixels.
    """
    picture = opened(data, where)
    with decoding(where):
        return pixels(turned(picture) if upright else picture, channels)


def turned(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF note says that it should be seen."""
    return ImageOps.exif_transpose(picture)
