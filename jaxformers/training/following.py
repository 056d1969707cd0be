"""Runs that follow another: fine-tuning from what was just pre-trained, one task after another."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxformers.training.report import beside
from jaxformers.training.run_files import read_metrics, replace_file
from jaxformers.training.tables import section

PREVIOUS = "previous"
TOGETHER, TOGETHER_PICTURE = "together.md", "together.png"
FROM_IT = {"weights": "", "vocabulary": "tokenizer"}  # a task's field, and where it lies in a run


def begun_from(experiment: Any, folder: epath.Path) -> Any:
    """The experiment with the run in `folder` where its task says "previous"."""
    task = experiment.task
    named = {n: str(folder / p) for n, p in FROM_IT.items() if getattr(task, n, None) == PREVIOUS}
    return replace(experiment, task=replace(task, **named)) if named else experiment


def rehearsals(experiments: tuple[Any, ...], before: Any) -> tuple[Any, ...]:
    """Rehearsals of `experiments` that begin from the rehearsed task `before` where they did."""
    small = []
    for experiment in experiments:
        shrunk, task = experiment.rehearse(), experiment.task
        kept = {n: PREVIOUS for n in FROM_IT if getattr(task, n, None) == PREVIOUS}
        # Another kind of model, such as a ViT after an MAE, shrinks alike by itself.
        if kept and type(before.model) is type(task.model):
            kept |= {"model": before.model}
        small.append(replace(shrunk, task=replace(shrunk.task, **kept)))
    return tuple(small)


def report_together(experiment: Any, folders: list[epath.Path]) -> list[str]:
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


def summary(folders: list[epath.Path]) -> list[str]:
    """One line for each run with what its evaluations found last."""
    lines = []
    for folder in folders:
        values = (f"{name} {value:.4g}" for name, value in last_metrics(folder).items())
        lines.append(f"{folder.name}: {', '.join(values)}")
    return lines
