"""Damaged pictures: an image or one line, never a traceback, a hang or other pixels in silence."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxformers.data.images import Augmentation, ImageFolder, ImageRows, Preprocessing
from jaxformers.errors import DamagedImageError

FORMATS = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", dict(quality=80)),
    "jfif": ("JPEG", dict(quality=90, progressive=True)),
    "webp": ("WEBP", dict(lossless=True)),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {}),
    "tiff": ("TIFF", dict(compression="tiff_lzw")),
    "ppm": ("PPM", {}),
    "avif": ("AVIF", {}),
}
LONGEST = 10.0  # seconds
FORM = Preprocessing(24, 32, "small")


def encoded(ending, rng, size=(67, 51)):
    """A picture of smooth colours."""
    y, x = np.mgrid[: size[1], : size[0]]
    phase = rng.uniform(0, 9, 3)
    waves = [np.sin(x / 7 + phase[k]) + np.cos(y / 5 - phase[k]) for k in range(3)]
    pixels = (127 + 60 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    kind, options = FORMATS[ending]
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def truncated(data, rng):
    """All but the end."""
    return data[: rng.integers(0, len(data))]


def flipped(data, rng):
    """A few other bytes, some of them in the header."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        damaged[rng.integers(0, len(data) if rng.random() < 0.7 else min(64, len(data)))] = (
            rng.integers(0, 256)
        )
    return bytes(damaged)


def overwritten(data, rng):
    """A run of zeros or noise."""
    start, length = rng.integers(0, len(data)), rng.integers(1, 200)
    noise = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return (data[:start] + noise + data[start + length :])[: len(data)]


def repeated(data, rng):
    """A section twice, or bytes after the end."""
    start = rng.integers(0, len(data))
    return data[:start] + data[start // 2 :] if rng.random() < 0.5 else data + rng.bytes(99)


def exploding(data, rng):
    """A small PNG that declares up to gigapixels, with or without the pixels."""
    side = int(rng.choice([9_000, 20_000, 60_000, 2**31 - 1]))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(int(rng.choice([0, 10_000_000]))), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def chunk(kind, body):
    """A chunk of PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


DAMAGES = (truncated, flipped, overwritten, repeated, exploding)


def outcome(path):
    """The pixels of a file, or the line that refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return FORM.pixels(path)[0]
        except DamagedImageError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            return str(error)


def check(path, seed, intact):
    """Checks one damaged file; whether its pixels were read."""
    start = time.process_time()
    pixels = outcome(path)
    assert time.process_time() - start < LONGEST, f"seed {seed}"
    again = outcome(path)
    assert isinstance(again, type(pixels)) and np.array_equal(pixels, again), f"seed {seed}"
    if isinstance(pixels, str):
        return False
    assert pixels.shape == (24, 24, 3)
    if DAMAGES[seed % len(DAMAGES)] is truncated:
        # What is cut off may have been behind the pixels, but no pixel is made up.
        assert np.array_equal(pixels, intact), f"seed {seed}"
    return True


@pytest.mark.slow
@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_pictures_are_read_or_refused_in_a_line(ending, tmp_path, monkeypatch):
    """24 of each of ten formats."""
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    names, intact_file = [], tmp_path / "intact"
    for seed in range(24):
        rng = np.random.default_rng([seed, *ending.encode()])
        data = encoded(ending, rng)
        intact_file.write_bytes(data)
        # Every fourth file has the ending of another format.
        named = ending if seed % 4 else str(rng.choice(list(FORMATS)))
        path = folder / f"{seed:02}.{named}"
        path.write_bytes(DAMAGES[seed % len(DAMAGES)](data, rng))
        if check(path, seed, outcome(intact_file)):
            names.append(path.name)
    assert len(names) <= 18, "the damages are too mild to test anything"
    # What is not left out as damaged is read by training and by evaluation.
    images = ImageFolder(str(tmp_path / "set"), skip_damaged=True).open()
    assert [images.name(k) for k in range(len(images))] == names
    assert images.skipped == 24 - len(names)
    for transform in (FORM, Augmentation(8), Augmentation(60, fast=False)):
        rows = ImageRows(images, transform)
        draws = np.zeros((len(names), transform.draws), np.uint64)
        assert len(rows.gather(np.arange(len(names)), draws)["images"]) == len(names)


def test_a_wrong_ending_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for ending in FORMATS:
        data = encoded(ending, rng)
        results = []
        for named in (ending, "png", "jpg", "gif"):
            path = tmp_path / f"a.{named}"
            path.write_bytes(data)
            results.append(outcome(path))
        assert all(np.array_equal(results[0], result) for result in results)
        assert not isinstance(results[0], str), results[0]
