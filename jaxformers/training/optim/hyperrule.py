"""BiT-HyperRule: how to fine-tune, from the size of the data alone ("BiT", section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

from jaxformers.training.optim.schedules import Steps

SMALL_AREA = 96 * 96  # of a picture, in pixels
BATCH = 512


class HyperRule(NamedTuple):
    """What the rule says."""

    resize: int
    """Pixels of a side before the random crop."""
    crop: int
    """Pixels of a side after it."""
    steps: int
    """Updates with batches of `BATCH` pictures."""
    schedule: Steps
    mixup: float
    """Parameter of the mixing; 0: none."""


def hyperrule(examples: int, area: int, rows: int = BATCH) -> HyperRule:
    """The rule for a data set of so many training pictures, typically of `area` pixels each.

    Args:
        examples: training pictures.
        area: height times width.
        rows: pictures in a batch; the rate follows it linearly.
    """
    resize, crop = (160, 128) if area < SMALL_AREA else (512, 480)
    peak = 0.003 * rows / BATCH
    if examples < 20_000:
        return HyperRule(resize, crop, 500, Steps(peak, 100, (0.4, 0.6, 0.8)), 0.0)
    steps = 10_000 if examples < 500_000 else 20_000
    return HyperRule(resize, crop, steps, Steps(peak, 500, (0.3, 0.6, 0.9)), 0.1)
