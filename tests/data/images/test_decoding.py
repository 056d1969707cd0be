import io
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxformers.data.files.line_index import Lines
from jaxformers.data.images import AsIs, Augmentation, Preprocessing, decode
from jaxformers.data.images.decoding import opened, turned
from jaxformers.data.images.preprocessing import read_file, read_picture
from jaxformers.data.text.squad import SquadJson
from jaxformers.errors import ConfigError, DataError

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
    grey_alpha = np.stack([PIXELS[..., 0], PIXELS[..., 1]], -1)
    assert np.array_equal(
        decode(encoded(Image.fromarray(grey_alpha, "LA")))[..., 2], PIXELS[..., 0]
    )


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


def sideways(kind, pixels=PIXELS, orientation=6):
    """An encoded image with the note of a quarter turn."""
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(Image.fromarray(pixels), kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_the_orientation_is_obeyed_unless_a_publisher_ignores_it(kind):
    data = sideways(kind, np.tile(PIXELS, (4, 4, 1)))
    ignored = decode(data, upright=False)
    assert ignored.shape == (28, 20, 3)
    assert np.array_equal(decode(data), np.rot90(ignored, -1))
    read = read_picture(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(read), np.rot90(ignored, -1))
    assert np.array_equal(np.asarray(read_picture(read)), np.asarray(read))  # turned once only


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_orientation_is_turned_as_pillow_turns_it(kind, orientation):
    data = sideways(kind, np.tile(PIXELS, (4, 4, 1)), orientation)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = turned(opened(data, "a"))
    assert image.size == expected.size and image.mode == expected.mode
    assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert turned(image).size == expected.size
    # Palettes and reduced sizes are turned too.
    if kind == "PNG":
        exif = Image.Exif()
        exif[274] = orientation
        data = encoded(Image.fromarray(PIXELS).quantize(9), exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        assert np.array_equal(decode(data), np.asarray(expected))
    if kind == "JPEG":
        image = turned(opened(data, "a"))
        image.draft(None, (6, 9))
        assert max(image.size) < 28 and np.asarray(image).shape[:2] == image.size[::-1]


def test_a_jpeg_that_is_upright_is_not_decoded_to_see_it():
    image = opened(encoded(Image.fromarray(PIXELS), "JPEG"), "a.jpg")
    assert turned(image) is image and image.draft(None, (1, 1)) is not None


def test_a_damaged_note_is_ignored_and_damaged_pixels_are_not():
    exif = b"Exif\0\0XX\x00*\0\0\0\x08"
    pixels = np.tile(PIXELS, (9, 9, 1))
    assert decode(encoded(Image.fromarray(pixels), "JPEG", exif=exif)).shape == pixels.shape
    damaged = bytearray(encoded(Image.fromarray(pixels)))
    damaged[len(damaged) // 2] ^= 255
    assert "does not decode" in message(bytes(damaged))


def test_grey_of_fewer_bits_than_sixteen_is_brightened_if_its_bits_are_stated(tmp_path):
    values = np.array([[0, 16, 2048, 4095, 5000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    for bits, expected in ((16, [0, 0, 8, 15, 19]), (12, [0, 1, 128, 255, 255])):
        form = dict(channels=1, grey_bits=bits)
        read = Preprocessing((1, 5), rule="none", mean=(0.5,), std=(0.5,), **form)
        assert read.pixels(tmp_path / "a.png")[0, 0, :, 0].tolist() == expected
        trained = Augmentation((1, 5), crop=AsIs(), flip=0, **form)
        image = trained.picture(Image.open(tmp_path / "a.png"), np.zeros(trained.draws))
        assert image[0, :, 0].tolist() == expected
    with pytest.raises(ConfigError, match="grey_bits is 7; it is a whole number, from 8 to 16"):
        Preprocessing(8, grey_bits=7)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(kind, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        listener.bind("a.png")
        listener.close()
    else:
        path.mkdir()
    readers = (read_file, Lines, SquadJson(str(path)).open)
    for read in (*readers, partial(Preprocessing(8), [path])):
        with pytest.raises(DataError, match=f"a.png.* is a {kind}") as error:
            read(path) if read in (read_file, Lines) else read()
        assert "\n" not in str(error.value)


def test_a_picture_may_come_on_standard_input():
    code = "from jaxformers.data.images.preprocessing import read_file\n"
    code += "print(len(read_file('/dev/stdin')))"
    piped = dict(input=b"x" * 70_000, capture_output=True, timeout=60)
    done = subprocess.run([sys.executable, "-c", code], **piped)
    assert done.stdout.strip() == b"70000"


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="more than 512 MiB"):
        read_file(tmp_path / "a.png")


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
