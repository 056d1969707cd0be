"""Evaluates finished runs on their test sets, each alone and all as an ensemble."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.evaluator import (
    Evaluation,
    Evaluator,
    OutputEvaluator,
    merge_evaluations,
    run_evaluators,
)
from jaxformers.tasks.processor import Processor
from jaxformers.training import run_directory
from jaxformers.training.config.overrides import override
from jaxformers.training.experiment import Experiment

ENSEMBLE = "ensemble"


def evaluate(
    folders: epath.PathLike | Sequence[epath.PathLike], fields: Sequence[str] = ()
) -> dict[str, Any]:
    """The metrics of each run's final weights; prefixed by its folder when there are several.

    Where all evaluators of several runs score outputs of the same data, also the metrics of the
    `ensemble`: those of the mean of the models' outputs, which are computed one model after
    another. Where the runs' data or classes differ, a line gives the difference instead.

    Args:
        folders: one run's folder, or several.
        fields: overrides of the experiments, as on the command line, such as other test data.

    Raises:
        UserError: a folder is not a run's, or has no weights yet.
    """
    folders = [folders] if isinstance(folders, str | os.PathLike) else folders
    runs = [_Run.open(epath.Path(folder), fields) for folder in dict.fromkeys(folders)]
    several, results = len(runs) > 1, {}
    averageable = several and all(
        run.evaluators and all(isinstance(e, OutputEvaluator) for e in run.evaluators)
        for run in runs
    )
    difference = _difference(runs) if averageable else ""
    means = [Mean() for _ in runs[0].evaluators] if averageable and not difference else None
    for run in runs:
        values = _write(run.evaluate(means), run.folder)
        prefix = f"{run.folder} " if several else ""
        results |= {f"{prefix}{name}": value for name, value in values.items()}
    if difference:
        results[ENSEMBLE] = f"none, for {difference}"
    if means is not None:
        evaluation = runs[0].score([mean.outputs for mean in means])
        names = [str(run.folder) for run in runs]
        values = _write(evaluation, runs[0].folder / ENSEMBLE, runs=names)
        results |= {f"{ENSEMBLE} {name}": value for name, value in values.items()}
    return results


def evaluate_run(folder: epath.Path, fields: Sequence[str] = ()) -> dict[str, Any]:
    """One run's metrics and notes; outputs go to `outputs.txt`, metrics to `evaluation.json`."""
    run = _Run.open(epath.Path(folder), fields)
    return _write(run.evaluate(), run.folder)


@dataclass
class Mean:
    """The running mean of several models' outputs."""

    count: int = 0
    sums: list[np.ndarray] = field(default_factory=list)
    """In float64, so that the order of the models does not matter."""

    def add(self, outputs: Sequence[np.ndarray]) -> None:
        """Adds one model's outputs."""
        arrays = [np.asarray(output, np.float64) for output in outputs]
        pairs = zip(self.sums, arrays, strict=True)
        self.sums = [total + array for total, array in pairs] if self.count else arrays
        self.count += 1

    @property
    def outputs(self) -> list[np.ndarray]:
        """The mean of the models' outputs, float32."""
        return [(total / self.count).astype(np.float32) for total in self.sums]


@dataclass(frozen=True)
class _Run:
    """A run to evaluate; its weights are in memory only during its evaluation."""

    folder: epath.Path
    experiment: Experiment
    processor: Processor

    @classmethod
    def open(cls, folder: epath.Path, fields: Sequence[str]) -> _Run:
        experiment = override(
            replace(run_directory.read_experiment(folder), after=()),
            list(fields),
            f"evaluate {folder}",
        )
        return cls(folder, experiment, experiment.task.processor(folder))

    @property
    def evaluators(self) -> tuple[Evaluator, ...]:
        return self.experiment.chosen_evaluators()

    def evaluate(self, means: Sequence[Mean] | None = None) -> Evaluation:
        """The run's own evaluation; its outputs are added to `means`, one for each evaluator."""
        mesh = _mesh(self.experiment)
        with jax.set_mesh(mesh):
            model, variables = run_directory.load_run(self.folder, self.experiment.execution(mesh))
            inputs = (model, variables, self.processor)
            if means is None:
                return run_evaluators(self.evaluators, *inputs, final=True)
            outputs = [evaluator.outputs(*inputs, final=True) for evaluator in self.evaluators]
        for mean, arrays in zip(means, outputs, strict=True):
            mean.add(arrays)
        return self.score(outputs)

    def score(self, outputs: Sequence[Sequence[np.ndarray]]) -> Evaluation:
        """The evaluation of the outputs for each of the run's evaluators."""
        pairs = zip(self.evaluators, outputs, strict=True)
        scored = [evaluator.score(o, self.processor, final=True) for evaluator, o in pairs]
        return merge_evaluations(self.evaluators, scored)


def _difference(runs: Sequence[_Run]) -> str:
    """Why the mean of these runs' outputs makes no sense; empty if it does."""
    first = runs[0]
    for run in runs[1:]:
        both = f"{first.folder} and {run.folder}"
        if type(run.experiment.task) is not type(first.experiment.task):
            return f"{both} learned different tasks"
        if [type(e) for e in run.evaluators] != [type(e) for e in first.evaluators]:
            return f"{both} have different evaluators"
        for ours, theirs in zip(first.evaluators, run.evaluators, strict=True):
            required = ours.ensemble_requirements(first.processor)
            theirs_required = theirs.ensemble_requirements(run.processor)
            if differ := [
                name for name, value in required.items() if theirs_required[name] != value
            ]:
                return f"{both} have different {', '.join(differ)}"
    return ""


def _mesh(experiment: Experiment) -> Mesh:
    """The run's mesh, or all devices as `data` where they are too few for it."""
    try:
        return make_mesh(experiment.mesh)
    except ShardingError:
        return make_mesh(MeshConfig())


def _write(evaluation: Evaluation, folder: epath.Path, **record: Any) -> dict[str, Any]:
    """Writes an evaluation and a `record` beside it into `folder`; returns metrics and notes."""
    folder.mkdir(parents=True, exist_ok=True)
    if evaluation.outputs:
        (folder / "outputs.txt").write_text("".join(f"{line}\n" for line in evaluation.outputs))
    (folder / "evaluation.json").write_text(json.dumps(evaluation.metrics | record, indent=1))
    paths = run_directory.write_predictions(folder, evaluation)
    notes = [*evaluation.notes, *(f"predictions to hand in: {path}" for path in paths)]
    return evaluation.metrics | {f"note {n}": note for n, note in enumerate(notes, 1)}
