"""Scores by the number of labelled examples: means over seeds, gains, and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

COLOURS = ("tab:blue", "tab:orange", "tab:gray")


class Gain(NamedTuple):
    """The mean difference of two systems' scores over the seeds that both were run with."""

    mean: float
    error: float
    """Standard error of the mean; NaN of a single seed."""


def gain(first: Sequence[float], second: Sequence[float]) -> Gain:
    """How much higher `first` is than `second`, seed by seed.

    Args:
        first: scores of a system, one a seed.
        second: those of another system, with the same seeds in the same order.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return Gain(statistics.fmean(differences), deviation(differences) / math.sqrt(len(differences)))


def deviation(scores: Sequence[float]) -> float:
    """The standard deviation (n - 1); NaN of a single score."""
    return statistics.stdev(scores) if len(scores) > 1 else math.nan


def label_curve_figure(
    curves: Mapping[str, Mapping[int, Sequence[float]]], metric: str, title: str = ""
) -> Figure:
    """A line a system over the number of labels, with error bars of a standard deviation.

    Args:
        curves: by the system's name, by the number of labelled examples: scores, one a seed.
        metric: what the scores are, with its unit.
        title: of the figure.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=120)
    axes = figure.subplots()
    styles = ("o-", "s--", "^:")
    for number, (system, scores) in enumerate(curves.items()):
        counts = sorted(scores)
        axes.errorbar(
            counts,
            [statistics.fmean(scores[count]) for count in counts],
            # A single seed has no deviation, and an error bar of NaN is not drawn.
            yerr=[deviation(scores[count]) for count in counts],
            fmt=styles[number % len(styles)],
            color=COLOURS[number % len(COLOURS)],
            capsize=4,
            label=system,
        )
    counts = sorted({count for scores in curves.values() for count in scores})
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled examples", ylabel=metric, title=title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure
