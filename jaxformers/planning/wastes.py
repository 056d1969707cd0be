"""Known wastes of a plan, each a line that says what, how much, and the mend."""

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
LARGE = 0.25  # of a chip's memory
PADDED = 0.05  # of a chip's memory


def wastes(plan: Plan, state: TrainState) -> list[str]:
    """All that are found."""
    return [*_whole(plan, state), *_gathered(plan, state), *_padded(plan), *_small_batch(plan)]


def _whole(plan: Plan, state: TrainState) -> Iterator[str]:
    """Parameters that no axis of the mesh divides."""
    sizes = dict(plan.mesh.shape)
    total = sum(plan.state.values())
    if sizes["fsdp"] * sizes["tensor"] == 1:
        if plan.mesh.devices.size > 1 and plan.memory and total > LARGE * plan.memory:
            yield (
                f"the state, {total / 1e9:.1f} GB, lies whole on every device: --mesh.fsdp "
                f"{min(8, sizes['data'])} would divide it"
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
        yield f"the parameter {name} ({size / 1e6:.1f} MB){more} lies whole on every device"


def _gathered(plan: Plan, state: TrainState) -> Iterator[str]:
    """Activations that are gathered whole."""
    parameter_counts = parameter_sizes(state, tuple(plan.mesh.shape.values()))
    moved: dict[str, int] = {}
    for shape in plan.shapes:
        for collective in shape.compiled.collectives:
            activation_shapes = [
                s for s in collective.shapes if math.prod(s) not in parameter_counts
            ]
            # Over `data` pieces of gradients are put together again, after their sum.
            gradients = "data" in collective.axes and not _forward(collective.op_name)
            if collective.kind == "all-gather" and activation_shapes and not gradients:
                origin = collective.op_name.split("/")[-1]
                size = collective.bytes * collective.times
                moved[origin] = max(moved.get(origin, 0), size)
    for origin, size in moved.items():
        if size > MEGABYTE:
            yield f"an activation is gathered whole ({origin}): {size / 1e6:.0f} MB a step"


def _forward(op_name: str) -> bool:
    """Whether an operation is of the forward pass, by its path."""
    return "jvp(" in op_name and BACKWARD not in op_name


def _padded(plan: Plan) -> Iterator[str]:
    """Tiles of 8 x 128 numbers that are partly empty."""
    compiled = plan.worst.compiled
    if compiled.compiles and plan.memory and compiled.padding > PADDED * plan.memory:
        yield (
            f"{compiled.padding / 1e9:.2f} GB only pad arrays to the hardware's tiles of 8 x 128 "
            f"numbers, most of it {compiled.padded}: sizes that 128 divides waste none"
        )


def _small_batch(plan: Plan) -> Iterator[str]:
    """A device's part of the batch with too few rows to keep its products busy."""
    if plan.pod.chip is None:
        return
    enough = 2 * plan.pod.chip.peak_bf16 / plan.pod.chip.bandwidth
    least = min(plan.shapes, key=lambda shape: shape.model_flops)
    data = plan.mesh.shape["data"] * plan.mesh.shape["fsdp"] * plan.experiment.accumulate
    # Six FLOPs a parameter and token is what a step of a Transformer takes.
    tokens = least.model_flops / 6 / plan.parameters / data
    if tokens < enough:
        yield (
            f"a device's part of the batch is small, about {tokens:,.0f} tokens at a time: below "
            f"{enough:,.0f} a chip of this kind waits for its memory; take fewer chips, or more "
            "rows"
        )
