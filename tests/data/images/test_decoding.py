import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxformers.data.images import decode
from jaxformers.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def message(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error:
            decode(data, "cat.png")
    assert "\n" not in str(error.value) and str(error.value).startswith("cat.png")
    return str(error.value)


def test_colours_come_back_as_they_are():
    for kind in ("PNG", "BMP", "TIFF", "WEBP"):
        options = dict(lossless=True) if kind == "WEBP" else {}
        assert np.array_equal(decode(encoded(Image.fromarray(PIXELS), kind, **options)), PIXELS)


def test_grey_is_repeated_or_kept_and_sixteen_bits_lose_the_lower_eight():
    grey = PIXELS[..., 0]
    data = encoded(Image.fromarray(grey))
    assert np.array_equal(decode(data), np.repeat(grey[..., None], 3, -1))
    assert np.array_equal(decode(data, channels=None), grey[..., None])
    wide = grey.astype(np.uint16) * 256 + 255
    assert np.array_equal(decode(encoded(Image.fromarray(wide)), channels=1)[..., 0], grey)
    bits = encoded(Image.fromarray(grey > 127))
    assert np.array_equal(decode(bits, channels=1)[..., 0], np.where(grey > 127, 255, 0))


def test_transparency_is_dropped_not_laid_on_white():
    alpha = np.dstack([PIXELS, np.full((7, 5), 3, np.uint8)])
    assert np.array_equal(decode(encoded(Image.fromarray(alpha))), PIXELS)
    both = np.stack([PIXELS[..., 0], PIXELS[..., 1]], -1)
    assert np.array_equal(decode(encoded(Image.fromarray(both, "LA")))[..., 2], PIXELS[..., 0])


def test_palettes_and_cmyk_become_colours():
    palette = Image.fromarray(PIXELS).quantize(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, holed = encoded(palette), encoded(palette, transparency=b"\x00\xff\x80\x01")
        assert np.array_equal(decode(plain), np.asarray(palette.convert("RGB")))
        assert np.array_equal(decode(holed), decode(plain))
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0], ink[..., 3] = 255, 55
    picture = decode(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100))
    assert abs(picture.astype(int) - [0, 200, 200]).max() < 8


def test_the_orientation_is_obeyed_only_if_asked():
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    data = encoded(Image.fromarray(PIXELS), exif=exif)
    assert np.array_equal(decode(data), PIXELS)
    assert np.array_equal(decode(data, upright=True), np.rot90(PIXELS, -1))


def test_of_an_animation_the_first_picture_is_taken():
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (200, 30)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == 200).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_damaged_pictures_are_named(kind):
    data = encoded(Image.fromarray(np.tile(PIXELS, (9, 9, 1))), kind)
    assert "does not decode" in message(data[: len(data) * 2 // 3])
    assert "is not a picture" in message(b"")


def test_other_kinds_of_files_are_not_tried():
    assert "is not a picture" in message(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "floating-point" in message(
        encoded(Image.fromarray(PIXELS[..., 0] / np.float32(7)), "TIFF")
    )


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    assert "decompression bomb" in message(data)
