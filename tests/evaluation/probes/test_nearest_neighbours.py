"""Nearest neighbours against scikit-learn's `KNeighborsClassifier`, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxformers.errors import DataError
from jaxformers.evaluation.probes.nearest_neighbours import classify_by_neighbours, neighbour_scores
from jaxformers.evaluation.probes.standardized_probe import NEIGHBOURS, Split

RNG = np.random.default_rng(0)
TRAIN = Split(RNG.normal(size=(160, 6)), RNG.integers(0, 9, 160) * 3)
TEST = Split(RNG.normal(size=(120, 6)), RNG.integers(0, 9, 120) * 3)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def assert_equals_scikit_learns(train, test, metric, weights):
    ours = classify_by_neighbours(train, test.features, metric=metric, weights=weights)
    scores = neighbour_scores(train, test, metric=metric, weights=weights)
    for number in NEIGHBOURS:
        peer = KNeighborsClassifier(number, metric=metric, weights=weights).fit(*train)
        np.testing.assert_array_equal(ours[number], peer.predict(test.features))
        assert scores[number].accuracy == pytest.approx(100 * peer.score(*test))
        correct = ours[number] == test.labels
        by_class = [correct[test.labels == label].mean() for label in np.unique(test.labels)]
        assert scores[number].mean_per_class == pytest.approx(100 * np.mean(by_class))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["distance", "uniform"])
def test_predictions_are_scikit_learns(metric, weights):
    assert_equals_scikit_learns(TRAIN, TEST, metric, weights)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["distance", "uniform"])
@pytest.mark.parametrize("width", [3, 20])
def test_rows_at_equal_distance_are_taken_as_scikit_learn_takes_them(metric, weights, width):
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (260, width)).astype(
        np.float32
    )  # repeated rows, and rows of zeros
    labels = rng.integers(0, 5, 260)
    train, test = Split(features[:160], labels[:160]), Split(features[160:], labels[160:])
    assert_equals_scikit_learns(train, test, metric, weights)


def test_equal_rows_outvote_all_others_by_distance():
    features = np.array([[1.0, 2], [1, 2], [1, 2.1], [1, 2.2], [1, 2.3]])
    train = Split(features, np.array([4, 4, 1, 1, 1]))
    assert classify_by_neighbours(train, features[:1], [5], metric="euclidean")[5] == 1
    votes = classify_by_neighbours(train, features[:1], [5], metric="euclidean", weights="distance")
    assert votes[5] == 4


def test_a_tie_of_votes_goes_to_the_smallest_label():
    train = Split(np.array([[1.0], [2], [3]]), np.array([7, 5, 2]))
    assert classify_by_neighbours(train, np.zeros((1, 1)), [3], metric="euclidean")[3] == 2


def test_faulty_features_are_refused():
    with pytest.raises(DataError, match="K from 1"):
        classify_by_neighbours(TRAIN, TEST.features, [161])
    with pytest.raises(DataError, match="not finite"):
        classify_by_neighbours(TRAIN, TEST.features * np.nan, [1])
