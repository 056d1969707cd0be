"""Recall of retrieval."""

import numpy as np
import pytest

from jaxformers.evaluation import retrieval
from jaxformers.evaluation.retrieval import recall_at


def test_any_positive_among_the_first_k_counts(monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 2)
    candidates = np.eye(4)
    queries = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [1, 2, 3, 4]], float)
    positives = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    recall = recall_at(queries, candidates, positives, (1, 2, 3, 4))
    assert recall == pytest.approx({1: 100 / 3, 2: 100 / 3, 3: 200 / 3, 4: 100})


def test_a_tie_counts_against_the_positive():
    recall = recall_at(np.ones((1, 2)), np.ones((3, 2)), np.array([[True, False, False]]), (1, 3))
    assert recall == {1: 0.0, 3: 100.0}
