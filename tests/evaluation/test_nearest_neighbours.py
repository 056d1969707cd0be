"""Nearest neighbours against scikit-learn's `KNeighborsClassifier`, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxformers.errors import DataError
from jaxformers.evaluation import nearest_neighbours
from jaxformers.evaluation.nearest_neighbours import classify_by_neighbours, neighbour_scores
from jaxformers.evaluation.probe import NEIGHBOURS, Split

RNG = np.random.default_rng(0)
TRAIN = Split(RNG.normal(size=(160, 6)), RNG.integers(0, 9, 160) * 3)
TEST = Split(RNG.normal(size=(120, 6)), RNG.integers(0, 9, 120) * 3)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_votes_are_scikit_learns(metric, weights, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "BANK_BLOCK", 50)
    monkeypatch.setattr(nearest_neighbours, "QUERY_BLOCK", 37)
    ours = classify_by_neighbours(TRAIN, TEST.features, metric=metric, weights=weights)
    scores = neighbour_scores(TRAIN, TEST, metric=metric, weights=weights)
    for number in NEIGHBOURS:
        peer = KNeighborsClassifier(number, metric=metric, weights=weights).fit(*TRAIN)
        np.testing.assert_array_equal(ours[number], peer.predict(TEST.features))
        assert scores[number].accuracy == pytest.approx(100 * peer.score(*TEST))


def test_equal_rows_outvote_all_others_by_distance():
    features = np.array([[1.0, 2], [1, 2], [1, 2.1], [1, 2.2], [1, 2.3]])
    train = Split(features, np.array([4, 4, 1, 1, 1]))
    for metric in ("cosine", "euclidean"):
        assert classify_by_neighbours(train, features[:1], [5], metric=metric)[5] == 1
        votes = classify_by_neighbours(train, features[:1], [5], metric=metric, weights="distance")
        assert votes[5] == 4


def test_a_tie_goes_to_the_smallest_label_or_to_the_nearest_row():
    train = Split(np.array([[1.0], [2], [3]]), np.array([7, 5, 2]))
    query = np.zeros((1, 1))
    smallest = classify_by_neighbours(train, query, [3], metric="euclidean")
    nearest = classify_by_neighbours(train, query, [3], metric="euclidean", ties="nearest_row")
    assert (smallest[3], nearest[3]) == (2, 7)


def test_more_neighbours_than_rows_are_refused():
    with pytest.raises(DataError, match="K from 1"):
        classify_by_neighbours(TRAIN, TEST.features, [161])
