"""The parts of `jaxformers check` that run the small model: outputs, training, its programs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from jaxformers.costs.collectives import Collective, collectives, totals
from jaxformers.costs.xla_warnings import warnings_are_seen
from jaxformers.runs import golden
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
from jaxformers.sharding import path_text, put_batch
from jaxformers.tasks.base import Batch, Task
from jaxformers.tasks.image_text.contrastive_loss import NEGATIVES
from jaxformers.tasks.images.image_losses import PARTNERS
from jaxformers.training.state import TrainState

STEPS = 3
OUTPUTS = 1e-5  # of an output's largest number: how far it may be from the golden one
MESHES = 1e-5  # relative, between one device's losses and a mesh's
LOSSES = 1e-4  # relative, between the losses and the golden ones
BYTES = 1.25  # times the golden file's bytes of a kind of collective


def outputs(subject: Subject) -> str:
    """The small model's outputs, and the fields it is built from, are the golden file's."""
    current_values = golden.model_fields(subject.full)
    golden_values = subject.compare("model", current_values)
    changed = [] if golden_values is None else golden.changes(golden_values, current_values)
    mesh = mesh_of(ONE)
    task = subject.small.task
    model = task.module(subject.small.execution(mesh))
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))
        variables = golden.random_parameters(shapes)
        probe = jax.jit(lambda v, b: task.probe(model, v, b))
        (program,) = subject.compiled(probe.lower(variables, subject.batch))
        arrays = jax.device_get(program(variables, subject.batch))
    samples = {name: golden.numbers(output) for name, output in arrays.items()}
    faults = changed + _off(subject.compare("outputs", samples) or samples, samples)
    if faults:
        raise Fault(some(faults))
    return f"{', '.join(samples)} within {OUTPUTS:g} of the largest number"


def _off(
    golden_values: dict[str, list[float]], current_values: dict[str, list[float]]
) -> list[str]:
    faults = [
        f"the output {name!r} is new or gone"
        for name in sorted({*golden_values} ^ {*current_values})
    ]
    for name in golden_values.keys() & current_values.keys():
        old, new = np.array(golden_values[name]), np.array(current_values[name])
        if old.shape != new.shape:
            faults.append(f"{name} have another shape")
        elif not (error := np.abs(new - old).max() / np.abs(old).max()) <= OUTPUTS:
            faults.append(f"{name} are off by {error:.1g} of their largest number")
    return faults


def training(subject: Subject) -> str:
    """A few steps: finite, the same on one device and on a mesh, and as in the golden file."""
    single, mesh = (
        _losses(subject.start, subject.batch, *options) for options in subject.steps(ONE, ALL)
    )
    if not np.isfinite(single).all():
        raise Fault(f"the losses are {_list(single)}")
    if not np.allclose(single, mesh, rtol=MESHES, atol=0):
        raise Fault(f"one device gives the losses {_list(single)}, the mesh {ALL} {_list(mesh)}")
    fields = golden.training_fields(subject.full)
    before = subject.compare("training", fields)
    changed = [] if before is None else golden.changes(before, fields)
    golden_values = subject.compare("losses", single)
    if golden_values is not None and not np.allclose(single, golden_values, rtol=LOSSES, atol=0):
        why = f" ({some(changed)})" if changed else ""
        raise Fault(
            f"the losses are {_list(single)}, in the golden file {_list(golden_values)}{why}"
        )
    text = f"{STEPS} steps give {_list(single)} on one device and on {ALL}"
    return text + (f"; changed since the golden file: {some(changed)}" if changed else "")


def _losses(start: TrainState, batch: Batch, step, abstract, mesh: Mesh) -> list[float]:
    with jax.set_mesh(mesh):
        state = jax.device_put(start, jax.tree.map(lambda leaf: leaf.sharding, abstract))
        rows, losses = put_batch(batch, mesh), []
        for _ in range(STEPS):
            state, metrics = step(state, rows)
            losses.append(float(metrics["loss"]))
    return losses


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def explained_collectives(subject: Subject) -> str:
    """Each collective is one that its mesh needs, and there are no more bytes than before."""
    current_values = {}
    shapes = (DATA, FSDP, ALL)
    for shape, (program, state, mesh) in zip(shapes, subject.steps(*shapes), strict=True):
        program_collectives = collectives(program.as_text(), dict(mesh.shape))
        sizes = parameter_sizes(state, shape) | shared_sizes(subject.small.task, shape)
        odd = [
            collective for collective in program_collectives if not _explained(collective, sizes)
        ]
        if odd:
            raise Fault(some(f"on {shape} an unexplained {collective}" for collective in odd))
        current_values[str(shape)] = totals(program_collectives)
    golden_values = subject.compare("collectives", current_values)
    grown = [] if golden_values is None else list(_grown(golden_values, current_values))
    if grown:
        raise Fault(some(grown))
    return "; ".join(
        f"{shape} {_kinds(program_collectives)}"
        for shape, program_collectives in current_values.items()
    )


def parameter_sizes(state: TrainState, shape: Shape) -> set[int]:
    """Numbers of elements that a parameter, or a layer of one, has on a device of the mesh."""
    _, fsdp, tensor = shape
    sizes = {1}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        full_size = math.prod(leaf.shape)
        if "tensor" in leaf.sharding.spec:
            full_size //= tensor
        for size in (
            (full_size, full_size // leaf.shape[0]) if "blocks" in path_text(path) else (full_size,)
        ):
            sizes |= {size, size // fsdp}
    return sizes


def shared_sizes(task: Task, shape: Shape) -> set[int]:
    """Numbers of elements that what all rows share has on a device; heads are divided by tensor."""
    return {size // division for size in task.shared_sizes() for division in {1, shape[2]}}


def _explained(collective: Collective, sizes: set[int]) -> bool:
    """Sums over `tensor` of anything; over `data` and `fsdp` of gradients and losses.

    Gradients are those of parameters and of arrays that all rows share.

    Parameters are gathered over `fsdp` alone, and their gradients may be scattered over it. Images
    that are mixed with others of the batch move between its shards, and so do the embeddings that a
    contrastive loss compares.
    """
    # Differentiation wraps a scope's name: jvp(negatives), transpose(jvp(negatives)).
    if re.search(rf"\b({PARTNERS}|{NEGATIVES})\b", collective.op_name):
        return set(collective.axes) <= {"data", "fsdp"}
    of_parameters = all(math.prod(shape) in sizes for shape in collective.shapes)
    if collective.kind == "all-reduce":
        return "?" not in collective.axes and (collective.axes == ("tensor",) or of_parameters)
    if collective.kind == "all-gather":
        return collective.axes == ("fsdp",) and of_parameters
    if collective.kind == "reduce-scatter":
        return set(collective.axes) <= {"data", "fsdp"} and of_parameters
    if collective.kind == "collective-permute" and of_parameters:
        # A product that is split over `tensor` moves shards of a kernel there from `fsdp`.
        return set(collective.axes) <= {"fsdp", "tensor"}
    return not collective.axes


def _grown(golden_values: dict, current_values: dict) -> Iterator[str]:
    for shape, counts in current_values.items():
        for kind, (count, size) in counts.items():
            old = golden_values.get(shape, {}).get(kind, (0, 0))
            if size > BYTES * old[1]:
                yield (
                    f"on {shape} {count} {kind} of {size:,} bytes, in the golden file {old[0]} of "
                    f"{old[1]:,}"
                )


def _kinds(counts: dict[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{count} {kind.replace(' ', ' over ', 1)}" for kind, (count, _) in counts.items()
    )


def waste(subject: Subject) -> str:
    """None of the programs above drew XLA's warning of a full rematerialization."""
    mesh = mesh_of(ALL)
    if not warnings_are_seen(mesh):
        raise Fault("XLA's warnings cannot be read, or it words them in another way now")
    if not {ONE, DATA, FSDP, ALL} <= subject.programs.keys():
        raise Fault("the train step did not compile on every mesh")
    if subject.warned:
        raise Fault(some(line[line.find("Involuntary") :][:400] for line in subject.warned))
    return f"no full rematerialization in {len(subject.programs)} compiled train steps"
