"""Formats a plan as a page of text, and draws its memory as a bar chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from matplotlib.figure import Figure

from jaxformers.costs.hlo_operations import bits
from jaxformers.planning.plan_result import Plan, ShapePlan
from jaxformers.planning.planner import divides
from jaxformers.planning.roofline import FAST, SLOW
from jaxformers.sharding import MeshConfig

KINDS = {
    "parameters": "parameters (float32)",
    "optimizer": "optimizer",
    "other": "EMA and other state",
    "batch": "batch",
    "alignment": "padding to tiles",
    "activations": "saved for the backward pass",
    "temporaries": "gradients and working memory",
    "program": "the program",
}
GB = 1e9


def text(plan: Plan) -> str:
    """The report of a plan as text."""
    sizes = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items())
    lines = [f"{plan.experiment.name} on {plan.pod.name}: {plan.pod.text}, mesh {sizes}"]
    lines += [f"  note: {note}" for note in plan.notes]
    lines += ["", *_memory(plan), "", *_step(plan), "", *_collectives(plan), *_run(plan)]
    if plan.warnings:
        lines += ["", "Avoidable costs", *(f"  - {warning}" for warning in plan.warnings)]
    return "\n".join(
        [*lines, "", "How these figures are obtained", *(f"  - {line}" for line in basis(plan))]
    )


def verdict(plan: Plan) -> str:
    """One line: whether the run fits, by how much, and if not, what to try."""
    needed, room = plan.worst.compiled.needed, plan.memory
    cores = plan.pod.cores
    if plan.fits:
        if room is None:
            return f"needs {needed * cores / GB:.2f} GB"
        return f"fits with {1 - needed / room:.0%} to spare".replace("%", " %")
    of = "" if room is None else f" of {room * cores / GB:.1f} GB"
    size = "" if needed is None else f": {needed * cores / GB:.1f} GB{of}"
    return f"does not fit{size}; try {' or '.join(remedies(plan))}"


def remedies(plan: Plan) -> list[str]:
    """Options that may make a plan fit, the cheapest in step time first."""
    e, options = plan.experiment, []
    # Sharding the state helps only where the state is a large share of the memory.
    large = plan.memory and sum(plan.state.values()) > plan.memory / 4
    if large and (mesh := _most_divided(plan)) is not None:
        options.append(f"--mesh.data {mesh.data} --mesh.fsdp {mesh.fsdp}")
    if e.remat != "full":
        options.append("--remat full")
    halved = replace(e, accumulate=2 * e.accumulate)
    # Accumulation would change batch norm's statistics, and so the model that is trained.
    if not plan.batch_norm and divides(halved, plan.pod, e.mesh):
        options.append(f"--accumulate {halved.accumulate}")
    return [*options, "--search"]


def _most_divided(plan: Plan) -> MeshConfig | None:
    """The valid mesh that moves the most of `data` to `fsdp`; None if there is none."""
    data, fsdp, tensor = plan.mesh.shape.values()
    for left in range(plan.pod.slices, data, plan.pod.slices):
        mesh = MeshConfig(left, data * fsdp // left, tensor)
        if data * fsdp % left == 0 and divides(plan.experiment, plan.pod, mesh):
            return mesh
    return None


def _memory(plan: Plan) -> Iterator[str]:
    cores, room = plan.pod.cores, plan.memory
    has = "" if room is None else f" (it has {room * cores / GB:.1f} GB)"
    yield f"Memory of a chip{has}" + f", batch {_batch(plan.worst)}" * (len(plan.shapes) > 1)
    for kind, size in plan.kinds(plan.worst).items():
        if size:
            yield f"  {KINDS[kind]:32} {_size(size * cores):>10}"
    needed = plan.worst.compiled.needed
    if needed:
        yield f"  {'total':32} {_size(needed * cores):>10}   {verdict(plan)}"
    else:
        yield f"  {verdict(plan)}"


def _step(plan: Plan) -> Iterator[str]:
    yield f"A step ({plan.parameters:,} parameters)"
    for shape in plan.shapes:
        compiled, line = shape.compiled, shape.roofline
        if len(plan.shapes) > 1:
            yield f"  batch {_batch(shape)}, {shape.share:.0%} of the steps".replace("%", " %")
        yield f"  {'model FLOPs':32} {shape.model_flops:10.3g}"
        yield f"  {'FLOPs with recomputation':32} {compiled.flops:10.3g}"
        if not compiled.compiles:
            continue
        yield f"  {'memory traffic of a chip':32} {_size(compiled.moved * plan.pod.cores):>10}"
        if line is not None:
            terms = f"products {ms(line.compute)}, memory {ms(line.memory)}, network "
            terms += ms(line.network)
            terms += f", between slices {ms(line.between)}" * (plan.pod.slices > 1)
            low, high = line.range
            yield f"  {'time':32} {ms(low)} to {ms(high)}; at the peak rates: {terms}"
            yield f"  {'':32} bound by {line.bound}"
    if plan.seconds:
        model, hardware = (
            plan.utilisation(flops) for flops in (plan.model_flops, plan.hardware_flops)
        )
        yield f"  {'MFU (model FLOPs)':32} {_percent(model)}; hardware FLOPs {_percent(hardware)}"


def _collectives(plan: Plan) -> Iterator[str]:
    for shape in plan.shapes:
        rows = traffic(shape)
        if not rows:
            continue
        compiled = shape.compiled
        second = " from a second compile without fusion" if compiled.readable else " of the program"
        read = " from a compile without fusion" if compiled.quick else second
        yield f"Collectives of a step,{read}" + (
            f", batch {_batch(shape)}" if len(plan.shapes) > 1 else ""
        )
        for row in rows:
            slices = f", across {row['slices']} slices" if row["slices"] > 1 else ""
            yield (
                f"  {row['count']:5} {row['kind']:18} over {' x '.join(row['axes']) or 'no axis'}"
                f"{slices}: {_size(row['bytes'])}, {_size(row['wire'])} sent by each device"
            )
        if reduced := reduction_types(shape):
            total = sum(reduced.values())
            shares = ", ".join(f"{kind} {size / total:.0%}" for kind, size in reduced.most_common())
            yield f"  gradients are reduced in {shares}".replace("%", " %")
        yield ""


def traffic(shape: ShapePlan) -> list[dict]:
    """Collectives summed by kind, axes and slices: count, bytes of results, bytes sent.

    `times` is the trip count of the loop around a collective: a scanned stack runs it per layer.
    """
    rows: dict[tuple, dict] = {}
    for collective in shape.compiled.collectives:
        key = (collective.kind, collective.axes, collective.slices)
        row = rows.setdefault(key, dict(zip(("kind", "axes", "slices"), key, strict=True)))
        for name, size in (("count", 1), ("bytes", collective.bytes), ("wire", collective.wire)):
            row[name] = row.get(name, 0) + int(size * collective.times)
    return sorted(rows.values(), key=lambda row: -row["wire"])


def reduction_types(shape: ShapePlan) -> Counter[str]:
    """Bytes of reductions over `data` and `fsdp` by element type.

    Nearly all of them are gradients; the loss and metrics add a few numbers.
    """
    bytes_by_type: Counter[str] = Counter()
    for collective in shape.compiled.collectives:
        if collective.kind in ("all-reduce", "reduce-scatter") and set(collective.axes) <= {
            "data",
            "fsdp",
        }:
            for dims, kind in zip(collective.shapes, collective.types, strict=True):
                count = 1
                for size in dims:
                    count *= size
                bytes_by_type[kind] += count * bits(kind) // 8 * collective.times
    return bytes_by_type


def _run(plan: Plan) -> Iterator[str]:
    yield "The run"
    if plan.hours:
        low, high = plan.hours
        chips = plan.pod.chips
        line = f"  {plan.experiment.steps:,} steps: {_hours(low)} to {_hours(high)}, "
        line += f"{_amount(low * chips)} to {_amount(high * chips)} chip-hours"
        if plan.price is not None:
            costs = " to ".join(_amount(hours * chips * plan.price) for hours in (low, high))
            line += f", {costs} at {plan.price:g} a chip-hour"
        yield line
    yield f"  model FLOPs in total: {plan.model_flops * plan.experiment.steps:.2g}"
    if (cost := plan.published) is not None:
        hours = f", {_hours(cost.hours)}" if cost.hours else ""
        chip_hours = f", {cost.chip_hours:,.0f} chip-hours" if cost.chip_hours else ""
        flops = f", {cost.flops:.2g} FLOPs" if cost.flops else ""
        yield f"  the paper: {cost.hardware}{hours}{chip_hours}{flops} ({cost.source})"


def basis(plan: Plan) -> list[str]:
    """How each figure is obtained, one line each."""
    tpu = plan.pod.devices[0].platform == "tpu"
    compiler = "the TPU compiler's own assignment" if tpu else "XLA's assignment"
    lines = [
        f"memory: {compiler} for this step and mesh; saved activations are read from its program",
        "FLOPs: matrix products of the step's jaxpr, loop bodies times their trip count",
        "memory traffic: each operation of the program reads its operands and writes its results",
    ]
    if loops := max(shape.compiled.unknown_loops for shape in plan.shapes):
        loops_text = "a loop" if loops == 1 else f"{loops} loops"
        lines.append(
            f"{loops_text} of unknown trip count: counted as one iteration, so FLOPs, memory "
            "traffic, collectives and time are lower bounds"
        )
    for shape in plan.shapes:
        if shape.compiled.quick:
            lines.append(
                f"batch {_batch(shape)}: compiled at the least effort, memory within a few percent "
                "of the full compile's"
            )
    if plan.seconds:
        lines += [
            f"time: the slowest of products, memory and network at {FAST:.0%} of the data sheet's "
            f"peaks with full overlap, to all three half overlapped at {SLOW:.0%}; an estimate, "
            "not a measurement".replace("%", " %"),
            "network: bytes sent by the ring algorithm over the torus's links in the dimensions "
            "that a group spans",
            "hours: steps alone; start-up, evaluation, checkpoints and restarts come on top",
        ]
    if plan.pod.slices > 1 and plan.pod.chip and plan.pod.chip.between is None:
        lines.append(
            "between slices: no rate is published for this chip; the lowest published rate is used"
        )
    return lines


def figure(plan: Plan) -> Figure:
    """A bar of a chip's memory by kind for each batch shape, beside the chip's capacity."""
    drawn = Figure(figsize=(8, 1.9 + 0.6 * len(plan.shapes)), layout="constrained")
    axes, cores = drawn.add_subplot(), plan.pod.cores
    names = [f"batch {_batch(shape)}" for shape in plan.shapes]
    left, least = [0.0] * len(names), plan.worst.compiled.needed or sum(plan.state.values())
    # Stacked bars: `left` is where each shape's next kind starts; kinds below 0.5 % are left out.
    for number, (kind, name) in enumerate(KINDS.items()):
        sizes = [plan.kinds(shape).get(kind, 0) * cores / GB for shape in plan.shapes]
        if max(sizes) * GB > least * cores / 200:
            axes.barh(names, sizes, left=left, label=name, color=f"C{number}", height=0.6)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    if plan.memory is not None:
        room = plan.memory * cores / GB
        axes.axvline(room, color="black", linestyle="--", label=f"a chip's {room:.1f} GB")
    axes.invert_yaxis()
    axes.set_xlabel("GB on a chip")
    axes.set_title(f"{plan.experiment.name} on {plan.pod.name}: {verdict(plan)}", fontsize=10)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return drawn


def _batch(shape: ShapePlan) -> str:
    """The largest array of a batch, such as `256 x 128`."""
    widest = max((spec.shape for spec in shape.shape.values()), key=lambda s: (len(s), s))
    return " x ".join(map(str, widest))


def _size(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size:.0f} B"


def ms(seconds: float) -> str:
    """`12.3 ms`, or seconds from one on."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _hours(hours: float) -> str:
    for unit, scale in (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= (3 if unit == "days" else 1) * scale:
            return f"{hours / scale:.1f} {unit}"
    return f"{hours * 3600:.1f} seconds"


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _percent(share: Iterable[float]) -> str:
    return " to ".join(f"{value:.0%}" for value in share).replace("%", " %")
