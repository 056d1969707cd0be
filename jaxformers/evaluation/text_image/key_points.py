"""COCO's object key-point similarity."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

# Deviations of the 17 joints, as COCO measured them: nose, eyes, ears, shoulders, elbows, wrists,
# hips, knees, ankles.
JOINTS = [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07]
DEVIATIONS = np.array([*JOINTS, 0.87, 0.87, 0.89, 0.89]) / 10


def key_point_similarity(
    points: Float[np.ndarray, "17 2"],
    references: Float[np.ndarray, "17 2"],
    visibility: Int[np.ndarray, "17"],
    area: float,
) -> float:
    """The mean of exp(-d^2 / (2 s^2 k^2)) over the labelled joints; 0 where none is.

    Args:
        points: of the answer, x y in pixels.
        references: the truth.
        visibility: of the truth; 0 is not labelled.
        area: of the person, s^2 in square pixels.
    """
    labelled = np.asarray(visibility) > 0
    if not labelled.any():
        return 0.0
    squared = ((np.asarray(points) - np.asarray(references)) ** 2).sum(axis=1)
    exponent = squared / ((2 * DEVIATIONS) ** 2 * 2 * (area + np.spacing(1)))
    return float(np.exp(-exponent)[labelled].mean())
