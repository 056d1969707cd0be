"""Runs side by side: what each reached, against the time, the FLOPs and the parameters it took."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from jaxformers.errors import ConfigError, did_you_mean
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.training.reports.markdown import markdown
from jaxformers.training.reports.report import timed
from jaxformers.training.reports.run_files import read_metrics
from jaxformers.training.run_directory import MODEL, is_run, read_experiment

PREFIX = "eval/"


@dataclass(frozen=True)
class Curve:
    """One run's results over its course."""

    name: str
    parameters: int
    minutes: np.ndarray
    """Training time `[n]` at each evaluation, compiling left out."""
    flops: np.ndarray
    """Model FLOPs spent `[n]`; zeros where they are not known."""
    values: np.ndarray
    """The metric `[n]`."""


def compare(folders: epath.PathLike | Sequence[epath.PathLike], metric: str) -> list[Curve]:
    """The runs' curves of one metric of their evaluations.

    Args:
        folders: one finished run's folder, or several.
        metric: such as `dev_top1`.

    Raises:
        ConfigError: no run, or a run without that metric: with those that it has.
    """
    folders = [folders] if isinstance(folders, str | os.PathLike) else folders
    return [_curve(epath.Path(folder), metric) for folder in folders]


def _curve(folder: epath.Path, metric: str) -> Curve:
    if not is_run(folder):
        raise ConfigError(f"{folder} is not a run's folder")
    records = read_metrics(folder)
    metrics = {
        key.removeprefix(PREFIX) for record in records for key in record if key[:5] == PREFIX
    }
    if metric not in metrics:
        hint = did_you_mean(metric, sorted(metrics)) or f"; it has {', '.join(sorted(metrics))}"
        raise ConfigError(f"{folder} has no metric {metric!r}{hint}")
    clock = _clock(records)
    points = {
        record["step"]: record[PREFIX + metric] for record in records if PREFIX + metric in record
    }
    steps = np.array(list(points), float)
    values = [np.nan if value is None else value for value in points.values()]
    curves = (np.interp(steps, *clock[[0, row]]) for row in (1, 2))
    name = read_experiment(folder).name
    return Curve(name, _parameters(folder), *curves, np.array(values, float))


def _clock(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Rows of steps, minutes and FLOPs, each from the run's start: `[3, n]`."""
    points = [(0.0, 0.0, 0.0)]
    for record, seconds in timed(records):
        _, minutes, flops = points[-1]
        spent = seconds * (record.get("flops/s") or 0.0)
        points.append((record["step"], minutes + seconds / 60, flops + spent))
    return np.array(points).T


def _parameters(folder: epath.Path) -> int:
    """Numbers in the exported weights, buffers such as running statistics left out."""
    shapes = safetensors_folder.Tensors(folder / MODEL).shapes
    return sum(
        int(np.prod(shape)) for name, shape in shapes.items() if not name.startswith("batch_stats")
    )


def table(curves: Sequence[Curve], metric: str) -> str:
    """The runs' last and best values and what they took, as a Markdown table."""
    columns = ("run", metric, "best", "minutes", "FLOPs", "parameters")
    rows = [
        (
            curve.name,
            f"{curve.values[-1]:.2f}",
            f"{np.nanmax(curve.values):.2f}",
            f"{curve.minutes[-1]:.1f}",
            f"{curve.flops[-1]:.2g}",
            f"{curve.parameters:,}",
        )
        for curve in curves
    ]
    return markdown(columns, rows, aligned=True)


def figure(curves: Sequence[Curve], metric: str) -> Figure:
    """The metric against minutes, against FLOPs, and at the end against parameters."""
    drawn = Figure(figsize=(13, 4.5), layout="constrained", dpi=120)
    time, flops, size = drawn.subplots(1, 3, sharey=True)
    for number, curve in enumerate(curves):
        colour = dict(color=f"C{number}", label=curve.name)
        time.plot(curve.minutes, curve.values, "o-", markersize=4, **colour)
        flops.plot(curve.flops, curve.values, "o-", markersize=4, **colour)
        size.plot(curve.parameters, curve.values[-1], "o", markersize=9, **colour)
    time.set(xlabel="training time (minutes)", ylabel=metric)
    flops.set(xlabel="training FLOPs")
    size.set(xlabel="parameters", xscale="log")
    size.legend(frameon=False, loc="lower right")
    for axes in (time, flops, size):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return drawn
