"""CLIP's linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxformers.errors import DataError
from jaxformers.evaluation.probes.linear_probe import PENALTIES, clip_linear_probe
from jaxformers.evaluation.probes.logistic_regression import fit_logistic_regression, place_rows
from jaxformers.evaluation.probes.standardized_probe import Split
from jaxformers.sharding.mesh import MeshConfig, make_mesh

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(5, 16))


def draw(count, classes=5):
    labels = RNG.integers(0, classes, count)
    features = CENTRES[labels] * 0.6 + RNG.normal(size=(count, 16))
    return Split((features * np.logspace(-1, 0.5, 16) + 1).astype(np.float32), labels)


TRAIN, DEV, TEST = draw(150), draw(53), draw(90)


def peer(split, penalty):
    solver = "newton-cholesky"  # the optimum of lbfgs at the same tolerance, in less time
    regression = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10000, solver=solver)
    return regression.fit(split.features.astype(np.float64), split.labels)


@pytest.mark.parametrize("classes", [2, 5])
def test_weights_are_scikit_learns(classes):
    rows = Split(*draw(203, classes))
    device_rows = place_rows(*rows)
    for penalty in (1e6, 10.0, 1.0, 1e-2):
        ours, theirs = fit_logistic_regression(device_rows, penalty), peer(rows, penalty)
        np.testing.assert_allclose(ours.coefficients, theirs.coef_, atol=1e-3)
        np.testing.assert_allclose(ours.intercepts, theirs.intercept_, atol=1e-3)
        np.testing.assert_array_equal(
            ours.predict(TEST.features), theirs.predict(TEST.features.astype(np.float64))
        )


def test_the_search_and_the_result_are_those_of_scikit_learn_by_hand():
    result = clip_linear_probe(TRAIN, DEV, TEST)
    assert result.penalty in PENALTIES
    chosen = peer(TRAIN, result.penalty)
    assert result.dev_accuracy == pytest.approx(100 * chosen.score(*DEV))
    coarse = [100 * peer(TRAIN, penalty).score(*DEV) for penalty in PENALTIES[::16][2:]]
    assert result.dev_accuracy >= max(coarse)
    assert list(result.search) == sorted(result.search) and set(result.search) <= set(PENALTIES)
    assert [result.search[penalty] for penalty in PENALTIES[::16][2:]] == pytest.approx(coarse)
    assert result.search[result.penalty] == result.dev_accuracy == max(result.search.values())
    train_and_dev = Split(*(np.concatenate(arrays) for arrays in zip(TRAIN, DEV, strict=True)))
    correct = peer(train_and_dev, result.penalty).predict(TEST.features) == TEST.labels
    assert result.accuracy == pytest.approx(100 * correct.mean())
    by_class = [correct[TEST.labels == label].mean() for label in range(5)]
    assert result.mean_per_class == pytest.approx(100 * np.mean(by_class))


def ill_conditioned(classes=7):
    """Rows of overlapping classes, the features' deviations from 0.001 to 1 around a mean of 2."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, 500)
    features = rng.normal(size=(classes, 20))[labels] * 0.3 + rng.normal(size=(500, 20))
    return Split((features * np.logspace(-3, 0, 20) + 2).astype(np.float32), labels - 3)


@pytest.mark.parametrize("start", [False, True])
def test_weights_are_scikit_learns_for_every_penalty(start):
    rows, ours = ill_conditioned(), None
    device_rows = place_rows(*rows)
    for penalty in PENALTIES[::-24]:
        ours = fit_logistic_regression(device_rows, penalty, start=ours if start else None)
        theirs = peer(rows, penalty)
        np.testing.assert_allclose(ours.coefficients, theirs.coef_, atol=1e-3)
        intercepts = theirs.intercept_ - theirs.intercept_.mean()
        np.testing.assert_allclose(ours.intercepts, intercepts, atol=1e-3)


@pytest.mark.slow
def test_a_search_over_a_hundred_classes_ends_in_seconds():
    rng = np.random.default_rng(0)
    labels, centres = rng.permutation(np.arange(2040) % 102), rng.normal(size=(102, 256))
    features = centres[labels] * 0.6 + rng.normal(size=(2040, 256))
    rows = Split((features * np.logspace(-1, 0.3, 256)).astype(np.float32), labels)
    sets = [Split(*(array[k::3] for array in rows)) for k in range(3)]
    start = time.perf_counter()
    result = clip_linear_probe(*sets)
    assert time.perf_counter() - start < 60  # 4 s on two idle cores; by L-BFGS 75 s
    assert result.accuracy > 50


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
def test_sharded_rows_give_the_same_weights():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    rows = draw(203)
    unsharded = fit_logistic_regression(place_rows(*rows), 1.0)
    sharded = fit_logistic_regression(place_rows(*rows, mesh), 1.0)
    np.testing.assert_allclose(sharded.coefficients, unsharded.coefficients, atol=1e-4)


def test_faulty_sets_are_refused():
    with pytest.raises(DataError, match="not finite"):
        place_rows(np.full((2, 3), np.nan, np.float32), np.array([0, 1]))
    with pytest.raises(DataError, match="two classes"):
        fit_logistic_regression(place_rows(np.ones((2, 3), np.float32), np.array([1, 1])), 1.0)
    with pytest.raises(DataError, match="one width"):
        clip_linear_probe(TRAIN, DEV, Split(TEST.features[:, :3], TEST.labels))
