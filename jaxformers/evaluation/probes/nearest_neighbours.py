"""k-nearest-neighbour classification, by scikit-learn's `KNeighborsClassifier`.

Its search decides which of rows at equal distance are neighbours, and a tie of votes goes to the
smallest label; so results are scikit-learn's on any features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.neighbors import KNeighborsClassifier

from jaxformers.errors import DataError
from jaxformers.evaluation.image_metrics import mean_per_class
from jaxformers.evaluation.probes.standardized_probe import NEIGHBOURS, Split

Metric = Literal["cosine", "euclidean"]
Weights = Literal["uniform", "distance"]


class NeighbourScore(NamedTuple):
    """A classification's result, in percent."""

    accuracy: float
    mean_per_class: float


def classify_by_neighbours(
    train: Split,
    queries: Float[np.ndarray, "B D"],
    numbers: Sequence[int] = NEIGHBOURS,
    *,
    metric: Metric = "cosine",
    weights: Weights = "uniform",
) -> dict[int, Int[np.ndarray, "B"]]:
    """The class of each query by the vote of its K nearest rows, for each K in `numbers`.

    Args:
        train: rows that vote.
        queries: rows to classify.
        numbers: the values of K.
        metric: cosine distance is `1 - cos`.
        weights: a row's vote is 1, or 1 / distance, where rows at distance 0 outvote all others.

    Raises:
        DataError: sets of different widths, a value that is not finite, or fewer rows than the
            largest K.
    """
    bank = train.features
    if bank.shape[1:] != queries.shape[1:] or not 0 < min(numbers) <= max(numbers) <= len(bank):
        raise DataError(
            f"K of {list(numbers)} among features of shape {bank.shape} for queries of shape "
            f"{queries.shape}: one width, and K from 1 to the number of rows, are due"
        )
    if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
        raise DataError("features hold a value that is not finite: compute them again")
    if not len(queries):
        return dict.fromkeys(numbers, train.labels[:0])
    # A search for each K: of rows at equal distance, which are taken depends on K.
    return {
        number: KNeighborsClassifier(number, metric=metric, weights=weights)
        .fit(bank, train.labels)
        .predict(queries)
        for number in numbers
    }


def neighbour_scores(
    train: Split,
    test: Split,
    numbers: Sequence[int] = NEIGHBOURS,
    *,
    metric: Metric = "cosine",
    weights: Weights = "uniform",
) -> dict[int, NeighbourScore]:
    """Accuracy and mean per class for each K, as `classify_by_neighbours` predicts."""
    predictions = classify_by_neighbours(
        train, test.features, numbers, metric=metric, weights=weights
    )
    return {
        number: NeighbourScore(
            100 * float(np.mean(classes == test.labels)), 100 * mean_per_class(classes, test.labels)
        )
        for number, classes in predictions.items()
    }
