"""What frozen features are worth: a linear probe, and k nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxformers.errors import DataError

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
NEIGHBOURS = (1, 3, 5, 7, 11, 21)
BLOCK = 2**22  # similarities at once


class Probe(NamedTuple):
    """A probe's result."""

    accuracy: float
    """Top-1 of the test rows, in percent."""
    chosen: float
    """The inverse strength of regularisation, or the number of neighbours, chosen on `dev`."""
    dev: float
    """Top-1 of the development rows with it, in percent."""


class Split(NamedTuple):
    """Features and labels of one set."""

    features: Float[np.ndarray, "B D"]
    labels: Int[np.ndarray, "B"]


def linear_probe(
    train: Split, dev: Split, test: Split, strengths: Sequence[float] = STRENGTHS
) -> Probe:
    """Logistic regression over standardised features.

    The strength of its regularisation is chosen on `dev`; the regression that is evaluated is then
    fitted on `train` and `dev` together, as in "CLIP", appendix A.3.

    Raises:
        DataError: sets of different widths, or an empty one.
    """
    _check(train, dev, test)

    def fitted(strength: float, sets: Sequence[Split]):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        return model.fit(*(np.concatenate(arrays) for arrays in zip(*sets, strict=True)))

    scores = [100 * fitted(each, [train]).score(*dev) for each in strengths]
    best = int(np.argmax(scores))
    final = fitted(strengths[best], [train, dev])
    return Probe(100 * float(final.score(*test)), strengths[best], float(scores[best]))


def nearest_neighbours(
    train: Split, dev: Split, test: Split, numbers: Sequence[int] = NEIGHBOURS
) -> Probe:
    """The most frequent class among the nearest rows of `train` by cosine similarity.

    Their number is chosen on `dev`. Of classes that are equally frequent, the one with the
    nearest row wins.

    Raises:
        DataError: sets of different widths, or an empty one.
    """
    _check(train, dev, test)
    numbers = [number for number in numbers if number <= len(train.labels)]
    scores = [_voted(train, dev, numbers), _voted(train, test, numbers)]
    best = int(np.argmax(scores[0]))
    return Probe(scores[1][best], numbers[best], scores[0][best])


def _voted(train: Split, test: Split, numbers: Sequence[int]) -> list[float]:
    """Accuracy in percent for each number of neighbours."""
    bank, queries = _unit(train.features), _unit(test.features)
    rows, most = max(1, BLOCK // len(bank)), max(numbers)
    right = np.zeros(len(numbers))
    for start in range(0, len(queries), rows):
        similar = queries[start : start + rows] @ bank.T
        order = np.argsort(-similar, axis=1, kind="stable")[:, :most]
        labels = train.labels[order]
        expected = test.labels[start : start + rows]
        for i, number in enumerate(numbers):
            votes = np.array([_most_frequent(row[:number]) for row in labels])
            right[i] += (votes == expected).sum()
    return (100 * right / len(queries)).tolist()


def _most_frequent(labels: Int[np.ndarray, "K"]) -> int:
    """The class that occurs most often; of several the one that comes first."""
    classes, first, counts = np.unique(labels, return_index=True, return_counts=True)
    return int(min(zip(-counts, first, classes, strict=True))[2])


def _unit(features: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "B D"]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, 1e-12)


def _check(*sets: Split) -> None:
    widths = {split.features.shape[1:] for split in sets}
    if len(widths) != 1 or not all(len(split.labels) for split in sets):
        raise DataError(
            f"features of shapes {[split.features.shape for split in sets]}: one width, and a row "
            "in every set, are needed"
        )
