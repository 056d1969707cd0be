"""Perplexity, and the cross-entropy of classes."""

import math

import numpy as np
import pytest

from jaxformers.errors import DataError
from jaxformers.evaluation import mean_cross_entropy, perplexity


def test_perplexity_is_the_exponential_of_the_mean():
    assert perplexity(2 * math.log(8), 2) == pytest.approx(8)
    assert perplexity(1e9, 1) == math.inf
    with pytest.raises(DataError):
        perplexity(0.0, 0)


def test_cross_entropy_is_the_mean_of_minus_log_p_however_large_the_logits_are():
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)) + np.float32([[100], [0]])
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert mean_cross_entropy(logits, np.array([1, 0])) == pytest.approx(expected, rel=1e-4)
    logits[0, 0] = np.nan
    assert math.isnan(mean_cross_entropy(logits, np.array([1, 0])))
