"""The linear probe of "CLIP" (Radford et al. 2021, appendix A.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jaxformers.errors import DataError
from jaxformers.evaluation.logistic_regression import fit_logistic_regression, place_rows
from jaxformers.evaluation.nearest_neighbours import unit_rows
from jaxformers.evaluation.probe import Split

PENALTIES = np.logspace(-6, 6, 97)
STRIDES = (16, 8, 4, 2, 1)


class LinearProbe(NamedTuple):
    """The result of a linear probe, in percent."""

    accuracy: float
    """Top-1 of the test rows."""
    mean_per_class: float
    """The mean of the test classes' accuracies: the paper's measure of Flowers, Pets, Caltech."""
    penalty: float
    """The penalty chosen on the development rows; scikit-learn's `C` is its inverse."""
    dev_accuracy: float
    """Top-1 of the development rows with it."""


def clip_linear_probe(
    train: Split, dev: Split, test: Split, *, normalize: bool = False, mesh: Mesh | None = None
) -> LinearProbe:
    """Logistic regression on features as they are, its penalty chosen on `dev`.

    The search tries every 16th of 97 penalties from 1e-6 to 1e6, then both neighbours of the best
    at 8, 4, 2 and 1 steps; of equal accuracies the first tried is taken. The classifier that is
    evaluated is fitted on `train` and `dev` together.

    Args:
        train: rows to fit.
        dev: rows to choose the penalty by.
        test: rows to evaluate.
        normalize: scale each row to unit length first.
        mesh: features lie with rows over its `data` and `fsdp` axes.

    Raises:
        DataError: sets of different widths, an empty one, or a value that is not finite.
    """
    widths = {split.features.shape[1:] for split in (train, dev, test)}
    if len(widths) != 1 or not all(len(split.labels) for split in (train, dev, test)):
        shapes = [split.features.shape for split in (train, dev, test)]
        raise DataError(f"features of shapes {shapes}: one width, and a row in every set, are due")
    if normalize:
        train, dev, test = (Split(unit_rows(features), y) for features, y in (train, dev, test))
    features, labels = (np.concatenate(arrays) for arrays in zip(train, dev, strict=True))
    rows = place_rows(features, labels, mesh)
    scores: dict[int, float] = {}

    def score(index: int) -> float:
        if index not in scores:
            subset = slice(len(train.labels))
            classifier = fit_logistic_regression(rows, PENALTIES[index], subset)
            scores[index] = 100 * float(np.mean(classifier.predict(dev.features) == dev.labels))
        return scores[index]

    best = max(range(0, len(PENALTIES), STRIDES[0]), key=score)
    for stride in STRIDES[1:]:
        neighbours = [i for i in (best - stride, best + stride) if 0 <= i < len(PENALTIES)]
        best = max([best, *neighbours], key=score)
    predictions = fit_logistic_regression(rows, PENALTIES[best]).predict(test.features)
    correct = predictions == test.labels
    return LinearProbe(
        100 * float(correct.mean()),
        100 * _mean_per_class(correct, test.labels),
        float(PENALTIES[best]),
        scores[best],
    )


def _mean_per_class(correct: np.ndarray, labels: Int[np.ndarray, "B"]) -> float:
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))
