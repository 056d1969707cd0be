"""Boxes x1 y1 x2 y2: overlap, matched boxes, GRIT's localisation score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment


def box_iou(
    boxes: Float[np.ndarray, "N 4"], references: Float[np.ndarray, "M 4"]
) -> Float[np.ndarray, "N M"]:
    """Intersection over union of every box with every reference; 0 where both are empty."""
    boxes, references = np.asarray(boxes, float), np.asarray(references, float)
    low = np.maximum(boxes[:, None, :2], references[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], references[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=-1)  # [N, M]
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=-1) for b in (boxes, references)]
    union = areas[0][:, None] + areas[1][None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def matched_ious(
    boxes: Float[np.ndarray, "N 4"],
    references: Float[np.ndarray, "M 4"],
    labels: Sequence[str] | None = None,
    reference_labels: Sequence[str] | None = None,
) -> Float[np.ndarray, "K"]:
    """Overlaps of the one-to-one pairs that have the greatest sum, labels being equal."""
    ious = box_iou(boxes, references)
    if labels is not None and reference_labels is not None:
        same = np.array([[a == b for b in reference_labels] for a in labels], bool)
        ious = ious * same.reshape(ious.shape)
    rows, columns = linear_sum_assignment(-ious)
    return ious[rows, columns]


def box_f1(
    boxes: Float[np.ndarray, "N 4"],
    references: Float[np.ndarray, "M 4"],
    labels: Sequence[str] | None = None,
    reference_labels: Sequence[str] | None = None,
    threshold: float = 0.5,
) -> float:
    """2 x pairs above `threshold` / all boxes; 1 where there are none on either side."""
    total = len(boxes) + len(references)
    if not total:
        return 1.0
    pairs = matched_ious(boxes, references, labels, reference_labels) >= threshold
    return 2 * float(pairs.sum()) / total


def localisation_score(
    boxes: Float[np.ndarray, "N 4"], references: Float[np.ndarray, "M 4"]
) -> float:
    """GRIT's: the summed overlap of matched boxes over the number of distinct ones."""
    pairs = matched_ious(boxes, references)
    count = len(boxes) + len(references) - np.count_nonzero(pairs)
    return float(pairs.sum() / count) if count else 1.0
