"""What an experiment's network is made of and how it lies on the mesh, without allocating it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, AxisType

from jaxformers.sharding import AXES, MeshConfig, describe_parameters, make_mesh
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import init_state, state_shardings

Shapes = dict[str, Any]


def describe(experiment: Experiment, devices: int | None = None) -> str:
    """The network as a tree, the table of its parameters, and their sums, as text.

    Args:
        experiment: what to describe.
        devices: as on so many devices; by default as many as the mesh takes of those here.

    Raises:
        ShardingError: a mesh that so many devices do not make, a parameter that no row names or
            that the mesh does not divide.
    """
    stored, names = _parameters(experiment)
    real, _ = _parameters(replace(experiment, vocab_multiple=1))
    devices = devices or _enough(experiment.mesh)
    sizes = dict(zip(AXES, experiment.mesh.shape(devices), strict=True))
    rows = describe_parameters(stored, sizes, experiment.table)
    total, padded = _count(real), _count(stored)
    parameter_bytes = sum(row[-1] for row in rows)
    state_bytes = parameter_bytes + _optimizer_bytes(experiment, sizes)
    mesh = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    return "\n".join(
        [
            f"{experiment.name}: {total:,} parameters"
            + (f" ({padded - total:,} more stored as padding)" * (padded > total)),
            "",
            *_tree(real, names),
            "",
            *_table(rows),
            "",
            f"On {devices} device{'s' * (devices > 1)} ({mesh}): {_bytes(parameter_bytes)} of "
            f"parameters each; {_bytes(state_bytes)} with {experiment.optimizer.memory}.",
        ]
    )


def _parameters(experiment: Experiment) -> tuple[Shapes, dict[str, str]]:
    """The parameters' shapes, and the class of the module at each path."""
    names: dict[str, str] = {}

    def note(call, args, kwargs, context):
        kind = type(context.module).__name__.removeprefix("Scan").removeprefix("Checkpoint")
        # The first call at a path counts: a scanned block's inner copy is a root of its own, with
        # the model's empty path.
        names.setdefault("/".join(context.module.path), kind)
        return call(*args, **kwargs)

    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    model = experiment.task.module(experiment.execution(mesh))
    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda: experiment.task.init(model, jax.random.key(0)))
    return shapes["params"], names


def _optimizer_bytes(experiment: Experiment, sizes: dict[str, int]) -> int:
    """Bytes of the optimizer's state on a device of a mesh, which need not be here.

    Raises:
        ShardingError: a parameter that no row names or that the mesh does not divide.
    """
    here = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    model = experiment.task.module(experiment.execution(here))
    shapes = jax.eval_shape(lambda: init_state(experiment, model))
    axis_types = (AxisType.Auto,) * len(sizes)
    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=axis_types)
    shardings = state_shardings(shapes, experiment, mesh).opt_state
    leaves = zip(jax.tree.leaves(shapes.opt_state), jax.tree.leaves(shardings), strict=True)
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in leaves
    )


def _enough(mesh: MeshConfig) -> int:
    """The devices here, rounded up to what the mesh takes."""
    fixed = math.prod(n for n in (mesh.data, mesh.fsdp, mesh.tensor) if n != -1)
    if -1 not in (mesh.data, mesh.fsdp, mesh.tensor):
        return fixed
    fixed *= mesh.slices if mesh.data == -1 else 1
    return -(-jax.device_count() // fixed) * fixed


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _tree(params: Shapes, names: dict[str, str]) -> list[str]:
    """One line for each module: its name, class, parameters, and the shapes of its own ones."""
    lines = [(names.get("", ""), "", _count(params))]
    lines += _branches(params, names, (), "")
    left = max(len(text) for text, _, _ in lines)
    return [f"{text:{left}}  {count:>13,}  {own}".rstrip() for text, own, count in lines]


def _branches(
    params: Shapes, names: dict[str, str], path: tuple[str, ...], margin: str
) -> Iterator[tuple[str, str, int]]:
    for i, (name, below) in enumerate(params.items()):
        last, here = i == len(params) - 1, (*path, name)
        text = f"{margin}{'└─' if last else '├─'} {name}"
        if not isinstance(below, dict):
            if not path:
                yield text, _shape(below.shape), _count(below)
            continue
        kind = names.get("/".join(here), "")
        own = [f"{k} {_shape(v.shape)}" for k, v in below.items() if not isinstance(v, dict)]
        note = f"x {_layers(below)}" if name == "blocks" else ", ".join(own)
        yield f"{text} {kind}".rstrip(), note, _count(below)
        yield from _branches(below, names, here, margin + ("   " if last else "│  "))


def _layers(blocks: Shapes) -> int:
    return jax.tree.leaves(blocks)[0].shape[0]


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _table(rows: list[tuple]) -> list[str]:
    """Path, shape, type, axes and bytes on each device, in columns."""
    head = ("parameter", "shape", "type", "axes", "bytes a device")
    cells = [
        (path, _shape(shape), kind, " ".join(axis or "-" for axis in axes), f"{size:,}")
        for path, shape, kind, axes, size in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i == len(head) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *cells)
    ]


def _bytes(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count /= 1000
    raise AssertionError
