"""What several runs, one after the other, found and come to together."""

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
    """Writes what all runs come to together, where their task can tell; lines that say so."""
    runs = (experiment, *experiment.after)
    results = [(run.task, last_metrics(place)) for run, place in zip(runs, folders, strict=True)]
    found = experiment.task.together(results)
    if found is None:
        return []
    comparison, figure = found
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    replace_file(folders[0] / TOGETHER_PICTURE, picture.getvalue())
    table = section(beside(comparison, experiment.name))
    replace_file(folders[0] / TOGETHER, f"{table}\n\n![]({TOGETHER_PICTURE})\n".encode())
    return [f"all together: {folders[0] / TOGETHER}; picture: {folders[0] / TOGETHER_PICTURE}"]


def last_metrics(folder: epath.Path) -> dict[str, float]:
    """What a run's evaluations found last, by metric."""
    found: dict[str, float] = {}
    for record in read_metrics(folder):
        kept = {k.removeprefix("eval/"): v for k, v in record.items() if k.startswith("eval/")}
        found |= {name: value for name, value in kept.items() if value is not None}
    return found


def last_results(folders: list[epath.Path]) -> list[str]:
    """One line for each run with what its evaluations found last."""
    lines = []
    for folder in folders:
        values = (f"{name} {value:.4g}" for name, value in last_metrics(folder).items())
        lines.append(f"{folder.name}: {', '.join(values)}")
    return lines
