"""Step time as a range, from FLOPs, memory traffic and bytes sent (a roofline model).

Each of the three terms is its amount over the chip's peak rate. The fast end assumes full overlap
at `FAST` of the peaks; the slow end assumes half overlap (the root of the sum of squares) at `SLOW`
of the peaks. The ends are therefore at most sqrt(3) x FAST / SLOW = 2.95 apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from jaxformers.costs import Chip
from jaxformers.costs.collectives import Collective
from jaxformers.planning.program import Compiled
from jaxformers.planning.topologies import Pod

FAST, SLOW = 0.85, 0.5
BETWEEN = 3.125e9  # bytes/s of a chip to other slices if unpublished: the lowest published rate


@dataclass(frozen=True)
class Roofline:
    """Seconds that each resource would need for a step alone, at its peak rate.

    Attributes:
        compute: matrix products.
        memory: reading and writing main memory.
        network: collectives within a slice.
        between: collectives between slices.
    """

    compute: float
    memory: float
    network: float
    between: float

    @property
    def range(self) -> tuple[float, float]:
        """Seconds of a step at best and at worst."""
        # best = max(terms) / FAST: all overlap; worst = sqrt(sum of squares) / SLOW: half overlap.
        terms = (self.compute, self.memory, self.network + self.between)
        return max(terms) / FAST, math.hypot(*terms) / SLOW

    @property
    def bound(self) -> str:
        """The resource that takes the longest."""
        names = {
            "matrix products": self.compute,
            "memory": self.memory,
            "the network": self.network + self.between,
        }
        return max(names, key=names.get)


def roofline(compiled: Compiled, pod: Pod, mesh: Mesh) -> Roofline | None:
    """The roofline of a compiled step; None if the chip has no data sheet or it did not compile."""
    if pod.chip is None or not compiled.compiles:
        return None
    # Within a slice collectives use its own links (ICI), across slices the data centre's network.
    inside = [op for op in compiled.collectives if op.slices == 1]
    across = [op for op in compiled.collectives if op.slices > 1]
    return Roofline(
        # FLOPs are counted for the whole pod, bytes moved and sent for one device, and a chip's
        # bandwidth is shared by its cores.
        compiled.flops / (pod.chip.peak_bf16 * pod.chips),
        compiled.moved / (pod.chip.bandwidth / pod.cores),
        sum(op.wire * op.times / _rate(op, pod, mesh) for op in inside),
        sum(op.wire * op.times for op in across) / ((pod.chip.between or BETWEEN) / pod.cores),
    )


def _rate(collective: Collective, pod: Pod, mesh: Mesh) -> float:
    """Peak bytes/s that a device of the group can send."""
    chip: Chip = pod.chip
    link = chip.link or 0.0
    if pod.devices[0].platform != "tpu":
        return (link * chip.links or BETWEEN) / pod.cores
    # Links of a torus lie along its dimensions: a group uses those of the dimensions it spans.
    spans = _spans(collective.axes, mesh)
    # A ring uses two links of a chip in each dimension; a line can use only one at a time.
    links = sum(2 if span >= pod.wraps else 1 for span in spans)
    return (link * links if links else chip.bandwidth) / pod.cores


def _spans(axes: Iterable[str], mesh: Mesh) -> list[int]:
    """Number of chips of a group along each dimension of the torus that it spans."""
    axis_indices = [mesh.axis_names.index(a) for a in axes if a in mesh.axis_names]
    if not axis_indices:
        return [2]  # no mesh axis is named: assume one link each way
    group = tuple(slice(None) if i in axis_indices else 0 for i in range(mesh.devices.ndim))
    # One representative group: index 0 on the mesh axes that the collective does not use.
    coords = np.array([d.coords for d in np.ravel(mesh.devices[group])])
    widths = coords.max(0) - coords.min(0) + 1
    return [int(n) for n in widths if n > 1]
