"""`search`: the fastest mesh, rematerialisation and accumulation that fit a pod.

On each mesh the ways to save memory are tried from the fastest step to the smallest memory, and the
first that fits is taken; meshes are then ranked by the step time of their plans. Plans are compiled
at the requested effort; those near the memory limit, and the best, with the options of `train`. The
global batch and the training result do not change, so models with batch norm are not accumulated.
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

# (attention, None for the experiment's own; remat; microbatches), the fastest first.
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
class SearchResult:
    """Plans of a search, ranked.

    Attributes:
        pod: the machine.
        plans: all plans by worst-case step time, those that fit first.
        start: the experiment before the search.
    """

    pod: Pod
    plans: list[Plan]
    start: Experiment

    @property
    def best(self) -> Plan | None:
        """The fastest plan that fits; None if none does."""
        return next((plan for plan in self.plans if plan.fits), None)

    def text(self, command: Sequence[str]) -> str:
        """A table of all plans, and the command that runs the best."""
        lines = [
            f"{self.start.name} on {self.pod.name}: {len(self.plans)} plans",
            f"  {'mesh (data x fsdp x tensor)':28} {'remat':6} {'accum':>5} {'attention':9} "
            f"{'of memory':>9} {'worst step':>13}",
            *(_row(plan) for plan in self.plans),
        ]
        if self.best is None:
            return "\n".join([*lines, "none fits: use a larger pod or a smaller batch"])
        if any(plan.quick for plan in self.plans):
            lines.append(
                "  (compiled at the least effort, memory within a few percent; the best plan, and "
                "those near the limit, in full)"
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
) -> SearchResult:
    """Plans meshes and ways to save memory on a pod, one thread per core.

    Args:
        experiment: the experiment to plan.
        topology, slices: as in `plan`.
        workers: number of threads; None: one per core.
        effort: as in `plan`; plans near the memory limit, and the best, are compiled in full.

    Raises:
        ConfigError: no mesh divides the batch and the model.
    """
    pod = topology if isinstance(topology, Pod) else pod_of(topology, slices)
    chains = list(meshes(experiment, pod))
    console = Console(stderr=True)
    bar = Progress(console=console, disable=not console.is_terminal)
    with uncached(), bar as progress:
        task = progress.add_task("meshes", total=len(chains))

        def plan_mesh(mesh: MeshConfig) -> list[Plan]:
            chain_plans = _chain(experiment, pod, mesh, effort)
            progress.advance(task)
            return chain_plans

        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            plans = [candidate for chain in pool.map(plan_mesh, chains) for candidate in chain]
        if not plans:
            raise ConfigError(
                f"no mesh of {len(pod.devices)} devices divides the batch and the model"
            )
        result = SearchResult(pod, sorted(plans, key=_rank), experiment)
        # A quick compile may be wrong by a few percent of memory: the winner is compiled in full
        # and ranked again, until the best plan is a full compile.
        while (best := result.best) is not None and best.quick:
            result.plans.remove(best)
            result.plans = sorted([*result.plans, _compiled_in_full(best)], key=_rank)
    return result


def _compiled_in_full(plan: Plan) -> Plan:
    """The same plan, compiled with the options of `train`."""
    return plan_on(plan.pod, plan.experiment, plan.experiment.mesh, effort="mixed")


def _rank(plan: Plan) -> tuple:
    needed = plan.worst.compiled.needed or float("inf")
    return not plan.fits, plan.seconds[1] if plan.seconds else 0.0, needed


def meshes(experiment: Experiment, pod: Pod) -> Iterator[MeshConfig]:
    """Meshes from pure data parallelism to fully sharded state, at tensor sizes 1 to 8."""
    devices = len(pod.devices)
    # Only `data`, the outermost axis, spans slices: within one, parameters are gathered.
    inside = devices // pod.slices
    tensor = 1
    while tensor <= min(MOST_TENSOR, inside):
        if devices % tensor == 0:
            left = inside // tensor
            # Replicated state, state over 8 devices, state over all devices of a slice.
            for fsdp in sorted({1, min(8, left), left}):
                if left % fsdp == 0:
                    yield MeshConfig(devices // tensor // fsdp, fsdp, tensor, pod.slices)
        tensor *= 2


def _chain(experiment: Experiment, pod: Pod, mesh: MeshConfig, effort: Effort) -> list[Plan]:
    """Plans on one mesh up to the first that fits; empty if the mesh does not divide the model."""
    plans: list[Plan] = []
    # From the cheapest saving in step time to the dearest; the first that fits is the fastest.
    for attention, remat, num_microbatches in SAVINGS:
        if attention and pod.devices[0].platform != "tpu":
            continue
        # Batch norm's statistics depend on how the batch is split: accumulation changes results.
        if num_microbatches > 1 and plans[-1].batch_norm:
            break
        changed = replace(
            experiment,
            attention=attention or experiment.attention,
            remat=remat,
            accumulate=experiment.accumulate * num_microbatches,
        )
        try:
            candidate = plan_on(pod, changed, mesh, effort=effort)
            if candidate.quick and candidate.near:
                candidate = _compiled_in_full(candidate)
        except UserError:
            break
        # A back-end that does not support the case falls back to plain attention: the same program.
        if not attention or candidate.worst.compiled != plans[-1].worst.compiled:
            plans.append(candidate)
        # State larger than the memory: no saving of activations can make it fit.
        state = sum(plans[-1].state.values())
        if plans[-1].fits or (plans[-1].memory and state > plans[-1].memory):
            break
    return plans


def _row(plan: Plan) -> str:
    e, needed, room = plan.experiment, plan.worst.compiled.needed, plan.memory
    mesh = " x ".join(str(size) for size in plan.mesh.shape.values())
    share = f"{needed / room:.0%}" if needed and room else "> 100 %"
    time = ms(plan.seconds[1]) if plan.seconds and plan.fits else "does not fit"
    return f"  {mesh:28} {e.remat:6} {e.accumulate:5} {e.attention:9} {share:>9} {time:>13}"


def changes(before: Experiment, after: Experiment) -> list[str]:
    """The options of `train` that turn `before` into `after`."""
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
