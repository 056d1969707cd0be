"""`search`: meshes, rematerialisation and parts of the batch that keep a run's results, tried out.

For each mesh the ways to save memory are tried from the quickest step to the smallest memory, and
the first that fits stands; the meshes are compared by the time that their plans give. All are
compiled at the effort that is asked for; those near the limit, and the best, as `train` would. The
global batch and what is learned stay the same, so a model with batch norm keeps its batch in one
part.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import Progress

from jaxformers.costs.xla_warnings import uncached
from jaxformers.errors import ConfigError, UserError
from jaxformers.planning.plan_result import Plan
from jaxformers.planning.planner import plan_on, pod_of
from jaxformers.planning.program import Effort
from jaxformers.planning.report import ms
from jaxformers.planning.topologies import Pod
from jaxformers.sharding import MeshConfig
from jaxformers.training.experiment import Experiment

# (attention, or None for the experiment's own; remat; parts of the batch), from the quickest on.
SAVINGS = (
    (None, "none", 1),
    ("splash", "none", 1),
    (None, "dots", 1),
    (None, "full", 1),
    ("splash", "full", 1),
    (None, "full", 2),
    (None, "full", 4),
    (None, "full", 8),
)
MOST_TENSOR = 8


@dataclass
class Found:
    """What a search tried.

    Attributes:
        pod: the machine.
        tried: plans in the order of their slowest times, those that fit first.
        start: the experiment that was searched for.
    """

    pod: Pod
    tried: list[Plan]
    start: Experiment

    @property
    def best(self) -> Plan | None:
        """The quickest that fits, None where none does."""
        return next((plan for plan in self.tried if plan.fits), None)

    def text(self, command: Sequence[str]) -> str:
        """A table of all that were tried, and the command that runs the best."""
        lines = [
            f"{self.start.name} on {self.pod.name}: {len(self.tried)} tried",
            f"  {'mesh (data x fsdp x tensor)':28} {'remat':6} {'parts':>5} {'attention':9} "
            f"{'of memory':>9} {'step at worst':>13}",
            *(_row(plan) for plan in self.tried),
        ]
        if self.best is None:
            return "\n".join([*lines, "none fits: take a larger pod, or a smaller batch"])
        if any(plan.quick for plan in self.tried):
            lines.append(
                "  (compiled at the least effort, memory within a few percent; the best, and what "
                "is near the limit, as `train` would)"
            )
        words = shlex.join([*command, *changes(self.start, self.best.experiment)])
        return "\n".join([*lines, "the best that fits:", f"  {words}"])


def search(
    experiment: Experiment,
    topology: str | Pod | None = None,
    *,
    slices: int | None = None,
    workers: int | None = None,
    effort: Effort = "full",
) -> Found:
    """Tries meshes and ways to save memory on a pod, as many at once as there are cores.

    `effort` is that of `plan`; what `least` leaves open is compiled in full.

    Raises:
        ConfigError: no mesh divides the batch and the model.
    """
    pod = topology if isinstance(topology, Pod) else pod_of(topology, slices)
    chains = list(meshes(experiment, pod))
    console = Console(stderr=True)
    bar = Progress(console=console, disable=not console.is_terminal)
    with uncached(), bar as progress:
        task = progress.add_task("meshes", total=len(chains))

        def tried(mesh: MeshConfig) -> list[Plan]:
            chain_plans = _chain(experiment, pod, mesh, effort)
            progress.advance(task)
            return chain_plans

        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            plans = [candidate for chain in pool.map(tried, chains) for candidate in chain]
        if not plans:
            raise ConfigError(
                f"no mesh of {len(pod.devices)} devices divides the batch and the model"
            )
        result = Found(pod, sorted(plans, key=_rank), experiment)
        # A quick compile may be wrong by a few percent of memory: the winner is compiled in full,
        # and takes its place in the order again, until a full compile leads.
        while (best := result.best) is not None and best.quick:
            result.tried.remove(best)
            result.tried = sorted([*result.tried, _again(best)], key=_rank)
    return result


def _again(plan: Plan) -> Plan:
    """The same plan, compiled as `train` would."""
    return plan_on(plan.pod, plan.experiment, plan.experiment.mesh, effort="mixed")


def _rank(plan: Plan) -> tuple:
    needed = plan.worst.compiled.needed or float("inf")
    return not plan.fits, plan.seconds[1] if plan.seconds else 0.0, needed


def meshes(experiment: Experiment, pod: Pod) -> Iterator[MeshConfig]:
    """Meshes of the pod: copies alone, all parameters divided, and steps between them."""
    devices = len(pod.devices)
    # Only `data`, the outermost axis, spans slices: within one, parameters are gathered.
    inside = devices // pod.slices
    tensor = 1
    while tensor <= min(MOST_TENSOR, inside):
        if devices % tensor == 0:
            left = inside // tensor
            # Copies alone, state over 8 devices, state over all devices of a slice.
            for fsdp in sorted({1, min(8, left), left}):
                if left % fsdp == 0:
                    yield MeshConfig(devices // tensor // fsdp, fsdp, tensor, pod.slices)
        tensor *= 2


def _chain(experiment: Experiment, pod: Pod, mesh: MeshConfig, effort: Effort) -> list[Plan]:
    """Plans on one mesh until one fits; none where the mesh does not divide the model."""
    plans: list[Plan] = []
    # From the cheapest saving of memory to the dearest; the first that fits is the quickest.
    for attention, remat, num_microbatches in SAVINGS:
        if attention and pod.devices[0].platform != "tpu":
            continue
        # Batch norm's statistics depend on how the batch is split: accumulation changes results.
        if num_microbatches > 1 and plans[-1].batch_norm:
            break
        tried = replace(
            experiment,
            attention=attention or experiment.attention,
            remat=remat,
            accumulate=experiment.accumulate * num_microbatches,
        )
        try:
            candidate = plan_on(pod, tried, mesh, effort=effort)
            if candidate.quick and candidate.near:
                candidate = _again(candidate)
        except UserError:
            break
        # A back-end that cannot do what is asked leaves the program as it was.
        if not attention or candidate.worst.compiled != plans[-1].worst.compiled:
            plans.append(candidate)
        # State that is larger than the memory fits with no saving of activations.
        state = sum(plans[-1].state.values())
        if plans[-1].fits or (plans[-1].memory and state > plans[-1].memory):
            break
    return plans


def _row(plan: Plan) -> str:
    e, needed, room = plan.experiment, plan.worst.compiled.needed, plan.memory
    mesh = " x ".join(str(size) for size in plan.mesh.shape.values())
    share = f"{needed / room:.0%}" if needed and room else "too much"
    time = ms(plan.seconds[1]) if plan.seconds and plan.fits else "does not fit"
    return f"  {mesh:28} {e.remat:6} {e.accumulate:5} {e.attention:9} {share:>9} {time:>13}"


def changes(before: Experiment, after: Experiment) -> list[str]:
    """The options of `train` that make one experiment of the other."""
    sizes = [
        word
        for axis in ("data", "fsdp", "tensor", "slices")
        if getattr(before.mesh, axis) != getattr(after.mesh, axis)
        for word in (f"--mesh.{axis}", str(getattr(after.mesh, axis)))
    ]
    for name in ("remat", "accumulate", "attention"):
        if getattr(before, name) != getattr(after, name):
            sizes += [f"--{name}", str(getattr(after, name))]
    return sizes
