import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from jaxformers.data.images.sources.vtab import GROUPS, TASKS
from jaxformers.errors import ConfigError, DataError
from jaxformers.evaluation.image_metrics import (
    classification_metrics,
    mean_per_class,
    real_accuracy,
    top_k,
    vtab_means,
)

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(300, 12)).astype(np.float32), RNG.integers(0, 12, 300)


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_is_scikit_learns(k):
    expected = top_k_accuracy_score(LABELS, LOGITS, k=k, labels=range(12))
    assert top_k(LOGITS, LABELS, k) == pytest.approx(expected)


def test_equal_logits_do_not_count_as_right_for_every_class():
    constant = np.zeros((12, 12), np.float32)
    assert top_k(constant, np.arange(12)) == pytest.approx(1 / 12)
    assert top_k(constant, np.arange(12), 5) == pytest.approx(5 / 12)
    assert top_k(constant * np.nan, np.arange(12), 5) == 0


def test_mean_per_class_is_balanced_accuracy_over_classes_that_occur():
    labels = np.minimum(LABELS, 7)
    predictions = np.where(RNG.random(300) < 0.4, labels, 9)
    expected = balanced_accuracy_score(labels, predictions)
    assert mean_per_class(predictions, labels) == pytest.approx(expected)
    # Classes may be any integers.
    assert mean_per_class(10**9 * predictions - 5, 10**9 * labels - 5) == pytest.approx(expected)


def test_real_takes_any_of_the_labels_and_skips_pictures_without():
    sets = [(1, 2), (), (3,), (0, 5)]
    assert real_accuracy(np.array([2, 9, 4, 0]), sets) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="4 predictions for 3 labels"):
        real_accuracy(np.array([2, 9, 4, 0]), sets[:3])


def test_all_metrics_come_at_once():
    metrics = classification_metrics(LOGITS, LABELS, [(label,) for label in LABELS.tolist()])
    assert set(metrics) == {"top1", "top5", "mean_per_class", "real"}
    assert metrics["real"] == metrics["top1"] < metrics["top5"]
    assert "top5" not in classification_metrics(LOGITS[:, :5], LABELS % 5)


def test_vtabs_mean_is_over_tasks_and_reproduces_the_papers():
    # ViT's table 9, H/14, in its order.
    natural = "95.3 85.5 75.2 99.7 97.2 65.0 88.9"
    specialized_and_structured = "83.3 96.7 91.4 76.6 91.7 63.8 53.1 79.4 63.3 84.5 33.2 51.2"
    row = f"{natural} {specialized_and_structured}"
    means = vtab_means(dict(zip(TASKS, map(float, row.split()), strict=True)), GROUPS)
    assert means["mean"] == pytest.approx(77.6, abs=0.06)
    assert [len(GROUPS[name]) for name in GROUPS] == [7, 4, 8]
    assert means["natural"] == pytest.approx(np.mean([95.3, 85.5, 75.2, 99.7, 97.2, 65, 88.9]))
    with pytest.raises(ConfigError, match="dmlab missing"):
        vtab_means({task: 1.0 for task in TASKS if task != "dmlab"}, GROUPS)
