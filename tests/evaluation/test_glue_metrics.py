import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from jaxformers.data.text.glue import FORMATS
from jaxformers.errors import DataError
from jaxformers.evaluation.glue import GLUE_METRICS, METRICS, metrics_for, scores
from jaxformers.evaluation.published.glue import (
    PUBLISHED_GLUE,
    TEST_COLUMNS,
    published_glue,
    published_table,
)

RNG = np.random.default_rng(0)
CLASSES = ("accuracy", "f1", "matthews")
NUMBERS = ("pearson", "spearman")


def reference(labels, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": 100 * metrics.accuracy_score(labels, predictions),
            "f1": 100 * metrics.f1_score(labels, predictions, zero_division=0),
            "matthews": 100 * metrics.matthews_corrcoef(labels, predictions),
        }


@pytest.mark.parametrize("count", [1, 2, 7, 400])
def test_metrics_of_classes_are_scikit_learns(count):
    for _ in range(5):
        labels, predictions = RNG.integers(0, 2, (2, count))
        result = scores(CLASSES, labels, predictions)
        assert result.values == pytest.approx(reference(labels, predictions), abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([0, 0, 0], [0, 0, 0]), ([1, 1], [1, 1]), ([0, 1, 1], [0, 0, 0]), ([0, 1], [1, 1])],
    ids=["nothing of class 1", "one class", "constant 0", "constant 1"],
)
def test_degenerate_classes_are_scikit_learns_and_noted(labels, predictions):
    labels, predictions = np.array(labels), np.array(predictions)
    result = scores(CLASSES, labels, predictions)
    assert result.values == pytest.approx(reference(labels, predictions), abs=1e-9)
    assert any("matthews is not defined (all" in note for note in result.notes)


def test_accuracy_and_matthews_take_three_classes():
    labels, predictions = RNG.integers(0, 3, (2, 50))
    result = scores(("accuracy", "matthews"), labels, predictions)
    expected = [
        metrics.accuracy_score(labels, predictions),
        metrics.matthews_corrcoef(labels, predictions),
    ]
    assert list(result.values.values()) == pytest.approx([100 * value for value in expected])
    assert not result.notes


def test_correlations_are_scipys():
    labels = RNG.integers(0, 6, 300).astype(np.float32)  # many ties
    predictions = (labels + RNG.normal(0, 2, 300)).astype(np.float32)
    result = scores(NUMBERS, labels, predictions)
    assert result.values["pearson"] == pytest.approx(100 * stats.pearsonr(predictions, labels)[0])
    assert result.values["spearman"] == pytest.approx(100 * stats.spearmanr(predictions, labels)[0])
    assert result.mean == pytest.approx(np.mean(list(result.values.values()))) and not result.notes


@pytest.mark.parametrize(
    ("labels", "predictions", "why"),
    [
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], "all predictions are the same"),
        ([2.0, 2.0, 2.0], [0.1, 0.2, 0.3], "all labels are the same"),
        ([2.0], [0.1], "fewer than two examples"),
        ([1.0, 2.0, 3.0], [0.1, np.nan, 0.3], "predictions are not finite"),
        ([1.0, 2.0, 3.0], [0.1, np.inf, 0.3], "predictions are not finite"),
    ],
)
def test_a_correlation_that_is_not_defined_is_zero_and_noted(labels, predictions, why):
    result = scores(NUMBERS, np.array(labels), np.array(predictions))
    assert result.values == {"pearson": 0.0, "spearman": 0.0}
    assert [f"{name} is not defined ({why}): 0 stands for it" for name in NUMBERS] == result.notes


def test_nothing_to_evaluate_and_unknown_metrics_are_refused():
    with pytest.raises(DataError, match="0 predictions for 0 labels"):
        scores(CLASSES, np.zeros(0), np.zeros(0))
    with pytest.raises(DataError, match="2 predictions for 3 labels"):
        scores(CLASSES, np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="no metric 'acuracy'; did you mean accuracy"):
        scores(("acuracy",), np.zeros(3), np.zeros(3))


def test_every_task_has_its_metrics():
    assert GLUE_METRICS.keys() == FORMATS.keys()
    assert {name for names in GLUE_METRICS.values() for name in names} == set(METRICS)
    assert metrics_for("mrpc", 2) == ("accuracy", "f1")
    assert metrics_for("", 2) == ("accuracy",) and metrics_for("", 1) == NUMBERS


def test_the_papers_averages_are_those_of_its_rows():
    for system in ("BERT base", "BERT large", "OpenAI GPT"):
        row = {(r.task, r.metric): r.value for r in PUBLISHED_GLUE if r.system == system}
        values = [row[column] for column in TEST_COLUMNS]
        # Printed to one digit; the paper counts both sets of MNLI.
        assert np.mean(values) == pytest.approx(row["glue", "score"], abs=0.11)
    assert ("BERT base", 88.9) in [(r.system, r.value) for r in published_glue("mrpc")]


def test_a_tasks_published_results_stand_in_a_table():
    metrics, rows = published_table("mnli", "test")
    assert metrics == ("matched_accuracy", "mismatched_accuracy")
    assert ("BERT large", 86.7, 85.9) in rows and len(rows) == 5
    metrics, rows = published_table("mrpc", "dev")
    assert dict(zip(metrics, rows[-1][1:], strict=True)) == {"accuracy": 84.07, "f1": 88.85}
    assert published_table("ax", "dev") == ((), [])
