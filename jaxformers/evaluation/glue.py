"""GLUE's metrics, in percent as papers print them, and what was published."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

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
"""The metric of each task; its GLUE score is their mean."""

METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman")
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
        DataError: nothing to evaluate, unequal numbers, or a metric that is not known.
    """
    if not len(labels) or len(labels) != len(predictions):
        raise DataError(f"{len(predictions)} predictions for {len(labels)} labels")
    values, notes = {}, []
    for name in names:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS) or f"; there are {', '.join(METRICS)}"
            raise DataError(f"there is no metric {name!r}{hint}")
        value = 100.0 * _quietly(name, labels, predictions)
        problem = _undefined(name, labels, predictions)
        defined = not problem and np.isfinite(value)
        if not defined:
            notes.append(f"{name} is not defined ({problem or 'not finite'}): 0 stands for it")
        values[name] = float(value) if defined else 0.0
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
        for kind, values in (("labels", labels), ("predictions", predictions)):
            if (values == values[0]).all():
                return f"all {kind} are the same"
    return ""


def _quietly(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """The metric without the libraries' warnings; NaN where they refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(_metric(name, labels, predictions))
        except ValueError:
            return float("nan")


def _metric(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    # Imported where they are needed: they take every command half a second.
    from scipy import stats
    from sklearn import metrics

    match name:
        case "accuracy":
            return metrics.accuracy_score(labels, predictions)
        case "f1":
            return metrics.f1_score(labels == 1, predictions == 1, zero_division=0.0)
        case "matthews":
            return metrics.matthews_corrcoef(labels, predictions)
        case "pearson":
            return stats.pearsonr(predictions, labels)[0]
        case _:
            return stats.spearmanr(predictions, labels)[0]
