"""Benchmarks the training image pipeline on one core against a plain Pillow loop.

    python benchmarks/images.py --turns 5

Both decode synthetic JPEGs (500 x 375, the average size in ImageNet, and 1600 x 1200), take a crop
of random area, resize it to 224 x 224 with antialiased bilinear interpolation, flip it with
probability 0.5, and fill a uint8 batch. Ours is measured in three settings: `fast`, the default of
training, which decodes a JPEG at reduced resolution if the crop is large, so that pixels differ by
about one grey level; exact; and fast with RandAugment, as in MAE fine-tuning. The last rows are for
small images in memory. Times are processor times of all threads, so that other programs on the
machine do not count.
"""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import frame
import numpy as np
from PIL import Image

from jaxformers.data import (
    Augmentation,
    BundledFashionMnist,
    ImageFolder,
    ImagePlan,
    ImageRows,
    InceptionCrop,
    PaddedCrop,
    RandAugment,
)

BATCH, SIDE, AREA = 64, 224, (0.08, 1.0)


def photograph(seed: int, width: int, height: int) -> bytes:
    """A random JPEG with the 1/f spectrum of natural images."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1e-3
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / frequency
    waves = np.fft.irfft2(spectrum, (height, width))
    waves = 128 + 55 * waves / waves.std((1, 2), keepdims=True)
    stream = io.BytesIO()
    pixels = np.clip(waves, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def plain_batch(files: list[Path], crop: InceptionCrop, rng: np.random.Generator) -> np.ndarray:
    """A straightforward Pillow loop, the baseline."""
    batch = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
    for row in range(BATCH):
        picture = Image.open(random.choice(files)).convert("RGB")
        cropped = picture.crop(crop.box(picture.size, rng.random(crop.draws)))
        cropped = cropped.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        batch[row] = np.asarray(cropped)
    return batch


def our_batches(source, augmentation: Augmentation) -> Callable[[int], object]:
    """A function that returns our batch of `source` for a step."""
    rows = ImageRows(source.open(), augmentation, threads=1)
    plan = ImagePlan(rows, BATCH)
    return lambda step: plan.batch(rows, 0, step)


def rate(load: Callable[[int], object], steps: range) -> float:
    """Images per second of processor time."""
    start = time.process_time()
    for step in steps:
        load(step)
    return BATCH * len(steps) / (time.process_time() - start)


def measure(
    loaders: dict[str, Callable[[int], object]], turns: int, steps: int
) -> dict[str, float]:
    """Median rate of each loader; the loaders alternate."""
    rates = {name: [] for name in loaders}
    for turn in range(turns + 1):
        for name, load in loaders.items():
            rates[name].append(rate(load, range(turn * steps, (turn + 1) * steps)))
    # The first turn is a warm-up.
    return {name: statistics.median(samples[1:]) for name, samples in rates.items()}


def photographs(size: tuple[int, int], turns: int, steps: int) -> dict[str, float]:
    """Rates on JPEG files of one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        files = [folder / "a" / f"{k}.jpg" for k in range(16)]
        for seed, file in enumerate(files):
            file.write_bytes(photograph(seed, *size))
        kilobytes = np.mean([file.stat().st_size for file in files]) / 1e3
        print(f"{size[0]} x {size[1]}, {kilobytes:.0f} kB a picture")
        return measure(photograph_loaders(folder, files), turns, steps)


def photograph_loaders(folder: Path, files: list[Path]) -> dict[str, Callable[[int], object]]:
    """The baseline and our settings."""
    crop, rng, source = InceptionCrop(AREA), np.random.default_rng(0), ImageFolder(str(folder))
    ours = Augmentation(SIDE, 3, crop)
    return {
        "plain Pillow loop": lambda step: plain_batch(files, crop, rng),
        "ours, fast": our_batches(source, ours),
        "ours, exact": our_batches(source, replace(ours, fast=False)),
        "ours, fast, RandAugment": our_batches(source, replace(ours, distortions=RandAugment())),
    }


def small_pictures(turns: int, steps: int) -> dict[str, float]:
    """Rates on 28 x 28 images in memory, with padded crop and flip."""
    images = BundledFashionMnist().open().images
    crop, rng = PaddedCrop(2), np.random.default_rng(0)

    def plain(step: int) -> np.ndarray:
        rows = []
        for row in rng.integers(0, len(images), BATCH):
            padded = np.pad(images[row, ..., 0], crop.padding)
            top, left = rng.integers(0, 2 * crop.padding + 1, 2)
            cropped = padded[top : top + 28, left : left + 28]
            rows.append(cropped[:, ::-1] if rng.random() < 0.5 else cropped)
        return np.stack(rows)

    ours = our_batches(BundledFashionMnist(), Augmentation(28, 1, crop))
    return measure({"small, plain NumPy loop": plain, "small, ours": ours}, turns, steps)


def main() -> None:
    """Prints and saves the rates of all loaders."""
    parser = frame.parser(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="batches of 64 in each turn")
    options = parser.parse_args()
    results = {}
    for width, height in ((500, 375), (1600, 1200)):
        rates = photographs((width, height), options.turns, options.steps)
        for name, value in rates.items():
            speedup = value / rates["plain Pillow loop"]
            print(f"{name:26} {value:9,.0f} pictures/s a core   {speedup:.2f}x")
        results[f"{width} x {height}"] = rates
    small = small_pictures(options.turns, 10 * options.steps)
    for name, value in small.items():
        print(f"{name:26} {value:9,.0f} pictures/s a core")
    frame.keep(options.json, results | {"small": small})


if __name__ == "__main__":
    main()
