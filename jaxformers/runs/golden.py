"""Golden files: what a model was when it was last known to be right, as a page of JSON.

`experiments/<family>/golden/<experiment's name>.json` keeps the configuration, every parameter
with its axes, a few outputs, the losses of a few steps, and the collectives of the train step.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.sharding import path_text
from jaxformers.training.config.experiment_files import experiments_folder, to_json
from jaxformers.training.experiment import Experiment
from jaxformers.training.stored_files import DamagedFile, read_json

KEPT = 64  # numbers of each output
TRAINING = ("optimizer", "schedule", "seed", "clip_norm", "accumulate", "ema")


def place(experiment: Experiment, file: Path) -> Path:
    """Where the golden file of an experiment file's experiment belongs."""
    return file.parent / "golden" / f"{experiment.name}.json"


def find(experiment: Experiment, file: Path | None) -> Path | None:
    """The golden file: beside the experiment file, else in `experiments/`, by the run's name.

    So a changed copy of an experiment file is held against the original's.
    """
    beside = [place(experiment, file)] if file else []
    roots = (Path("experiments"), experiments_folder())
    candidates = [
        p for root in roots for p in sorted(root.glob(f"*/golden/{experiment.name}.json"))
    ]
    return next((path for path in (*beside, *candidates) if path.exists()), None)


def read(path: Path) -> dict[str, Any]:
    """What a golden file holds; ConfigError when it is damaged."""
    try:
        return read_json(path)
    except (DamagedFile, FileNotFoundError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); make it anew with `jaxformers check FILE --update`"
        ) from error


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes a golden file, an entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            entries.append(f" {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }")
        else:
            entries.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(entries) + "\n}\n")


def model_fields(experiment: Experiment) -> dict[str, Any]:
    """Every field that the model is built from, by its path in the experiment."""
    task = experiment.task
    module = task.module(Execution())
    names = {id(getattr(task, f.name)): f.name for f in dataclasses.fields(task)}
    fields: dict[str, Any] = {}
    for f in dataclasses.fields(module):
        value = getattr(module, f.name)
        if f.name in ("parent", "name") or isinstance(value, Execution):
            continue
        is_task_field = dataclasses.is_dataclass(value) and id(value) in names
        path = f"task.{names[id(value)]}" if is_task_field else f"model.{f.name}"
        fields |= dict(_flat(to_json(value), path))
    return fields


def training_fields(experiment: Experiment) -> dict[str, Any]:
    """Every field that the losses depend on, beside the model's and the data's."""
    fields = {}
    for name in (*TRAINING, *(("frozen",) if experiment.frozen else ())):
        fields |= dict(_flat(to_json(getattr(experiment, name)), name))
    for f in dataclasses.fields(experiment.task):
        value = getattr(experiment.task, f.name)
        if isinstance(value, (int, float)) and f.name != "workers":
            fields[f"task.{f.name}"] = value
    return fields


def changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Every field whose value differs, in words."""
    absent = "absent"
    return [
        f"{name} is {now.get(name, absent)}, in the golden file {then.get(name, absent)}"
        for name in dict.fromkeys((*then, *now))
        if then.get(name, absent) != now.get(name, absent)
    ]


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for name, inside in value.items():
        if name == "$type":
            yield f"{path} kind", inside.rpartition(":")[2]
        else:
            yield from _flat(inside, f"{path}.{name}")


def random_parameters(shapes: Any) -> Any:
    """Parameters that all matter: nothing is zero or one, norms and biases included.

    Each is drawn from its own path, so that a new parameter leaves the others as they were.
    """

    def one(path, leaf):
        name = path_text(path)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        draw = 0.3 * rng.standard_normal(leaf.shape)
        if name.endswith("var"):
            return (0.5 + np.abs(draw)).astype(leaf.dtype)
        return (draw + name.endswith("scale")).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def numbers(output: Any) -> list[float]:
    """At most `KEPT` entries of an output, spread over all of it, to 7 digits."""
    flat = np.asarray(output, np.float32).reshape(-1)
    indices = np.random.default_rng(0).permutation(flat.size)[:KEPT]
    return [float(f"{x:.7g}") for x in flat[np.sort(indices)]]
