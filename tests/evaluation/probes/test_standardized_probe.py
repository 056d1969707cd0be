"""Probes of frozen features, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxformers.errors import DataError
from jaxformers.evaluation.probes.standardized_probe import Split, linear_probe, nearest_neighbours

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 8))


def rows(count, noise=0.8):
    labels = RNG.integers(0, 4, count)
    return Split(CENTRES[labels] + noise * RNG.normal(size=(count, 8)), labels)


TRAIN, DEV, TEST = rows(200), rows(60), rows(80)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_neighbours_vote_as_scikit_learns_by_cosine(number):
    result = nearest_neighbours(TRAIN, DEV, TEST, [number])
    peer = KNeighborsClassifier(number, metric="cosine").fit(*TRAIN)
    order = peer.kneighbors(TEST.features)[1]
    votes = TRAIN.labels[order]
    clear = [np.sort(np.bincount(row, minlength=4))[-2] < np.bincount(row).max() for row in votes]
    ours = [
        nearest_neighbours(TRAIN, DEV, Split(TEST.features[[i]], TEST.labels[[i]]), [number])
        for i in range(len(TEST.labels))
    ]
    theirs = peer.predict(TEST.features) == TEST.labels
    agree = [(probe.accuracy == 100) == same for probe, same in zip(ours, theirs, strict=True)]
    assert all(np.array(agree)[clear]) and sum(clear) > 60
    assert result.accuracy == pytest.approx(np.mean([probe.accuracy for probe in ours]))


def test_of_equally_frequent_classes_the_nearest_wins():
    bank = Split(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), np.array([2, 1, 0]))
    query = Split(np.array([[1.0, 0.0]]), np.array([2]))
    assert nearest_neighbours(bank, query, query, [2]).accuracy == 100


def test_the_number_of_neighbours_is_chosen_on_the_development_rows():
    result = nearest_neighbours(TRAIN, DEV, TEST)
    by_number = {k: nearest_neighbours(TRAIN, DEV, TEST, [k]) for k in (1, 3, 5, 7, 11, 21)}
    assert result == by_number[result.chosen]
    assert result.dev == max(probe.dev for probe in by_number.values())


def test_the_probe_chooses_its_strength_on_development_rows_and_separates_classes():
    result = linear_probe(TRAIN, DEV, TEST, (1e-6, 1.0))
    assert result.chosen == 1.0 and result.accuracy > 80 and result.dev > 80
    shuffled = Split(TEST.features, np.roll(TEST.labels, 1))
    assert linear_probe(TRAIN, DEV, shuffled, (1.0,)).accuracy < 60


def test_the_final_fit_has_the_development_rows_too():
    few = Split(TRAIN.features[:0], TRAIN.labels[:0])
    with pytest.raises(DataError, match="a row in every set"):
        linear_probe(few, DEV, TEST)
    only = Split(CENTRES[:2], np.array([0, 1]))  # no row of classes 2 and 3
    all_classes = Split(CENTRES, np.arange(4))
    assert linear_probe(only, all_classes, all_classes, (100.0,)).accuracy == 100


def test_sets_of_different_widths_are_refused():
    with pytest.raises(DataError, match="one width"):
        nearest_neighbours(TRAIN, DEV, Split(TEST.features[:, :4], TEST.labels))
