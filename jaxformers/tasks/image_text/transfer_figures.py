"""Figures of probes: accuracy against the penalty, and against the number of neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from jaxformers.evaluation.probes.linear_probe import LinearProbe
from jaxformers.evaluation.probes.nearest_neighbours import NeighbourScore


def penalties_figure(probe: LinearProbe) -> Figure:
    """Development accuracy against scikit-learn's C, the inverse penalty; the choice is marked."""
    strengths = [1 / penalty for penalty in probe.search]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    axis.plot(strengths, list(probe.search.values()), marker="o", markersize=4)
    axis.axvline(1 / probe.penalty, color="0.6", linestyle="--", label="chosen")
    axis.set(xscale="log", xlabel="C", ylabel="top-1, development set (%)")
    axis.legend()
    return figure


def neighbours_figure(scores: Mapping[tuple[str, str, int], NeighbourScore]) -> Figure:
    """Test accuracy against K, a line for each distance and kind of vote.

    Args:
        scores: by distance, kind of vote and K.
    """
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    numbers = sorted({number for _, _, number in scores})
    for metric, weights in dict.fromkeys((metric, weights) for metric, weights, _ in scores):
        accuracies = [scores[metric, weights, number].accuracy for number in numbers]
        axis.plot(numbers, accuracies, marker="o", markersize=4, label=f"{metric}, {weights} votes")
    axis.set(xticks=numbers, xlabel="K", ylabel="top-1, test set (%)")
    axis.legend(fontsize=8)
    return figure
