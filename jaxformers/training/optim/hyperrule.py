"""BiT-HyperRule: fine-tuning settings from the size of the data alone ("BiT", section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

from jaxformers.training.optim.schedules import Steps

SMALL_AREA = 96 * 96  # pixels; smaller images are resized less
BATCH = 512


class HyperRule(NamedTuple):
    """Fine-tuning settings by BiT-HyperRule."""

    resize: int
    """Side in pixels before the random crop."""
    crop: int
    """Side in pixels of the random crop."""
    steps: int
    """Updates with batches of `BATCH` images."""
    schedule: Steps
    mixup: float
    """Alpha of mixup; 0: no mixup."""


def hyperrule(examples: int, area: int, rows: int = BATCH) -> HyperRule:
    """The rule for a data set of `examples` training images, typically of `area` pixels each.

    Args:
        examples: number of training images.
        area: height times width.
        rows: images in a batch; the learning rate is proportional to it.
    """
    resize, crop = (160, 128) if area < SMALL_AREA else (512, 480)
    peak = 0.003 * rows / BATCH
    if examples < 20_000:
        return HyperRule(resize, crop, 500, Steps(peak, 100, (0.4, 0.6, 0.8)), 0.0)
    steps = 10_000 if examples < 500_000 else 20_000
    return HyperRule(resize, crop, steps, Steps(peak, 500, (0.3, 0.6, 0.9)), 0.1)
