"""`Plan`: the result of planning a run, and what follows from it: fit, time, utilisation, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
from jax.sharding import Mesh

from jaxformers.evaluation.published_costs import COSTS, PublishedCost
from jaxformers.planning.program import Compiled
from jaxformers.planning.roofline import Roofline
from jaxformers.planning.topologies import Pod
from jaxformers.sharding import batch_shards
from jaxformers.training.experiment import Experiment


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
        return max(self.shapes, key=lambda shape: shape.compiled.needed or math.inf)

    @property
    def memory(self) -> float | None:
        """Bytes that a device has; None where that is not known."""
        chip = self.pod.chip
        return None if chip is None else chip.memory / self.pod.cores

    @property
    def fits(self) -> bool:
        """Whether every shape's step compiles and needs no more than there is."""
        compiled = [program.compiled for program in self.shapes]
        room = math.inf if self.memory is None else self.memory
        return all(program.compiles and program.needed <= room for program in compiled)

    @property
    def quick(self) -> bool:
        """Whether no shape was compiled at full effort."""
        return all(shape.compiled.quick for shape in self.shapes)

    @property
    def near(self) -> bool:
        """Whether what is needed is so near to what there is that a quick compile may err."""
        needed, room = self.worst.compiled.needed, self.memory
        return room is not None and (needed is None or 0.9 <= needed / room <= 1.1)

    def kinds(self, shape: ShapePlan) -> dict[str, int]:
        """Bytes on a device by kind, for one shape of batches; together what is needed."""
        compiled, shards = shape.compiled, batch_shards(self.mesh)
        batch = batch_bytes(shape.shape) // shards
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
        if any(shape.roofline is None for shape in self.shapes):
            return None
        low = sum(shape.share * shape.roofline.range[0] for shape in self.shapes)
        high = sum(shape.share * shape.roofline.range[1] for shape in self.shapes)
        return low, high

    @property
    def model_flops(self) -> float:
        """Of a step, the mean over all shapes."""
        return sum(shape.share * shape.model_flops for shape in self.shapes)

    @property
    def hardware_flops(self) -> float:
        """Of a step, with what is computed again."""
        return sum(shape.share * shape.compiled.flops for shape in self.shapes)

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


def batch_bytes(arrays: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of a global batch of these shapes and types."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
