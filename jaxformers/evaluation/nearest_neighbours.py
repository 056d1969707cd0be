"""k-nearest-neighbour classification as scikit-learn's `KNeighborsClassifier` does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxformers.errors import DataError
from jaxformers.evaluation.probe import NEIGHBOURS, Split

QUERY_BLOCK = 256
BANK_BLOCK = 2**15
SLACK = 16  # further candidates of the matrix product, whose distances are then computed exactly


class NeighbourScore(NamedTuple):
    """A classification's result, in percent."""

    accuracy: float
    mean_per_class: float


def classify_by_neighbours(
    train: Split,
    queries: Float[np.ndarray, "B D"],
    numbers: Sequence[int] = NEIGHBOURS,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    weights: Literal["uniform", "distance"] = "uniform",
    ties: Literal["smallest_label", "nearest_row"] = "smallest_label",
) -> dict[int, Int[np.ndarray, "B"]]:
    """The class of each query by the vote of its K nearest rows, for each K in `numbers`.

    Args:
        train: rows that vote. Of rows at one distance the earlier is the nearer.
        queries: rows to classify.
        numbers: the values of K.
        metric: cosine distance is `1 - cos`.
        weights: a row's vote is 1, or 1 / distance, where rows at distance 0 outvote all others.
        ties: of classes with equal votes the smallest label wins (scikit-learn's rule), or the
            class of the nearest row.

    Raises:
        DataError: sets of different widths, or fewer rows than the largest K.
    """
    bank = np.asarray(train.features, np.float64)
    queries = np.asarray(queries, np.float64)
    if bank.shape[1:] != queries.shape[1:] or not 0 < min(numbers) <= max(numbers) <= len(bank):
        raise DataError(
            f"K of {list(numbers)} among features of shape {bank.shape} for queries of shape "
            f"{queries.shape}: one width, and K from 1 to the number of rows, are due"
        )
    if metric == "cosine":
        bank, queries = unit_rows(bank), unit_rows(queries)
    classes, codes = np.unique(train.labels, return_inverse=True)
    predictions = {number: np.empty(len(queries), classes.dtype) for number in numbers}
    for start in range(0, len(queries), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        indices, distances = _nearest(bank, queries[block], max(numbers), metric)
        votes = np.ones_like(distances) if weights == "uniform" else _inverse(distances)
        for number in numbers:
            winners = _winners(codes[indices[:, :number]], votes[:, :number], len(classes), ties)
            predictions[number][block] = classes[winners]
    return predictions


def neighbour_scores(
    train: Split, test: Split, numbers: Sequence[int] = NEIGHBOURS, **options: str
) -> dict[int, NeighbourScore]:
    """Accuracy and mean per class for each K; `options` are `classify_by_neighbours`'s."""
    scores = {}
    for number, predictions in classify_by_neighbours(
        train, test.features, numbers, **options
    ).items():
        correct = predictions == test.labels
        by_class = [correct[test.labels == label].mean() for label in np.unique(test.labels)]
        scores[number] = NeighbourScore(100 * float(correct.mean()), 100 * float(np.mean(by_class)))
    return scores


def _nearest(bank, queries, number: int, metric: str):
    """Indices and distances `[B, number]` of the nearest rows, by (distance, index)."""
    best = np.empty((len(queries), 0))
    candidates = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(bank), BANK_BLOCK):
        rows = bank[start : start + BANK_BLOCK]
        similarity = 2 * queries @ rows.T
        if metric == "euclidean":
            similarity -= (rows**2).sum(axis=1)
        index = np.broadcast_to(np.arange(start, start + len(rows)), similarity.shape)
        best = np.concatenate([best, similarity], axis=1)
        candidates = np.concatenate([candidates, index], axis=1)
        if best.shape[1] > number + SLACK:
            top = np.argpartition(-best, number + SLACK - 1, axis=1)[:, : number + SLACK]
            best, candidates = (np.take_along_axis(a, top, axis=1) for a in (best, candidates))
    candidates = np.sort(candidates, axis=1)
    distances = _distances(bank, queries, candidates, metric)
    order = np.argsort(distances, axis=1, kind="stable")[:, :number]
    return tuple(np.take_along_axis(a, order, axis=1) for a in (candidates, distances))


def _distances(bank, queries, candidates, metric: str) -> Float[np.ndarray, "B C"]:
    """Exact distances: zero between equal rows, which a matrix product does not give."""
    distances = np.empty(candidates.shape)
    for row, (query, indices) in enumerate(zip(queries, candidates, strict=True)):
        squares = ((bank[indices] - query) ** 2).sum(axis=1)
        if metric == "euclidean":
            distances[row] = np.sqrt(squares)
        else:  # |x - y|^2 / 2 = 1 - cos on unit rows; a row of zeros is at distance 1
            zero = ~query.any() | ~bank[indices].any(axis=1)
            distances[row] = np.where(zero, 1, squares / 2)
    return distances


def _inverse(distances: Float[np.ndarray, "B K"]) -> Float[np.ndarray, "B K"]:
    zero = distances == 0
    inverse = 1 / np.where(zero, 1, distances)
    return np.where(zero.any(axis=1, keepdims=True), zero, inverse)


def _winners(labels, votes, classes: int, ties: str) -> Int[np.ndarray, "B"]:
    totals = np.zeros((len(labels), classes))
    np.add.at(totals, (np.arange(len(labels))[:, None], labels), votes)
    if ties == "smallest_label":
        return totals.argmax(axis=1)
    winning = np.take_along_axis(totals, labels, axis=1) == totals.max(axis=1, keepdims=True)
    return np.take_along_axis(labels, winning.argmax(axis=1)[:, None], axis=1)[:, 0]


def unit_rows(features: Float[np.ndarray, "B D"]) -> Float[np.ndarray, "B D"]:
    """Rows divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths == 0, 1, lengths)
