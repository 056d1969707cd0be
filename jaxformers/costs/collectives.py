"""Which collectives a compiled program holds: kind, bytes, mesh axes, how often, and their origin.

Read from the optimised HLO text. XLA writes the devices of a collective in three ways: lists
(`{{0,1},{2,3}}`), a transposed iota (`[4,2]<=[2,4]T(1,0)`), and axes of a mesh of its own
(`mesh['a'=4,'b'=2] {'b'}`); all become axes of ours.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxformers.costs.hlo import Operation, Program, called_by, numbers

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
    "send",
    "recv",
)
BETWEEN_SLICES = "xla_megascale_runtime"
Groups = frozenset[frozenset[int]]


@dataclass(frozen=True)
class Collective:
    """One collective operation of a compiled program.

    Attributes:
        name: of the HLO operation.
        kind: one of `KINDS`.
        shapes: of its results on one device.
        bytes: of those results.
        axes: the mesh axes that it runs over; `("?",)` where they are no axes of the mesh.
        op_name: the path of the JAX operation that it stems from.
        times: how often it runs in a step; one in a loop of unknown length counts as one.
        looped: whether it stands in the body of a loop.
        types: element types of the results.
        group: devices that take part together.
        slices: slices of a pod that it joins; 1 within a slice.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    axes: tuple[str, ...]
    op_name: str
    times: int = 1
    looped: bool = False
    types: tuple[str, ...] = ()
    group: int = 1
    slices: int = 1

    def __str__(self) -> str:
        """Its kind, axes, bytes and origin, in a line."""
        over = " x ".join(self.axes) or "one device"
        loop = " in a loop" if self.looped else ""
        return (
            f"{self.kind} over {over} of {self.bytes:,} bytes{loop} (%{self.name}, {self.op_name})"
        )

    @property
    def wire(self) -> float:
        """Bytes that a device sends each time, by the ring algorithm (a lower bound of any)."""
        share = (self.group - 1) / self.group
        if self.kind == "all-reduce":
            return 2 * share * self.bytes
        if self.kind == "reduce-scatter":
            return (self.group - 1) * self.bytes
        if self.kind in ("all-gather", "all-to-all", "ragged-all-to-all"):
            return share * self.bytes
        return 0.0 if self.kind == "recv" else float(self.bytes)


def collectives(hlo: str | Program, sizes: Mapping[str, int], slices: int = 1) -> list[Collective]:
    """The collectives in a compiled program.

    Args:
        hlo: `jit(f).lower(...).compile().as_text()`, or that parsed.
        sizes: the mesh's axes and their sizes, outermost first (`dict(mesh.shape)`).
        slices: of the pod, on the outermost axis.
    """
    program = Program.parse(hlo) if isinstance(hlo, str) else hlo
    loops = _loop_bodies(program)
    found = []
    for computation, operation in program:
        if operation.kind.removesuffix("-start") not in KINDS:
            continue
        if BETWEEN_SLICES not in operation.rest:
            each = _collective(operation, sizes, slices)
        elif operation.kind == "send":
            each = _between_slices(operation, next(iter(sizes)), slices)
        else:  # a `recv` is the end of a `send`
            continue
        if "all-reduce-scatter" in computation:  # a TPU's reduce-scatter, in a fusion
            each = replace(each, kind="reduce-scatter", bytes=each.bytes // each.group)
        times, looped = program.times[computation], computation in loops
        found.append(replace(each, times=times, looped=looped))
    return found


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Count and bytes for each kind and its axes: `{"all-gather fsdp": (40, 81920)}`."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for each in found:
        key = " ".join((each.kind, *each.axes))
        count[key] += 1
        size[key] += each.bytes
    return {key: (count[key], size[key]) for key in sorted(count)}


def _collective(op: Operation, sizes: Mapping[str, int], slices: int) -> Collective:
    results, kind = op.outcome, op.kind.removesuffix("-start")
    axes, group = _extent(op.rest, sizes, slices)
    return Collective(
        op.name,
        kind,
        tuple(each.shape for each in results),
        sum(each.bytes for each in results),
        axes,
        op.op_name or "no op_name",
        types=tuple(each.kind for each in results),
        group=group,
    )


def _between_slices(op: Operation, axis: str, slices: int) -> Collective:
    """What is handed to the network between slices, which reduces or gathers it by itself."""
    kind = re.search(r'megascale_transfer_type="(\w+)"', op.rest)
    name = kind[1].lower().replace("_", "-") if kind else "send"
    data = op.results[0]  # (data, context, token)
    return Collective(
        op.name,
        name if name in KINDS else "send",
        (data.shape,),
        data.bytes,
        (axis,),
        op.op_name or "no op_name",
        types=(data.kind,),
        group=slices,
        slices=slices,
    )


def _loop_bodies(program: Program) -> set[str]:
    """Computations that run inside a `while`, those that its body calls included."""
    reached: set[str] = set()
    ahead = [op.attribute("body") for _, op in program if op.kind == "while"]
    while ahead:
        body = ahead.pop()
        if body not in reached:
            reached.add(body)
            ahead += [c for op in program.computations.get(body, ()) for c in called_by(op)]
    return reached


def _extent(rest: str, sizes: Mapping[str, int], slices: int) -> tuple[tuple[str, ...], int]:
    """The mesh axes whose groups are those of the operation, and the devices of a group."""
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", rest):
        return _axes_between(_lists(pairs[1]), sizes), 2
    found = re.search(r"replica_groups=(.*)", rest)
    outer = next(iter(sizes))
    inside = {**sizes, outer: sizes[outer] // slices}  # a slice numbers its own devices
    for mesh in (sizes, inside) if slices > 1 else (sizes,):
        groups = _groups(found[1], math.prod(mesh.values())) if found else frozenset()
        for count in range(len(mesh) + 1):
            for axes in itertools.combinations(mesh, count):
                # An axis of size 1 explains nothing, so it is never named.
                if all(mesh[a] > 1 for a in axes) and groups == _groups_along(axes, mesh):
                    return axes, math.prod(mesh[a] for a in axes)
    return ("?",), max(map(len, groups), default=1)


def _axes_between(pairs: list[list[int]], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which a permutation moves data."""
    shape, moved = tuple(sizes.values()), set()
    for source, target in pairs:
        here, there = np.unravel_index([source, target], shape), list(sizes)
        moved |= {axis for axis, place in zip(there, here, strict=True) if place[0] != place[1]}
    return tuple(axis for axis in sizes if axis in moved)


def _groups_along(axes: tuple[str, ...], sizes: Mapping[str, int]) -> Groups:
    grid = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    return _rows_along(grid, [list(sizes).index(a) for a in axes])


def _rows_along(grid: np.ndarray, along: list[int]) -> Groups:
    last = np.moveaxis(grid, along, range(grid.ndim - len(along), grid.ndim))
    rows = last.reshape(-1, math.prod(grid.shape[i] for i in along))
    return frozenset(frozenset(row.tolist()) for row in rows)


def _groups(text: str, devices: int) -> Groups:
    """The groups of devices that `replica_groups=` names, in any of the three ways."""
    if text.startswith("mesh["):
        return _mesh_groups(text, devices)
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        flat = _iota(iota[2], iota[3]).reshape(numbers(iota[1]))
        return frozenset(frozenset(row.tolist()) for row in flat)
    lists = re.match(r"\{(.*?\}|)\}", text)
    groups = _lists(lists[1]) if lists else []
    return frozenset(frozenset(g) for g in groups or [list(range(devices))])


def _mesh_groups(text: str, devices: int) -> Groups:
    mesh = re.match(r"mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", text)
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    ids = np.arange(devices)
    if mesh[2] and (order := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", mesh[2])):
        ids = _iota(order[1], order[2])
    elif mesh[2]:
        ids = np.array(numbers(mesh[2]))
    shape, along = [], []
    wanted = dict(re.findall(r"'(\w+)'(?::(\(\d+\)\d+))?", mesh[3]))
    for name, size in sizes.items():
        if part := re.match(r"\((\d+)\)(\d+)", wanted.get(name, "")):
            before, inside = int(part[1]), int(part[2])
            along.append(len(shape) + 1)
            shape += [before, inside, size // before // inside]
            continue
        if name in wanted:
            along.append(len(shape))
        shape.append(size)
    return _rows_along(ids.reshape(shape), along)


def _iota(shape: str, order: str | None) -> np.ndarray:
    dims = numbers(shape)
    grid = np.arange(math.prod(dims)).reshape(dims)
    return (grid.transpose(numbers(order)) if order else grid).reshape(-1)


def _lists(text: str) -> list[list[int]]:
    return [list(numbers(inside)) for inside in re.findall(r"\{([\d,]+)\}", text)]
