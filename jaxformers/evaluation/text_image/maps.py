"""Maps of a picture: depth, surface normals, segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


def root_mean_square(
    predictions: Float[np.ndarray, "*S"],
    references: Float[np.ndarray, "*S"],
    valid: Bool[np.ndarray, "*S"] | None = None,
) -> float:
    """The root of the mean squared difference over `valid` pixels (None: all)."""
    squared = (np.asarray(predictions, float) - np.asarray(references, float)) ** 2
    return float(np.sqrt((squared if valid is None else squared[valid]).mean()))


def mean_iou(
    masks: Sequence[Bool[np.ndarray, "H W"]], references: Sequence[Bool[np.ndarray, "H W"]]
) -> float:
    """The mean over pairs of masks of intersection over union; two empty masks agree."""
    ious = []
    for mask, reference in zip(masks, references, strict=True):
        union = np.count_nonzero(mask | reference)
        ious.append(np.count_nonzero(mask & reference) / union if union else 1.0)
    return float(np.mean(ious))


def angle_error(
    normals: Float[np.ndarray, "H W 3"],
    references: Float[np.ndarray, "H W 3"],
    valid: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """The mean angle in degrees between normals of any length; a zero vector counts as 90."""
    unit = [
        np.divide(n, length, out=np.zeros_like(n, dtype=float), where=length > 0)
        for n in (np.asarray(normals, float), np.asarray(references, float))
        for length in [np.linalg.norm(n, axis=-1, keepdims=True)]
    ]
    cosine = np.clip((unit[0] * unit[1]).sum(axis=-1), -1, 1)
    angles = np.degrees(np.arccos(cosine))
    return float((angles if valid is None else angles[valid]).mean())
