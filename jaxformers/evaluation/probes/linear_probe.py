"""The linear probe of "CLIP" (Radford et al. 2021, appendix A.3)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxformers.errors import DataError
from jaxformers.evaluation.image_metrics import mean_per_class
from jaxformers.evaluation.probes.logistic_regression import (
    LinearClassifier,
    fit_logistic_regression,
    place_rows,
)
from jaxformers.evaluation.probes.standardized_probe import Split

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
    search: dict[float, float]
    """Top-1 of the development rows with every penalty that was tried, the weakest first."""


def clip_linear_probe(
    train: Split, dev: Split, test: Split, *, normalize: bool = False, mesh: Mesh | None = None
) -> LinearProbe:
    """Logistic regression on features as they are, its penalty chosen on `dev`.

    The search tries every 16th of 97 penalties from 1e-6 to 1e6, then both neighbours of the best
    at 8, 4, 2 and 1 steps; of equal accuracies the weakest penalty of the first round is taken. The
    classifier that is evaluated is fitted on `train` and `dev` together.

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
    classifiers: dict[int, LinearClassifier] = {}

    @cache
    def score(index: int) -> float:
        # The solution of the nearest penalty is most of the way to this one's.
        nearest = min(classifiers, key=lambda i: abs(i - index), default=None)
        start = None if nearest is None else classifiers[nearest]
        subset = slice(len(train.labels))
        classifier = fit_logistic_regression(rows, PENALTIES[index], subset, start)
        classifiers[index] = classifier
        return 100 * float(np.mean(classifier.predict(dev.features) == dev.labels))

    coarse = range(0, len(PENALTIES), STRIDES[0])
    for index in reversed(coarse):  # from the strongest on, whose solution is nearest to zero
        score(index)
    best = max(coarse, key=score)
    for stride in STRIDES[1:]:
        neighbours = [i for i in (best - stride, best + stride) if 0 <= i < len(PENALTIES)]
        best = max([best, *neighbours], key=score)
    classifier = fit_logistic_regression(rows, PENALTIES[best], start=classifiers[best])
    predictions = classifier.predict(test.features)
    return LinearProbe(
        100 * float(np.mean(predictions == test.labels)),
        100 * mean_per_class(predictions, test.labels),
        float(PENALTIES[best]),
        score(best),
        {float(PENALTIES[index]): score(index) for index in sorted(classifiers)},
    )


def unit_rows(features: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "B D"]:
    """Rows divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths == 0, 1, lengths)
