"""Runs that follow another: fine-tuning from what was just pre-trained, one task after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from etils import epath

PREVIOUS = "previous"
PATHS = {"weights": "", "vocabulary": "tokenizer"}
"""Fields of a task that may be "previous", and the path within a run that each then stands for."""


def initialise_from_run(experiment: Any, folder: epath.Path) -> Any:
    """The experiment with the run in `folder` in place of each "previous" of its task."""
    paths = {name: str(folder / path) for name, path in _previous_fields(experiment.task).items()}
    return replace(experiment, task=replace(experiment.task, **paths)) if paths else experiment


def rehearsals(experiments: tuple[Any, ...], previous_task: Any) -> tuple[Any, ...]:
    """Rehearsals of follow-up `experiments`, initialised from the rehearsed `previous_task`."""
    shrunk_experiments = []
    for experiment in experiments:
        shrunk, task = experiment.rehearse(), experiment.task
        # `Task.rehearsal` clears paths to weights; "previous" is one that a rehearsal can follow.
        fields = dict.fromkeys(_previous_fields(task), PREVIOUS)
        # The same kind of model must have the same small shape for the weights to fit. Another
        # kind, such as a ViT after an MAE, is shrunk alike by its own rehearsal.
        if fields and type(previous_task.model) is type(task.model):
            fields["model"] = previous_task.model
        shrunk_experiments.append(replace(shrunk, task=replace(shrunk.task, **fields)))
    return tuple(shrunk_experiments)


def _previous_fields(task: Any) -> dict[str, str]:
    return {name: path for name, path in PATHS.items() if getattr(task, name, None) == PREVIOUS}
