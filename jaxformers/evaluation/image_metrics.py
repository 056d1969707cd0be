"""How often pictures are classified rightly: top-k, mean per class, ReaL, and VTAB's means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxformers.errors import ConfigError, DataError


def top_k(logits: Float[np.ndarray, "B N"], labels: Int[np.ndarray, "B"], k: int = 1) -> float:
    """Share of the rows whose label is among the `k` greatest logits.

    A label counts where fewer than `k` classes score higher, or as high and before it.
    """
    _check(logits, labels)
    own = np.take_along_axis(logits, labels[:, None], 1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    ranks = ((logits > own) | ((logits == own) & before)).sum(1)
    # A label that is no number is not found, whatever the others are.
    return float(((ranks < k) & ~np.isnan(own[:, 0])).mean())


def mean_per_class(
    predictions: Int[np.ndarray, "B"], labels: Int[np.ndarray, "B"], classes: int
) -> float:
    """Mean of each class's accuracy, over the classes that occur: Caltech's, Pets' and Flowers'."""
    _check(predictions, labels)
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predictions == labels], minlength=classes)
    return float((right[counts > 0] / counts[counts > 0]).mean())


def real_accuracy(predictions: Int[np.ndarray, "B"], sets: Sequence[Sequence[int]]) -> float:
    """ReaL: share of the predictions that are in the picture's set; empty sets are skipped.

    Raises:
        DataError: another number of sets, or nothing but empty ones.
    """
    _check(predictions, sets)
    right = [
        prediction in label_set
        for prediction, label_set in zip(predictions.tolist(), sets, strict=True)
        if label_set
    ]
    if not right:
        raise DataError("no picture has a ReaL label")
    return float(np.mean(right))


def classification_metrics(
    logits: Float[np.ndarray, "B N"],
    labels: Int[np.ndarray, "B"],
    sets: Sequence[Sequence[int]] | None = None,
) -> dict[str, float]:
    """`top1`, `top5` (of over five classes), `mean_per_class`, and `real` if `sets` are given."""
    classes, predictions = logits.shape[1], logits.argmax(1)
    metrics = {"top1": top_k(logits, labels)}
    if classes > 5:
        metrics["top5"] = top_k(logits, labels, 5)
    metrics["mean_per_class"] = mean_per_class(predictions, labels, classes)
    return metrics if sets is None else metrics | {"real": real_accuracy(predictions, sets)}


def vtab_means(
    scores: Mapping[str, float], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """`mean` over all tasks, and the mean of each group.

    Args:
        scores: top-1 accuracy by task.
        groups: tasks by group.

    Raises:
        ConfigError: a task's score is missing, for a mean over fewer tasks is not VTAB's.
    """
    tasks = [task for members in groups.values() for task in members]
    if missing := [task for task in tasks if task not in scores]:
        raise ConfigError(f"VTAB's mean needs all {len(tasks)} tasks: {', '.join(missing)} missing")
    means = {name: float(np.mean([scores[t] for t in members])) for name, members in groups.items()}
    return {"mean": float(np.mean([scores[task] for task in tasks]))} | means


def _check(predictions: np.ndarray, labels: Sequence) -> None:
    if len(predictions) != len(labels) or not len(labels):
        raise DataError(f"{len(predictions)} predictions for {len(labels)} labels")
