"""Avoidable costs of a plan; each line states the cost, its size and how to avoid it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax

from jaxformers.costs.traffic import BACKWARD
from jaxformers.planning.plan_result import Plan
from jaxformers.runs.check_steps import parameter_sizes
from jaxformers.sharding import path_text
from jaxformers.training.state import TrainState

MEGABYTE = 1e6
LARGE = 0.25  # share of a device's memory from which replicated state is worth a line
PADDED = 0.05  # share of a device's memory from which padding is worth a line


def wastes(plan: Plan, state: TrainState) -> list[str]:
    """All avoidable costs of a plan, one line each."""
    return [*_whole(plan, state), *_gathered(plan, state), *_padded(plan), *_small_batch(plan)]


def _whole(plan: Plan, state: TrainState) -> Iterator[str]:
    """Parameters that no axis of the mesh divides (replicated on every device)."""
    sizes = dict(plan.mesh.shape)
    total = sum(plan.state.values())
    if sizes["fsdp"] * sizes["tensor"] == 1:
        if plan.mesh.devices.size > 1 and plan.memory and total > LARGE * plan.memory:
            yield (
                f"the state, {total / 1e9:.1f} GB, is replicated on every device: --mesh.fsdp "
                f"{min(8, sizes['data'])} would shard it"
            )
        return
    undivided = [
        (path_text(path), math.prod(leaf.shape) * leaf.dtype.itemsize)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        if not any(leaf.sharding.spec)
    ]
    large = [(name, size) for name, size in undivided if size > MEGABYTE]
    if large:
        name, size = max(large, key=lambda entry: entry[1])
        more = f" and {len(large) - 1} more" if len(large) > 1 else ""
        yield f"the parameter {name} ({size / 1e6:.1f} MB){more} is replicated on every device"


def _gathered(plan: Plan, state: TrainState) -> Iterator[str]:
    """Activations that are all-gathered in full, by the operation that needs them."""
    # A collective knows only sizes: one that is a parameter's size gathers a parameter (FSDP).
    parameter_counts = parameter_sizes(state, tuple(plan.mesh.shape.values()))
    moved: dict[str, int] = {}
    for shape in plan.shapes:
        for collective in shape.compiled.collectives:
            activation_shapes = [
                s for s in collective.shapes if math.prod(s) not in parameter_counts
            ]
            # Over `data`, gradients are reduced by a reduce-scatter and an all-gather.
            gradients = "data" in collective.axes and not _forward(collective.op_name)
            if collective.kind == "all-gather" and activation_shapes and not gradients:
                origin = collective.op_name.split("/")[-1]
                size = collective.bytes * collective.times
                moved[origin] = max(moved.get(origin, 0), size)
    for origin, size in moved.items():
        if size > MEGABYTE:
            yield f"an activation is all-gathered ({origin}): {size / 1e6:.0f} MB a step"


def _forward(op_name: str) -> bool:
    """Whether an operation belongs to the forward pass, by its name stack."""
    # Differentiation names forward operations "jvp(...)", and backward ones "transpose(jvp(...))".
    return "jvp(" in op_name and BACKWARD not in op_name


def _padded(plan: Plan) -> Iterator[str]:
    """Memory lost to partly empty tiles of 8 x 128 numbers."""
    compiled = plan.worst.compiled
    if compiled.compiles and plan.memory and compiled.padding > PADDED * plan.memory:
        yield (
            f"{compiled.padding / 1e9:.2f} GB only pad arrays to the hardware's tiles of 8 x 128 "
            f"numbers, most of it {compiled.padded}: use sizes that are multiples of 128"
        )


def _small_batch(plan: Plan) -> Iterator[str]:
    """A device's share of the batch that is too small to be bound by matrix products."""
    if plan.pod.chip is None:
        return
    # A product with a weight does 2 FLOPs per token for each 2 bytes (bfloat16) of the weight that
    # is read, so memory is the bound below peak / bandwidth tokens; twice that leaves room.
    enough = 2 * plan.pod.chip.peak_bf16 / plan.pod.chip.bandwidth
    least = min(plan.shapes, key=lambda shape: shape.model_flops)
    data = plan.mesh.shape["data"] * plan.mesh.shape["fsdp"] * plan.experiment.accumulate
    # A training step takes 6 FLOPs per parameter and token (Kaplan et al. 2020, section 2.1).
    tokens = least.model_flops / 6 / plan.parameters / data
    if tokens < enough:
        yield (
            f"a device's share of the batch is small, about {tokens:,.0f} tokens: below "
            f"{enough:,.0f} tokens a chip of this kind is bound by its memory; use fewer chips or "
            "a larger batch"
        )
