"""Runs that follow another: fine-tuning from what was just pre-trained, one task after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from etils import epath

PREVIOUS = "previous"
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
