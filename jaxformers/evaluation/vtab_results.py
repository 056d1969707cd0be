"""VTAB's 19 scores as a mean, as its three groups' means, and as a picture of bars."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from jaxformers.data.images.sources.vtab import GROUPS, TASKS
from jaxformers.evaluation.image_metrics import vtab_means
from jaxformers.evaluation.published.images import published_vtab

COLOURS = {"natural": "tab:green", "specialized": "tab:orange", "structured": "tab:blue"}
Rows = list[tuple[str, tuple[float, ...]]]


def vtab_rows(scores: Mapping[str, float]) -> tuple[tuple[str, ...], Rows, tuple[float, ...]]:
    """Columns, published rows, and our row: the mean, the groups' means, then all tasks.

    Args:
        scores: top-1 accuracy in percent by task.

    Raises:
        ConfigError: a task's score is missing.
    """
    columns = ("mean", *(f"{name} ({len(tasks)})" for name, tasks in GROUPS.items()), *TASKS)

    def row(scores: Mapping[str, float]) -> tuple[float, ...]:
        means = vtab_means(scores, GROUPS)
        return (means["mean"], *(means[name] for name in GROUPS), *(scores[t] for t in TASKS))

    published = [(model, row(each)) for model, each in published_vtab(tuple(TASKS)).items()]
    return columns, published, row(scores)


def vtab_figure(scores: Mapping[str, float], title: str = "VTAB-1k") -> Figure:
    """A bar for the mean, for each group, and for each task, coloured by group."""
    means = vtab_means(scores, GROUPS)
    bars = [("mean", means["mean"], "tab:gray")]
    bars += [(name, means[name], COLOURS[name]) for name in GROUPS]
    bars += [(task, scores[task], COLOURS[form.group]) for task, form in TASKS.items()]
    figure = Figure(figsize=(12, 4.5), layout="constrained", dpi=120)
    axes = figure.subplots()
    x_positions = [i + (i > 3) for i in range(len(bars))]  # a gap between means and tasks
    names, values, colours = zip(*bars, strict=True)
    drawn = axes.bar(x_positions, values, color=colours)
    axes.bar_label(drawn, [f"{value:.1f}" for value in values], fontsize=7)
    axes.set_xticks(x_positions, names, rotation=45, ha="right", fontsize=8)
    axes.set(ylabel="top-1 accuracy (%)", ylim=(0, 105), title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
