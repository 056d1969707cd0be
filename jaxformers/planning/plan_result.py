"""`Plan`: the result of planning a run, with its fit, step time, utilisation and cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
from jax.sharding import Mesh

from jaxformers.evaluation.published.costs import COSTS, PublishedCost
from jaxformers.planning.program import Compiled
from jaxformers.planning.roofline import Roofline
from jaxformers.planning.topologies import Pod
from jaxformers.sharding import batch_shards
from jaxformers.training.experiment import Experiment


@dataclass
class ShapePlan:
    """The plan of the steps with one batch shape.

    Attributes:
        shape: arrays of the global batch by name.
        share: share of the run's steps that have this shape, between 0 and 1.
        compiled: the compiled step.
        model_flops: matrix products of a step without recomputation: MFU's numerator.
        roofline: None if the chip has no data sheet or the step does not compile.
    """

    shape: dict[str, jax.ShapeDtypeStruct]
    share: float
    compiled: Compiled
    model_flops: int
    roofline: Roofline | None


@dataclass
class Plan:
    """Memory, time and cost of a run on a pod.

    Attributes:
        experiment: the experiment, with the mesh that was planned.
        pod: the machine.
        mesh: the mesh of its devices.
        parameters: number of parameters, padding of the vocabulary included.
        state: bytes of the train state on one device by kind: parameters, optimizer, other.
        shapes: one plan per batch shape.
        notes: choices made on the user's behalf, such as another mesh.
        warnings: avoidable costs, one line each.
        batch_norm: whether the model has batch norm, whose statistics would change with
            gradient accumulation.
        price: price of a chip-hour, None if not given.
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
        # A shape that did not compile has no figure, and is worse than any that has.
        return max(self.shapes, key=lambda shape: shape.compiled.needed or math.inf)

    @property
    def memory(self) -> float | None:
        """Bytes of memory of a device; None if unknown."""
        # A data sheet states a chip's memory; on v2, v3 and 7x each of its two cores is a device.
        chip = self.pod.chip
        return None if chip is None else chip.memory / self.pod.cores

    @property
    def fits(self) -> bool:
        """Whether the step of every shape compiles and fits in the memory of a device."""
        compiled = [program.compiled for program in self.shapes]
        room = math.inf if self.memory is None else self.memory
        return all(program.compiles and program.needed <= room for program in compiled)

    @property
    def quick(self) -> bool:
        """Whether no shape was compiled at full effort."""
        return all(shape.compiled.quick for shape in self.shapes)

    @property
    def near(self) -> bool:
        """Whether the need is within 10 % of the memory, where a quick compile may err."""
        needed, room = self.worst.compiled.needed, self.memory
        return room is not None and (needed is None or 0.9 <= needed / room <= 1.1)

    def kinds(self, shape: ShapePlan) -> dict[str, int]:
        """Bytes on a device by kind for one batch shape; they sum to `compiled.needed`."""
        compiled, shards = shape.compiled, batch_shards(self.mesh)
        batch = batch_bytes(shape.shape) // shards
        kinds = {**self.state, "batch": batch}
        if not compiled.compiles:
            return kinds
        # The compiler's arguments are padded to tiles; the shapes they were made from are not.
        aligned = max(0, compiled.arguments - sum(kinds.values()))
        return {
            **kinds,
            "alignment": aligned + compiled.outputs,
            "activations": compiled.saved_activations,
            # Gradients and working memory: temporaries that do not live until the backward pass.
            "temporaries": compiled.temporaries - compiled.saved_activations,
            "program": compiled.code,
        }

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Seconds of a step, (best, worst), the mean over all batch shapes; None if unknown."""
        if any(shape.roofline is None for shape in self.shapes):
            return None
        low = sum(shape.share * shape.roofline.range[0] for shape in self.shapes)
        high = sum(shape.share * shape.roofline.range[1] for shape in self.shapes)
        return low, high

    @property
    def model_flops(self) -> float:
        """Model FLOPs of a step, averaged over the batch shapes."""
        return sum(shape.share * shape.model_flops for shape in self.shapes)

    @property
    def hardware_flops(self) -> float:
        """FLOPs of a step with recomputation, averaged over the batch shapes."""
        return sum(shape.share * shape.compiled.flops for shape in self.shapes)

    def utilisation(self, flops: float) -> tuple[float, float] | None:
        """`flops` per step over the chips' peak, (worst, best); None without a roofline."""
        if self.seconds is None:
            return None
        # utilisation = FLOPs / (seconds x peak FLOP/s of all chips); the slow end is the low share.
        peak = self.pod.chip.peak_bf16 * self.pod.chips
        return flops / (self.seconds[1] * peak), flops / (self.seconds[0] * peak)

    @property
    def hours(self) -> tuple[float, float] | None:
        """Hours of all steps, (best, worst), without evaluation, checkpoints and start-up."""
        seconds, steps = self.seconds, self.experiment.steps
        return seconds and (seconds[0] * steps / 3600, seconds[1] * steps / 3600)

    @property
    def published(self) -> PublishedCost | None:
        """The cost that the paper reports, if any."""
        return COSTS.get(self.experiment.name)


def batch_bytes(arrays: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of a global batch of these shapes and types."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
