"""A plan for machines: one JSON object with stable keys, all sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Any

from jaxformers.planning.plan_result import Plan, ShapePlan
from jaxformers.planning.report import basis, reduction_types, remedies, traffic


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; what is not known is null. Ranges are [best, worst].

    Keys:
        experiment, topology: their names.
        chips, devices, slices: of the pod; a chip may be two devices (v2, v3, 7x).
        mesh: axis to size.
        fits: whether every shape of batches fits.
        memory: of a chip: `chip` (what it has, by the data sheet), `needed` and `kinds` (by kind).
        parameters: how many numbers.
        model_flops, hardware_flops: of a step, the mean over the shapes of batches.
        seconds: of a step. mfu, hardware_utilisation: [at worst, at best], as shares of the peak.
        steps, hours, chip_hours, price, cost: of the whole run; `price` as it was given.
        shapes: for each shape of batches `arrays`, `share` of the steps, `seconds`, `roofline`
            (seconds of `compute`, `memory`, `network` and `between` slices at the peak rates),
            `model_flops`, `hardware_flops`, `moved` (of a device), `needed` (of a device),
            `collectives` (`kind`, `axes`, `slices`, `count`, `bytes`, `wire`),
            `reduction` (bytes of gradients' sums by type), `readable`, `unknown_loops` and `quick`
            (see `program.Compiled`).
        published: the paper's own cost, or null.
        notes, warnings, remedies, basis: lines for people; `remedies` is empty where it fits.
    """
    cores, chips, low_high = plan.pod.cores, plan.pod.chips, plan.hours
    worst, needed = plan.worst, plan.worst.compiled.needed
    chip_hours = low_high and [hours * chips for hours in low_high]
    return {
        "experiment": plan.experiment.name,
        "topology": plan.pod.name,
        "chips": chips,
        "devices": len(plan.pod.devices),
        "slices": plan.pod.slices,
        "mesh": dict(plan.mesh.shape),
        "fits": plan.fits,
        "memory": {
            "chip": plan.memory and plan.memory * cores,
            "needed": needed and needed * cores,
            "kinds": {kind: size * cores for kind, size in plan.kinds(worst).items()},
        },
        "parameters": plan.parameters,
        "model_flops": plan.model_flops,
        "hardware_flops": plan.hardware_flops,
        "seconds": _list(plan.seconds),
        "mfu": _list(plan.utilisation(plan.model_flops)),
        "hardware_utilisation": _list(plan.utilisation(plan.hardware_flops)),
        "steps": plan.experiment.steps,
        "hours": _list(low_high),
        "chip_hours": chip_hours,
        "price": plan.price,
        "cost": _cost(chip_hours, plan.price),
        "shapes": [_shape(shape) for shape in plan.shapes],
        "published": plan.published and plan.published._asdict(),
        "notes": plan.notes,
        "warnings": plan.warnings,
        "remedies": [] if plan.fits else remedies(plan),
        "basis": basis(plan),
    }


def _cost(chip_hours: list[float] | None, price: float | None) -> list[float] | None:
    if chip_hours is None or price is None:  # a price of 0 is one
        return None
    return [hours * price for hours in chip_hours]


def _shape(shape: ShapePlan) -> dict[str, Any]:
    line, compiled = shape.roofline, shape.compiled
    return {
        "arrays": {name: list(spec.shape) for name, spec in shape.shape.items()},
        "share": shape.share,
        "seconds": line and list(line.range),
        "roofline": line and vars(line),
        "model_flops": shape.model_flops,
        "hardware_flops": compiled.flops,
        "moved": compiled.moved,
        "needed": compiled.needed,
        "collectives": [{**row, "axes": list(row["axes"])} for row in traffic(shape)],
        "reduction": dict(reduction_types(shape)),
        "readable": compiled.readable,
        "unknown_loops": compiled.unknown_loops,
        "quick": compiled.quick,
    }


def _list(pair: tuple[float, float] | None) -> list[float] | None:
    return pair and list(pair)
