"""GLUE's metrics, in percent as papers print them, and what was published."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from jaxformers.errors import DataError, did_you_mean

GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "ax": ("matthews",),
}
"""What each task is judged by; its GLUE score is their mean."""

CORRELATIONS = ("pearson", "spearman")


@dataclass(frozen=True)
class Scores:
    """Metrics in percent, and what has to be said of them."""

    values: dict[str, float]
    notes: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The GLUE score of the set: the mean of the metrics."""
        return float(np.mean(list(self.values.values())))


def metrics_for(task: str, labels: int) -> tuple[str, ...]:
    """The metrics of a GLUE task, or those of any other data with so many classes (1: numbers)."""
    if task in GLUE_METRICS:
        return GLUE_METRICS[task]
    return ("pearson", "spearman") if labels == 1 else ("accuracy",)


def scores(names: Sequence[str], labels: np.ndarray, predictions: np.ndarray) -> Scores:
    """The metrics `names` of `predictions` against `labels`.

    accuracy; f1: of class 1; matthews: Matthews' correlation; pearson, spearman: correlations of
    numbers. Where a metric is not defined (constant predictions or labels, fewer than two
    examples, numbers that are not finite) it is 0, as scikit-learn has it for F1 and Matthews,
    and a note says so.

    Raises:
        DataError: nothing to judge, unequal numbers, or a metric that is not known.
    """
    if not len(labels) or len(labels) != len(predictions):
        raise DataError(f"{len(predictions)} predictions for {len(labels)} labels")
    values, notes = {}, []
    for name in names:
        if name not in METRICS:
            known = did_you_mean(name, list(METRICS)) or f"; there are {', '.join(METRICS)}"
            raise DataError(f"there is no metric {name!r}{known}")
        value = 100.0 * _quietly(METRICS[name], labels, predictions)
        problem = _undefined(name, labels, predictions)
        if problem or not np.isfinite(value):
            notes.append(f"{name} is not defined ({problem or 'not finite'}): 0 stands for it")
        values[name] = float(value) if np.isfinite(value) else 0.0
    return Scores(values, notes)


def _undefined(name: str, labels: np.ndarray, predictions: np.ndarray) -> str:
    """Why a metric has no value of its own here; empty if it has one."""
    if not np.isfinite(predictions).all():
        return "predictions are not finite"
    if name == "f1" and not ((labels == 1) | (predictions == 1)).any():
        return "no example of class 1, right or predicted"
    if name in (*CORRELATIONS, "matthews"):
        if len(labels) < 2:
            return "fewer than two examples"
        for said, values in (("labels", labels), ("predictions", predictions)):
            if (values == values[0]).all():
                return f"all {said} are the same"
    return ""


def _quietly(metric: Callable, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The metric without the libraries' warnings; NaN where they refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(metric(labels, predictions))
        except ValueError:
            return float("nan")


METRICS: dict[str, Callable] = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda y, p: sklearn_metrics.f1_score(y == 1, p == 1, zero_division=0.0),
    "matthews": sklearn_metrics.matthews_corrcoef,
    "pearson": lambda y, p: stats.pearsonr(p, y)[0],
    "spearman": lambda y, p: stats.spearmanr(p, y)[0],
}
