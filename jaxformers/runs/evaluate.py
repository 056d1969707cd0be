"""Judging finished runs on their test sets, each alone and as an ensemble."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.base import Evaluation, JudgedByOutputs
from jaxformers.tasks.processor import Processor
from jaxformers.training import run_directory
from jaxformers.training.config.overrides import override
from jaxformers.training.experiment import Experiment

ENSEMBLE = "ensemble"


def evaluate(folders: Sequence[epath.PathLike], fields: Sequence[str] = ()) -> dict[str, Any]:
    """The metrics of each run's final weights; named by its folder when there are several.

    Where several runs are judged by outputs on the same data, those of the `ensemble` too: the mean
    of the models' outputs, which are computed one model after another. Where their data or classes
    differ, a line says so instead.

    Args:
        folders: folders of runs.
        fields: changes to the experiments, as on the command line, such as other test data.

    Raises:
        UserError: a folder that is no run's, or has no weights yet.
    """
    opened = [_Run.open(epath.Path(folder), fields) for folder in dict.fromkeys(folders)]
    several, results = len(opened) > 1, {}
    judges = several and all(isinstance(run.task, JudgedByOutputs) for run in opened)
    different = _difference(opened) if judges else ""
    together = Mean() if judges and not different else None
    for run in opened:
        found = run.judge(together)
        prefix = f"{run.folder} " if several else ""
        results |= {f"{prefix}{name}": value for name, value in _written(found, run.folder).items()}
    if different:
        results[ENSEMBLE] = f"none, for {different}"
    if together is not None:
        found = opened[0].score(together.outputs)
        names = [str(run.folder) for run in opened]
        written = _written(found, opened[0].folder / ENSEMBLE, runs=names)
        results |= {f"{ENSEMBLE} {name}": value for name, value in written.items()}
    return results


def evaluate_run(folder: epath.Path, fields: Sequence[str] = ()) -> dict[str, Any]:
    """One run's metrics and notes; the outputs go to `outputs.txt`, the metrics beside them."""
    run = _Run.open(epath.Path(folder), fields)
    return _written(run.judge(), run.folder)


@dataclass
class Mean:
    """The mean of several models' outputs, one model's after another's."""

    count: int = 0
    sums: list[np.ndarray] = field(default_factory=list)
    """In float64, so that the order of the models is nothing."""

    def add(self, outputs: Sequence[np.ndarray]) -> None:
        """Takes in one model's outputs."""
        arrays = [np.asarray(each, np.float64) for each in outputs]
        both = zip(self.sums, arrays, strict=True)
        self.sums = [a + b for a, b in both] if self.count else arrays
        self.count += 1

    @property
    def outputs(self) -> list[np.ndarray]:
        """The means, float32."""
        return [(each / self.count).astype(np.float32) for each in self.sums]


@dataclass(frozen=True)
class _Run:
    """A run to be judged; its weights are loaded while it is judged and not held."""

    folder: epath.Path
    experiment: Experiment
    processor: Processor

    @classmethod
    def open(cls, folder: epath.Path, fields: Sequence[str]) -> _Run:
        experiment = override(
            run_directory.read_experiment(folder), list(fields), f"evaluate {folder}"
        )
        return cls(folder, experiment, experiment.task.processor(folder))

    @property
    def task(self) -> Any:
        return self.experiment.task

    def judge(self, together: Mean | None = None) -> Evaluation:
        """The run's own evaluation; its outputs are added to `together`."""
        mesh = _mesh(self.experiment)
        with jax.set_mesh(mesh):
            model, variables = run_directory.load_run(self.folder, self.experiment.execution(mesh))
            if together is None:
                return self.task.evaluate(model, variables, self.processor, final=True)
            outputs = self.task.outputs(model, variables, self.processor, final=True)
        together.add(outputs)
        return self.score(outputs)

    def score(self, outputs: list[np.ndarray]) -> Evaluation:
        """What outputs come to by this run's task."""
        return self.task.score(outputs, self.processor, final=True)


def _difference(opened: Sequence[_Run]) -> str:
    """Why the outputs of these runs have no common mean; empty if they have."""
    first = opened[0]
    shared = first.task.judged_on(first.processor)
    for run in opened[1:]:
        both = f"{first.folder} and {run.folder}"
        if type(run.task) is not type(first.task):
            return f"{both} learned different tasks"
        theirs = run.task.judged_on(run.processor)
        if differ := [name for name, value in shared.items() if theirs[name] != value]:
            return f"{both} have different {', '.join(differ)}"
    return ""


def _mesh(experiment: Experiment) -> Mesh:
    """The run's mesh, or all devices as `data` where they are too few for it."""
    try:
        return make_mesh(experiment.mesh)
    except ShardingError:
        return make_mesh(MeshConfig())


def _written(found: Evaluation, folder: epath.Path, **more: Any) -> dict[str, Any]:
    """Writes what was found into `folder`; returns metrics and notes for people."""
    folder.mkdir(parents=True, exist_ok=True)
    if found.outputs:
        (folder / "outputs.txt").write_text("".join(f"{line}\n" for line in found.outputs))
    (folder / "evaluation.json").write_text(json.dumps(found.metrics | more, indent=1))
    placed = run_directory.write_predictions(folder, found)
    notes = [*found.notes, *(f"predictions to hand in: {path}" for path in placed)]
    return found.metrics | {f"note {n}": note for n, note in enumerate(notes, 1)}
