"""Results of a run and its follow-up runs: a line for each, and one combined report."""

from __future__ import annotations

import io
from typing import Any

from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxformers.training.reports.markdown import section
from jaxformers.training.reports.report import beside
from jaxformers.training.reports.run_files import read_metrics, replace_file

TOGETHER, TOGETHER_PICTURE = "together.md", "together.png"


def write_multi_run_report(experiment: Any, folders: list[epath.Path]) -> list[str]:
    """Writes `together.md` and its figure where the task combines results; returns log lines."""
    runs = (experiment, *experiment.after)
    results = [(run.task, last_metrics(folder)) for run, folder in zip(runs, folders, strict=True)]
    combined = experiment.task.together(results)
    if combined is None:
        return []
    comparison, figure = combined
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    replace_file(folders[0] / TOGETHER_PICTURE, picture.getvalue())
    table = section(beside(comparison, experiment.name))
    replace_file(folders[0] / TOGETHER, f"{table}\n\n![]({TOGETHER_PICTURE})\n".encode())
    return [f"all together: {folders[0] / TOGETHER}; picture: {folders[0] / TOGETHER_PICTURE}"]


def last_metrics(folder: epath.Path) -> dict[str, float]:
    """The latest value of each evaluation metric in a run's log."""
    latest: dict[str, float] = {}
    for record in read_metrics(folder):
        metrics = {k.removeprefix("eval/"): v for k, v in record.items() if k.startswith("eval/")}
        latest |= {name: value for name, value in metrics.items() if value is not None}
    return latest


def last_results(folders: list[epath.Path]) -> list[str]:
    """One line for each run with its latest evaluation metrics."""
    lines = []
    for folder in folders:
        values = (f"{name} {value:.4g}" for name, value in last_metrics(folder).items())
        lines.append(f"{folder.name}: {', '.join(values) or 'no metrics'}")
    return lines
