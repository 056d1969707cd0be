"""Runs that follow another: fine-tuning from what was just pre-trained, one task after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from etils import epath

from jaxformers.errors import UserError

PREVIOUS = "previous"
PATHS = {"weights": "", "image_tokenizer_weights": "", "vocabulary": "tokenizer"}
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


def check_follow_ups(experiment: Any) -> None:
    """Checks the data of follow-up runs on the same data as the first, before that is trained.

    Raises:
        UserError: what a follow-up run would end with, such as another number of classes.
    """
    data = getattr(experiment.task, "data", None)
    for run in experiment.after:
        if data is None or getattr(run.task, "data", None) != data:
            continue  # it may be prepared while the runs before it are trained
        try:
            run.task.check_data()
        except UserError as error:
            raise type(error)(f"follow-up run {run.name}: {error}") from None


def plan_lines(experiment: Any) -> Iterator[str]:
    """One line for each of the runs of an experiment with follow-up runs, in their order."""
    runs = (experiment, *experiment.after)
    yield f"{len(runs)} runs, one after another:"
    for number, run in enumerate(runs, 1):
        task, data = run.task, getattr(run.task, "data", None)
        columns = [
            type(task).__name__ + (f" on {brief(data)}" if is_dataclass(data) else ""),
            f"{run.steps:,} steps" if run.epochs is None else f"{run.epochs:g} epochs",
            brief(run.schedule),
            *(_own_model_fields(experiment.task, task) if number > 1 else ()),
        ]
        if "weights" in _previous_fields(task):
            columns.append(f"from the weights of {experiment.name}")
        yield f"{number}. {run.name}: {', '.join(columns)}"


def brief(config: Any) -> str:
    """A dataclass with the fields that are not at their defaults: `Cosine(warmup=9)`."""
    values = [
        f"{field.name}={brief(value) if is_dataclass(value) else repr(value)}"
        for field in fields(config)
        if (value := getattr(config, field.name)) != field.default
    ]
    return f"{type(config).__name__}({', '.join(values)})"


def _own_model_fields(first_task: Any, task: Any) -> list[str]:
    """Fields of the model in which a follow-up run differs from the first run's."""
    first, own = getattr(first_task, "model", None), getattr(task, "model", None)
    if not is_dataclass(own) or type(first) is not type(own):
        return []
    return [
        f"model.{field.name} {value!r}"
        for field in fields(own)
        if (value := getattr(own, field.name)) != getattr(first, field.name)
    ]


def _previous_fields(task: Any) -> dict[str, str]:
    return {name: path for name, path in PATHS.items() if getattr(task, name, None) == PREVIOUS}
