"""Training pictures a second of one core, ours beside a plain Pillow loop, in one run.

    python benchmarks/images.py --turns 5

Both decode JPEGs (made here: 500 x 375, as ImageNet's photographs are on average, then 1600 x
1200), cut a part of random area, resize it to 224 x 224, bilinear and antialiased, flip half of
them, and fill a uint8 batch. Ours in three ways: `fast`, as training runs, which decodes a JPEG at
a fraction of its size where the part is large, so that pixels differ by about a grey level; exact;
and with RandAugment as MAE is fine-tuned. Below, small pictures that are held in memory. What
counts is the processor time, of all threads, so that other work on the machine does not show.
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
    """A JPEG whose detail falls off with frequency as photographs' does."""
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
    """The loop that anybody would write first."""
    batch = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
    for row in range(BATCH):
        picture = Image.open(random.choice(files)).convert("RGB")
        part = picture.crop(crop.box(picture.size, rng.random(crop.draws)))
        part = part.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        batch[row] = np.asarray(part)
    return batch


def our_batches(source, augmentation: Augmentation) -> Callable[[int], object]:
    """Batches of `source` by their step."""
    rows = ImageRows(source.open(), augmentation, threads=1)
    plan = ImagePlan(rows, BATCH)
    return lambda step: plan.batch(rows, 0, step)


def rate(make: Callable[[int], object], steps: range) -> float:
    """Pictures a second of processor time."""
    start = time.process_time()
    for step in steps:
        make(step)
    return BATCH * len(steps) / (time.process_time() - start)


def measure(ways: dict[str, Callable[[int], object]], turns: int, steps: int) -> dict[str, float]:
    """The median rate of each way; they take turns."""
    found = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, make in ways.items():
            found[name].append(rate(make, range(turn * steps, (turn + 1) * steps)))
    return {name: statistics.median(each[1:]) for name, each in found.items()}  # the first warms up


def photographs(size: tuple[int, int], turns: int, steps: int) -> dict[str, float]:
    """Rates on JPEG files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").mkdir()
        files = [folder / "a" / f"{k}.jpg" for k in range(16)]
        for seed, file in enumerate(files):
            file.write_bytes(photograph(seed, *size))
        kilobytes = np.mean([file.stat().st_size for file in files]) / 1e3
        print(f"{size[0]} x {size[1]}, {kilobytes:.0f} kB a picture")
        return measure(photograph_ways(folder, files), turns, steps)


def photograph_ways(folder: Path, files: list[Path]) -> dict[str, Callable[[int], object]]:
    """The peer and ours."""
    crop, rng, source = InceptionCrop(AREA), np.random.default_rng(0), ImageFolder(str(folder))
    ours = Augmentation(SIDE, 3, crop)
    return {
        "plain Pillow loop": lambda step: plain_batch(files, crop, rng),
        "ours, fast": our_batches(source, ours),
        "ours, exact": our_batches(source, replace(ours, fast=False)),
        "ours, fast, RandAugment": our_batches(source, replace(ours, distortions=RandAugment())),
    }


def small_pictures(turns: int, steps: int) -> dict[str, float]:
    """Rates on 28 x 28 pictures in memory, padded crop and flip."""
    images = BundledFashionMnist().open().images
    crop, rng = PaddedCrop(2), np.random.default_rng(0)

    def plain(step: int) -> np.ndarray:
        rows = []
        for row in rng.integers(0, len(images), BATCH):
            padded = np.pad(images[row, ..., 0], crop.padding)
            top, left = rng.integers(0, 2 * crop.padding + 1, 2)
            part = padded[top : top + 28, left : left + 28]
            rows.append(part[:, ::-1] if rng.random() < 0.5 else part)
        return np.stack(rows)

    ours = our_batches(BundledFashionMnist(), Augmentation(28, 1, crop))
    return measure({"small, plain NumPy loop": plain, "small, ours": ours}, turns, steps)


def main() -> None:
    """Measure and print."""
    parser = frame.parser(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="batches of 64 in each turn")
    options = parser.parse_args()
    found = {}
    for width, height in ((500, 375), (1600, 1200)):
        rates = photographs((width, height), options.turns, options.steps)
        for name, value in rates.items():
            times = value / rates["plain Pillow loop"]
            print(f"{name:26} {value:9,.0f} pictures/s a core   {times:.2f}x")
        found[f"{width} x {height}"] = rates
    small = small_pictures(options.turns, 10 * options.steps)
    for name, value in small.items():
        print(f"{name:26} {value:9,.0f} pictures/s a core")
    frame.keep(options.json, found | {"small": small})


if __name__ == "__main__":
    main()
