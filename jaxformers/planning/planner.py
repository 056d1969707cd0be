"""`plan`: what an experiment needs on a pod, in memory, time and money, before it is rented.

The very step that `train` runs is compiled for the pod's chips, with the real TPU compiler; no TPU
and no data are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax.sharding import Mesh

from jaxformers.costs.xla_warnings import captured_xla_warnings, uncached
from jaxformers.errors import ShardingError
from jaxformers.evaluation.published_costs import COSTS, PublishedCost
from jaxformers.layers.backends import log_attention_backends
from jaxformers.planning.program import Compiled, Effort, compile_step, device_bytes
from jaxformers.planning.roofline import Roofline, roofline
from jaxformers.planning.topologies import Pod, local_pod, tpu_pod
from jaxformers.planning.waste import wastes
from jaxformers.sharding import MeshConfig, batch_shards, make_mesh
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import TrainState, abstract_state
from jaxformers.training.step import step_flops


@dataclass
class ShapePlan:
    """One shape of batches.

    Attributes:
        shape: the whole batch's arrays by name.
        share: of the steps.
        compiled: the step for it.
        model_flops: matrix products of a step without what is computed again: MFU's numerator.
        roofline: None where the chip has no data sheet, or the step does not fit.
    """

    shape: dict[str, jax.ShapeDtypeStruct]
    share: float
    compiled: Compiled
    model_flops: int
    roofline: Roofline | None


@dataclass
class Plan:
    """What a run would need.

    Attributes:
        experiment: with the mesh that was planned with.
        pod: the machine.
        mesh: its devices.
        parameters: how many numbers, padding of the vocabulary included.
        state: bytes of the state on one device, by kind: parameters, optimizer, other.
        shapes: a plan for each shape of batches.
        notes: what was chosen for the person who asked.
        warnings: known wastes.
        batch_norm: whether parts of the batch are normalised by themselves, so that taking it in
            parts trains another model.
        price: of a chip for an hour, None where not given.
    """

    experiment: Experiment
    pod: Pod
    mesh: Mesh
    parameters: int
    state: dict[str, int]
    shapes: list[ShapePlan]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    batch_norm: bool = False
    price: float | None = None

    @property
    def worst(self) -> ShapePlan:
        """The shape that needs the most memory."""
        return max(self.shapes, key=lambda each: each.compiled.needed or math.inf)

    @property
    def memory(self) -> float | None:
        """Bytes that a device has; None where that is not known."""
        chip = self.pod.chip
        return None if chip is None else chip.memory / self.pod.cores

    @property
    def fits(self) -> bool:
        """Whether every shape's step compiles and needs no more than there is."""
        compiled = [each.compiled for each in self.shapes]
        room = math.inf if self.memory is None else self.memory
        return all(each.compiles and each.needed <= room for each in compiled)

    @property
    def quick(self) -> bool:
        """Whether no shape was compiled at full effort."""
        return all(each.compiled.quick for each in self.shapes)

    @property
    def near(self) -> bool:
        """Whether what is needed is so near to what there is that a quick compile may err."""
        needed, room = self.worst.compiled.needed, self.memory
        return room is not None and (needed is None or 0.9 <= needed / room <= 1.1)

    def kinds(self, shape: ShapePlan) -> dict[str, int]:
        """Bytes on a device by kind, for one shape of batches; together what is needed."""
        compiled, shards = shape.compiled, batch_shards(self.mesh)
        batch = _bytes(shape.shape) // shards
        kinds = {**self.state, "batch": batch}
        if not compiled.compiles:
            return kinds
        aligned = max(0, compiled.arguments - sum(kinds.values()))
        return {
            **kinds,
            "alignment": aligned + compiled.outputs,
            "activations": compiled.kept,
            "temporaries": compiled.temporaries - compiled.kept,
            "program": compiled.code,
        }

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Of a step, the mean over all shapes, at best and at worst."""
        if any(each.roofline is None for each in self.shapes):
            return None
        low = sum(each.share * each.roofline.range[0] for each in self.shapes)
        high = sum(each.share * each.roofline.range[1] for each in self.shapes)
        return low, high

    @property
    def model_flops(self) -> float:
        """Of a step, the mean over all shapes."""
        return sum(each.share * each.model_flops for each in self.shapes)

    @property
    def hardware_flops(self) -> float:
        """Of a step, with what is computed again."""
        return sum(each.share * each.compiled.flops for each in self.shapes)

    def utilisation(self, flops: float) -> tuple[float, float] | None:
        """The share of the chips' peak that `flops` a step come to, at worst and at best."""
        if self.seconds is None:
            return None
        peak = self.pod.chip.peak_bf16 * self.pod.chips
        return flops / (self.seconds[1] * peak), flops / (self.seconds[0] * peak)

    @property
    def hours(self) -> tuple[float, float] | None:
        """Of all steps; evaluation, checkpoints and start-up come on top."""
        seconds, steps = self.seconds, self.experiment.steps
        return seconds and (seconds[0] * steps / 3600, seconds[1] * steps / 3600)

    @property
    def published(self) -> PublishedCost | None:
        """The paper's own cost, where it is known."""
        return COSTS.get(self.experiment.name)


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
        experiment: its first run; those that follow it (`after`) are not planned.
        topology: such as `v5e:16x16`, or `2xv5e:16x16` with two slices; None: the devices here.
        mesh: in place of the experiment's own, and it must fit; the experiment's own, where it
            does not fit, is replaced by one that does, with a note.
        slices: how many, where the topology does not say.
        price: of a chip for an hour, in any currency.
        report: is told what is being done.
        effort: of the TPU compiler. At `least` it takes a quarter of the time and gives memory
            within a few percent; what is near to the limit is compiled in full. `mixed` compiles
            in full what decides whether it fits: the largest shape of batches. At less than `full`
            libtpu crashes for some programs, and ends the process.

    Raises:
        ConfigError: an unknown topology, or libtpu is not installed.
        ShardingError: a mesh that the pod, the model or the batch does not divide over.
    """
    pod = topology if isinstance(topology, Pod) else pod_of(topology, slices)
    with uncached(), captured_xla_warnings() as warned:
        made = plan_on(pod, experiment, mesh, report, effort=effort)
        if effort == "least" and made.near:
            made = plan_on(pod, experiment, mesh, report, effort="mixed")
    made.price = price
    made.warnings += warned
    return made


def pod_of(topology: str | None, slices: int | None = None) -> Pod:
    """The pod of that name; None: the devices here."""
    return local_pod() if topology is None else tpu_pod(topology, slices)


def plan_on(
    pod: Pod,
    experiment: Experiment,
    mesh: MeshConfig | None = None,
    report: Callable[[str], None] | None = None,
    *,
    effort: Effort = "full",
) -> Plan:
    """`plan` without XLA's warnings, which can be heard by one at a time only, and without its
    second look at what is near to the limit."""
    config, notes = chosen_mesh(experiment, pod, mesh)
    experiment = replace(experiment, mesh=config)
    grid = make_mesh(config, pod.devices)
    state = _state(experiment, grid)
    said: list[str] = []
    with log_attention_backends(said.append):
        planned = _shape_plans(experiment, pod, grid, effort, report)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    notes += [*dict.fromkeys(said), *_notes(experiment)]
    made = Plan(experiment, pod, grid, params, state_bytes(state), planned, notes)
    made.batch_norm = "batch_stats" in state.model_state
    made.warnings = wastes(made, state)
    return made


def _notes(experiment: Experiment) -> Iterator[str]:
    """What the numbers leave open."""
    count = len(experiment.task.batch_shapes())
    if count > 1 and not _phases(experiment):
        yield f"the batch has {count} shapes, each taken for as many steps"
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
    """A plan for each shape of batches."""
    shapes, shares = experiment.task.batch_shapes(), _shares(experiment)
    largest = max(range(len(shapes)), key=lambda number: _bytes(shapes[number]))
    planned: dict[int, ShapePlan] = {}
    for number in sorted(range(len(shapes)), key=lambda number: number != largest):
        if report is not None:
            report(f"compiling for {pod.name}, batch shape {number + 1} of {len(shapes)}")
        parts = experiment, pod, mesh, shapes[number], shares[number]
        smaller = effort == "mixed" and number != largest
        made = _shape_plan(*parts, "least" if smaller else effort)
        if smaller and made.compiled.quick and _may_decide(made, planned[largest]):
            made = _shape_plan(*parts, "mixed")
        planned[number] = made
    return [planned[number] for number in range(len(shapes))]


def _may_decide(quick: ShapePlan, largest: ShapePlan) -> bool:
    """Whether a shape may need the most memory; a quick compile's is a few percent off."""
    needed, most = quick.compiled.needed, largest.compiled.needed
    return needed is None or most is None or needed >= 0.9 * most


def _bytes(shape: dict[str, jax.ShapeDtypeStruct]) -> int:
    return sum(math.prod(each.shape) * each.dtype.itemsize for each in shape.values())


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
    experiment: Experiment, pod: Pod, given: MeshConfig | None
) -> tuple[MeshConfig, list[str]]:
    """The mesh to plan with, and what to say of it.

    Raises:
        ShardingError: the mesh that was given does not fit the pod or the batch.
    """
    if given is not None and given.slices not in (1, pod.slices):
        raise ShardingError(
            f"mesh slices={given.slices}, but {pod.name} has {pod.slices}; give --slices "
            f"{given.slices} with the topology"
        )
    wanted = replace(given or experiment.mesh, slices=pod.slices)
    try:
        shape = wanted.shape(len(pod.devices))
        _check_batch(experiment, shape)
        return MeshConfig(*shape, pod.slices), []
    except ShardingError as error:
        if given is not None:
            raise
        shape = _default_mesh(experiment, pod)
        text = "x".join(map(str, shape))
        return MeshConfig(*shape, pod.slices), [
            f"mesh {text}, because its own does not fit: {error}"
        ]


def _default_mesh(experiment: Experiment, pod: Pod) -> tuple[int, int, int]:
    """As much of the pod on `data` as the batch divides over, the rest on `tensor`."""
    devices = len(pod.devices)
    data = devices
    for rows in _rows(experiment):
        data = math.gcd(data, rows // experiment.accumulate)
    if data % pod.slices:
        raise ShardingError(
            f"a batch of {min(_rows(experiment))} rows does not divide over {pod.slices} slices"
        )
    shape = data, 1, devices // data
    _check_batch(experiment, shape)  # the parts of the batch may not divide it at all
    return shape


def _rows(experiment: Experiment) -> list[int]:
    shapes = experiment.task.batch_shapes()
    return [next(iter(shape.values())).shape[0] for shape in shapes]


def _check_batch(experiment: Experiment, shape: tuple[int, int, int]) -> None:
    parts = shape[0] * shape[1] * experiment.accumulate
    for rows in _rows(experiment):
        if rows % parts:
            raise ShardingError(
                f"a batch of {rows} rows does not divide over data={shape[0]} x fsdp={shape[1]}"
                + f" in {experiment.accumulate} parts" * (experiment.accumulate > 1)
                + "; change --mesh.data, --mesh.fsdp, --mesh.tensor or the batch's rows"
            )


def divides(experiment: Experiment, pod: Pod, mesh: MeshConfig) -> bool:
    """Whether that mesh of the pod divides the batch, its parts and the model."""
    try:
        config, _ = chosen_mesh(experiment, pod, mesh)
        _state(replace(experiment, mesh=config), make_mesh(config, pod.devices))
    except ShardingError:
        return False
    return True


def _phases(experiment: Experiment) -> tuple:
    return getattr(getattr(experiment.task, "pretraining", None), "phases", ())


def _shares(experiment: Experiment) -> list[float]:
    """The share of the steps that each shape of batches takes; equal ones where data decides."""
    phases = _phases(experiment)
    if not phases:
        count = len(experiment.task.batch_shapes())
        return [1 / count] * count
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
    """Bytes of a state on one device, by kind, without padding to tiles."""
    other = (state.step, state.model_state, state.ema)
    kinds = {"parameters": state.params, "optimizer": state.opt_state, "other": other}
    return {kind: device_bytes(tree) for kind, tree in kinds.items()}
