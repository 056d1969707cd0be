"""`plan`: memory, step time and cost of an experiment on a pod, before the pod is rented.

The train step itself is compiled for the pod's chips by the real TPU compiler. Neither a TPU nor
data are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from jaxformers.costs.xla_warnings import captured_xla_warnings, uncached
from jaxformers.errors import ConfigError, ShardingError
from jaxformers.layers.attention.backends import log_attention_backends
from jaxformers.planning.plan_result import Plan, ShapePlan, batch_bytes
from jaxformers.planning.program import Effort, compile_step, device_bytes
from jaxformers.planning.roofline import roofline
from jaxformers.planning.topologies import Pod, local_pod, tpu_pod
from jaxformers.planning.wastes import wastes
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import TrainState, abstract_state
from jaxformers.training.step import step_flops


def plan(
    experiment: Experiment,
    topology: str | Pod | None = None,
    *,
    mesh: MeshConfig | None = None,
    slices: int | None = None,
    price: float | None = None,
    report: Callable[[str], None] | None = None,
    effort: Effort = "full",
) -> Plan:
    """Plans a run on a pod.

    Args:
        experiment: the experiment; runs that follow it (`after`) are not planned.
        topology: such as `v5e:16x16`, or `2xv5e:16x16` for two slices; None: the local devices.
        mesh: overrides the experiment's mesh, and must divide the pod. An experiment's own mesh
            that does not divide it is replaced by one that does, with a note.
        slices: number of slices, if the topology does not state it.
        price: price of a chip-hour, in any currency.
        report: called with a line of text before each compile.
        effort: effort of the TPU compiler. `least` takes a quarter of the time and gives memory
            within a few percent; shapes near the memory limit are compiled again in full. `mixed`
            compiles the largest batch shape in full, which decides whether the run fits. Below
            `full`, libtpu crashes on some programs and ends the process.

    Returns:
        Memory and FLOPs of each compiled step, times and costs; see `Plan`.

    Raises:
        ConfigError: an unknown topology, no steps to plan, or libtpu is not installed.
        ShardingError: a mesh that the pod, the model or the batch does not divide over.
    """
    if not experiment.steps:
        raise ConfigError("the run has no steps of training to plan: set --steps above 0")
    pod = topology if isinstance(topology, Pod) else pod_of(topology, slices)
    with uncached(), captured_xla_warnings() as warned:
        result = plan_on(pod, experiment, mesh, report, effort=effort)
        if effort == "least" and result.near:
            result = plan_on(pod, experiment, mesh, report, effort="mixed")
    result.price = price
    result.warnings += warned
    return result


def pod_of(topology: str | None, slices: int | None = None) -> Pod:
    """The pod of that name; None: the local devices."""
    return local_pod() if topology is None else tpu_pod(topology, slices)


def plan_on(
    pod: Pod,
    experiment: Experiment,
    mesh: MeshConfig | None = None,
    report: Callable[[str], None] | None = None,
    *,
    effort: Effort = "full",
) -> Plan:
    """Plans on a pod without capturing XLA's warnings and without a second, full compile.

    XLA writes its warnings to the process's stderr, so only one thread at a time can capture them;
    `search` calls this function from several threads.
    """
    config, notes = chosen_mesh(experiment, pod, mesh)
    experiment = replace(experiment, mesh=config)
    device_mesh = make_mesh(config, pod.devices)
    state = _state(experiment, device_mesh)
    lines: list[str] = []
    with log_attention_backends(lines.append):
        planned = _shape_plans(experiment, pod, device_mesh, effort, report)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    notes += [*dict.fromkeys(lines), *_notes(experiment)]
    result = Plan(experiment, pod, device_mesh, params, state_bytes(state), planned, notes)
    result.batch_norm = "batch_stats" in state.model_state
    result.warnings = wastes(result, state)
    return result


def _notes(experiment: Experiment) -> Iterator[str]:
    """Notes on what the figures do not cover."""
    shares = experiment.task.batch_shares()
    if len(shares) > 1 and not _phases(experiment):
        equal = max(shares) == min(shares)
        percents = ", ".join(f"{share:.0%}" for share in shares)
        taken = "each taken for as many steps" if equal else f"taken for {percents} of the steps"
        yield f"the batch has {len(shares)} shapes, {taken}; the data decides"
    if experiment.after:
        yield f"{len(experiment.after)} runs that follow are not planned"
    if experiment.epochs is not None:
        yield f"{experiment.steps:,} steps as the file has it; the data's size decides"


def _shape_plans(
    experiment: Experiment,
    pod: Pod,
    mesh: Mesh,
    effort: Effort,
    report: Callable[[str], None] | None,
) -> list[ShapePlan]:
    """One plan per batch shape, in the order of `batch_shapes`."""
    shapes, shares = experiment.task.batch_shapes(), _shares(experiment)
    largest = max(range(len(shapes)), key=lambda number: batch_bytes(shapes[number]))
    planned: dict[int, ShapePlan] = {}
    # The largest shape first: with `mixed`, smaller ones are compiled in full only if their quick
    # compile comes near its memory.
    for number in sorted(range(len(shapes)), key=lambda number: number != largest):
        if report is not None:
            report(f"compiling for {pod.name}, batch shape {number + 1} of {len(shapes)}")
        arguments = experiment, pod, mesh, shapes[number], shares[number]
        smaller = effort == "mixed" and number != largest
        shape_plan = _shape_plan(*arguments, "least" if smaller else effort)
        if smaller and shape_plan.compiled.quick and _may_decide(shape_plan, planned[largest]):
            shape_plan = _shape_plan(*arguments, "mixed")
        planned[number] = shape_plan
    return [planned[number] for number in range(len(shapes))]


def _may_decide(quick: ShapePlan, largest: ShapePlan) -> bool:
    """Whether a shape may need more memory than the largest one; quick compiles err by percents."""
    needed, most = quick.compiled.needed, largest.compiled.needed
    return needed is None or most is None or needed >= 0.9 * most


def _shape_plan(
    experiment: Experiment, pod: Pod, mesh: Mesh, shape: Any, share: float, effort: Effort
) -> ShapePlan:
    compiled = compile_step(experiment, pod, mesh, shape, effort)
    return ShapePlan(
        shape,
        share,
        compiled,
        step_flops(experiment, shape),
        roofline(compiled, pod, mesh),
    )


def chosen_mesh(
    experiment: Experiment, pod: Pod, requested: MeshConfig | None
) -> tuple[MeshConfig, list[str]]:
    """The mesh to plan with, and notes about the choice.

    Raises:
        ShardingError: the requested mesh does not divide the pod or the batch.
    """
    if requested is not None and requested.slices not in (1, pod.slices):
        raise ShardingError(
            f"mesh slices={requested.slices}, but {pod.name} has {pod.slices}; give --slices "
            f"{requested.slices} with the topology"
        )
    config = replace(requested or experiment.mesh, slices=pod.slices)
    try:
        shape = config.shape(len(pod.devices))
        _check_batch(experiment, shape)
        return MeshConfig(*shape, pod.slices), []
    except ShardingError as error:
        if requested is not None:
            raise
        shape = _default_mesh(experiment, pod)
        text = "x".join(map(str, shape))
        return MeshConfig(*shape, pod.slices), [
            f"mesh {text}, because its own does not fit: {error}"
        ]


def _default_mesh(experiment: Experiment, pod: Pod) -> tuple[int, int, int]:
    """As much of the pod on `data` as the batch divides over, the rest on `tensor`."""
    devices = len(pod.devices)
    # data = gcd(devices, rows per microbatch of every shape): each divides over it.
    data = devices
    for rows in _rows(experiment):
        data = math.gcd(data, rows // experiment.accumulate)
    if data % pod.slices:
        raise ShardingError(
            f"a batch of {min(_rows(experiment))} rows does not divide over {pod.slices} slices"
        )
    shape = data, 1, devices // data
    _check_batch(experiment, shape)  # microbatches may not divide over it
    return shape


def _rows(experiment: Experiment) -> list[int]:
    shapes = experiment.task.batch_shapes()
    return [next(iter(shape.values())).shape[0] for shape in shapes]


def _check_batch(experiment: Experiment, shape: tuple[int, int, int]) -> None:
    num_microbatches = shape[0] * shape[1] * experiment.accumulate
    for rows in _rows(experiment):
        if rows % num_microbatches:
            raise ShardingError(
                f"a batch of {rows} rows does not divide over data={shape[0]} x fsdp={shape[1]}"
                + f" in {experiment.accumulate} parts" * (experiment.accumulate > 1)
                + "; change --mesh.data, --mesh.fsdp, --mesh.tensor or the batch's rows"
            )


def divides(experiment: Experiment, pod: Pod, mesh: MeshConfig) -> bool:
    """Whether a mesh divides the pod, the microbatches and the model."""
    try:
        config, _ = chosen_mesh(experiment, pod, mesh)
        _state(replace(experiment, mesh=config), make_mesh(config, pod.devices))
    except ShardingError:
        return False
    return True


def _phases(experiment: Experiment) -> tuple:
    return getattr(getattr(experiment.task, "pretraining", None), "phases", ())


def _shares(experiment: Experiment) -> list[float]:
    """Each batch shape's share of the steps: the task's, if the data decides.

    Only BERT's pre-training phases fix the number of steps of a shape (128 tokens, then 512).
    """
    phases = _phases(experiment)
    if not phases:
        return experiment.task.batch_shares()
    left, shares = experiment.steps, []
    for phase in phases:
        steps = left if phase.steps is None else min(left, phase.steps)
        shares.append(steps / experiment.steps)
        left -= steps
    return shares


def _state(experiment: Experiment, mesh: Mesh) -> TrainState:
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        return abstract_state(experiment, model, mesh)


def state_bytes(state: TrainState) -> dict[str, int]:
    """Bytes of a train state on one device by kind, without padding to tiles."""
    non_optimizer = (state.step, state.model_state, state.ema)
    kinds = {"parameters": state.params, "optimizer": state.opt_state, "other": non_optimizer}
    return {kind: device_bytes(tree) for kind, tree in kinds.items()}
