"""The standard error of any metric by a jackknife."""

import math

import numpy as np
import pytest

from jaxformers.evaluation.standard_error import jackknife_error


def test_of_a_mean_it_is_the_usual_standard_error():
    values = np.random.default_rng(0).standard_normal(40)
    error = jackknife_error(lambda chosen: float(values[chosen].mean()), 40, groups=40)
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(40), rel=1e-12)


def test_of_groups_it_estimates_the_same():
    rng = np.random.default_rng(1)
    samples = rng.standard_normal((50, 320))
    errors = [jackknife_error(lambda chosen, v=v: float(v[chosen].mean()), 320) for v in samples]
    assert np.mean(errors) == pytest.approx(1 / math.sqrt(320), rel=0.1)


def test_one_example_has_no_error():
    assert math.isnan(jackknife_error(lambda chosen: 1.0, 1))
