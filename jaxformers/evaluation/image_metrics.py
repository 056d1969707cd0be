"""Metrics of image classifiers: top-k, mean per class, ReaL, several labels, VTAB's means."""

from __future__ import annotations

import math
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


def mean_per_class(predictions: Int[np.ndarray, "B"], labels: Int[np.ndarray, "B"]) -> float:
    """Mean of the classes' accuracies, over the classes that occur among the labels.

    Papers report it of Caltech-101, Pets and Flowers. Classes may be any integers.
    """
    _check(predictions, labels)
    _, codes = np.unique(labels, return_inverse=True)
    correct = np.bincount(codes, weights=predictions == labels)
    return float((correct / np.bincount(codes)).mean())


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
    metrics["mean_per_class"] = mean_per_class(predictions, labels)
    return metrics if sets is None else metrics | {"real": real_accuracy(predictions, sets)}


def multi_label_metrics(
    logits: Float[np.ndarray, "B N"], labels: Int[np.ndarray, "B N"]
) -> dict[str, float]:
    """Metrics of images with any number of labels, by scikit-learn's definitions.

    Args:
        logits: one for each class; above 0 (a probability above one half) a class is predicted.
        labels: 1 for each image's labels, else 0.

    Returns:
        `mean_average_precision` over the classes that occur, `f1_micro` over all decisions,
        `f1_macro` the mean of the classes' (0 for a class that neither occurs nor is predicted),
        `exact_match` the share of images whose labels are all predicted right.

    Raises:
        DataError: another number of rows, or no row.
    """
    _check(logits, labels)
    from sklearn.metrics import average_precision_score, f1_score  # heavy: only where it is needed

    predictions, occurs = (logits > 0).astype(int), labels.any(0)
    precisions = [
        average_precision_score(labels[:, k], np.nan_to_num(logits[:, k]))
        for k in np.flatnonzero(occurs)
    ]
    choices = dict(zero_division=0.0)
    return {
        "mean_average_precision": float(np.mean(precisions)) if precisions else math.nan,
        "f1_micro": float(f1_score(labels, predictions, average="micro", **choices)),
        "f1_macro": float(f1_score(labels, predictions, average="macro", **choices)),
        "exact_match": float((predictions == labels).all(1).mean()),
    }


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
