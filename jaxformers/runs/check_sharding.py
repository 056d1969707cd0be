"""The part of `jaxformers check` that needs no memory: how the full-size model's parameters lie."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from jaxformers.errors import ShardingError
from jaxformers.runs.check_subject import (
    ALL,
    DATA,
    FSDP,
    ONE,
    Fault,
    Shape,
    Subject,
    mesh_of,
    some,
)
from jaxformers.sharding import AXES, axes_of, parameter_spec, path_text
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import abstract_state


def sharding(subject: Subject) -> str:
    """Every parameter of the full-size model has one row, divides, and lies as before."""
    experiment = subject.full
    mesh = mesh_of(ONE)
    count = _count(_parameters(replace(experiment, vocab_multiple=1), mesh))
    leaves = {
        path_text(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(_parameters(experiment, mesh))
    }
    shapes = (DATA, FSDP, ALL, _most_tensor(leaves, experiment))
    faults = [fault for shape in shapes for fault in _undivided(leaves, shape, experiment)]
    if faults:
        raise Fault(some(dict.fromkeys(faults)))
    now = {name: _lie(name, leaf, experiment) for name, leaf in leaves.items()}
    then = subject.compare("parameters", now)
    if moved := [] if then is None else list(_moved(then, now)):
        raise Fault(some(moved))
    _optimizer_follows(experiment, ALL)
    if (then := subject.compare("count", count)) not in (None, count):
        raise Fault(f"{count:,} parameters, in the golden file {then:,}")
    text = ", ".join(str(shape).replace(" ", "") for shape in shapes)
    return f"{len(leaves)} tensors, {count:,} parameters, divide on {text}"


def _parameters(experiment: Experiment, mesh: Mesh) -> Any:
    model = experiment.task.module(experiment.execution(mesh))
    return jax.eval_shape(lambda: experiment.task.init(model, jax.random.key(0)))["params"]


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _most_tensor(leaves: dict[str, Any], experiment: Experiment) -> Shape:
    """The mesh of eight with as much tensor parallelism as every model's heads allow."""
    most = 8
    for name, leaf in leaves.items():
        with contextlib.suppress(ShardingError):
            axes = axes_of(name, leaf.shape, experiment.table)
            most = math.gcd(
                most, *(n for n, a in zip(leaf.shape, axes, strict=True) if a == "heads")
            )
    return (1, 8 // most, most)


def _undivided(leaves: dict[str, Any], shape: Shape, experiment: Experiment) -> Iterator[str]:
    sizes = dict(zip(AXES, shape, strict=True))
    for name, leaf in leaves.items():
        try:
            parameter_spec(name, leaf.shape, sizes, experiment.table)
        except ShardingError as error:
            yield str(error)


def _lie(name: str, leaf: Any, experiment: Experiment) -> dict[str, list]:
    """A parameter's shape, its axes, and the mesh axes that divide it."""
    sizes = dict(zip(AXES, ALL, strict=True))
    spec = parameter_spec(name, leaf.shape, sizes, experiment.table)
    axes = axes_of(name, leaf.shape, experiment.table)
    return {"shape": list(leaf.shape), "axes": list(axes), "mesh": list(spec)}


def _moved(then: dict[str, dict], now: dict[str, dict]) -> Iterator[str]:
    """How parameters differ from the golden file's, in words."""
    for name in dict.fromkeys((*then, *now)):
        if name not in then or name not in now:
            yield f"{name} is {'new' if name in now else 'gone'}"
            continue
        differences = [
            f"{what} {_axes_text(now[name][what])}, in the golden file "
            f"{_axes_text(then[name][what])}"
            for what in ("shape", "axes", "mesh")
            if now[name][what] != then[name][what]
        ]
        if differences:
            yield f"{name} has {'; '.join(differences)}"


def _axes_text(axes: list) -> str:
    return f"({', '.join(str(a) if a is not None else '-' for a in axes)})"


def _optimizer_follows(experiment: Experiment, shape: Shape) -> None:
    """Each copy of a parameter in the optimizer's state lies as the parameter does."""
    mesh = mesh_of(shape)
    model = experiment.task.module(experiment.execution(mesh))
    state = abstract_state(experiment, model, mesh)
    where = {
        path_text(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.opt_state, state.ema)):
        name = path_text(path)
        like = next((p for n, p in where.items() if name.endswith(f"/{n}")), None)
        if like is None or like.shape != leaf.shape:
            continue
        if like.sharding.spec != leaf.sharding.spec:
            raise Fault(f"the optimizer's {name} lies {leaf.sharding.spec}, not as its parameter")
