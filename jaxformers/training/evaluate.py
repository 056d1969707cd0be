"""Judging finished runs on their test sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.text import load_tokenizer
from jaxformers.training import runs
from jaxformers.training.experiment import Experiment
from jaxformers.training.overrides import override


def evaluate(folders: Sequence[epath.PathLike], fields: Sequence[str] = ()) -> dict[str, Any]:
    """The metrics of each run's final weights; named by its folder when there are several.

    Args:
        folders: folders of runs.
        fields: changes to the experiments, as on the command line, such as other test data.

    Raises:
        UserError: a folder that is no run's, or has no weights yet.
    """
    results: dict[str, Any] = {}
    for folder in folders:
        found = evaluate_run(epath.Path(folder), fields)
        prefix = f"{folder} " if len(folders) > 1 else ""
        results |= {f"{prefix}{name}": value for name, value in found.items()}
    return results


def _mesh(experiment: Experiment) -> Mesh:
    """The run's mesh, or all devices as `data` where they are too few for it."""
    try:
        return make_mesh(experiment.mesh)
    except ShardingError:
        return make_mesh(MeshConfig())


def evaluate_run(folder: epath.Path, fields: Sequence[str] = ()) -> dict[str, Any]:
    """One run's metrics and notes; the outputs go to `outputs.txt`, the metrics beside them."""
    experiment = override(runs.read_experiment(folder), list(fields), f"evaluate {folder}")
    mesh = _mesh(experiment)
    with jax.set_mesh(mesh):
        model, variables = runs.load_run(folder, experiment.execution(mesh))
        tokenizer = load_tokenizer(runs.tokenizer_folder(folder))
        found = experiment.task.evaluate(model, variables, tokenizer, final=True)
    if found.outputs:
        (folder / "outputs.txt").write_text("".join(f"{line}\n" for line in found.outputs))
    (folder / "evaluation.json").write_text(json.dumps(found.metrics, indent=1))
    return found.metrics | {f"note {n}": note for n, note in enumerate(found.notes, 1)}
