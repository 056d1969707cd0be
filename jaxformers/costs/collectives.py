"""Collectives of a compiled program: kind, bytes, mesh axes, how often each runs, and its origin.

Read from optimised HLO text, where a collective is a line such as

    %ag = f32[4,8] all-gather(%p), replica_groups=[4,2]<=[8], dimensions={0}, metadata={...}

XLA writes its groups of devices in three notations, all of which become names of mesh axes here:

    {{0,1},{2,3}}              lists of devices
    [4,2]<=[2,4]T(1,0)         arange(8) reshaped to [2,4], transposed, reshaped to 4 groups of 2
    mesh['a'=4,'b'=2] {'b'}    axes of a mesh that XLA numbers by itself
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxformers.costs.hlo import Program
from jaxformers.costs.hlo_operations import Operation, parse_ints

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
        name: name of the HLO operation.
        kind: one of `KINDS`.
        shapes: shapes of its results on one device.
        bytes: bytes of those results.
        axes: the mesh axes that it runs over; `("?",)` if its groups are no axes of the mesh.
        op_name: path of the JAX operation that it comes from.
        times: how often it runs in a step; one in a loop of unknown length counts as one.
        looped: whether it is in the body of a loop.
        types: element types of the results.
        group: number of devices in a group.
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
        """Kind, axes, bytes and origin, in a line."""
        over = " x ".join(self.axes) or "one device"
        loop = " in a loop" if self.looped else ""
        return (
            f"{self.kind} over {over} of {self.bytes:,} bytes{loop} (%{self.name}, {self.op_name})"
        )

    @property
    def wire(self) -> float:
        """Bytes that a device sends each time, by the ring algorithm (a lower bound of any)."""
        # With n devices a ring sends n - 1 chunks of 1/n of the full array. `bytes` are of the
        # result: the full array of a gather, but 1/n of it of a reduce-scatter. An all-reduce is a
        # reduce-scatter and a gather.
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
        hlo: text of `jit(f).lower(...).compile().as_text()`, or a parsed program.
        sizes: the mesh's axes and their sizes, outermost first (`dict(mesh.shape)`).
        slices: number of slices of the pod, which are on the outermost axis.
    """
    program = Program.parse(hlo) if isinstance(hlo, str) else hlo
    bodies = [op.attribute("body") for _, op in program if op.opcode == "while"]
    in_loops = program.reachable_from(bodies)
    result = []
    for computation, operation in program:
        # A `-start` stands for the pair; its `-done` is not in KINDS.
        if operation.opcode.removesuffix("-start") not in KINDS:
            continue
        if BETWEEN_SLICES not in operation.text:
            collective = _within_slice(operation, sizes, slices)
        elif operation.opcode == "send":
            collective = _between_slices(operation, next(iter(sizes)), slices)
        else:  # the `recv` of a `send` that is counted
            continue
        # A TPU's reduce-scatter is a fusion whose computation, `%all-reduce-scatter.3`, holds an
        # all-reduce of the full array and a slice of it.
        if "all-reduce-scatter" in computation:
            size = collective.bytes // collective.group
            collective = replace(collective, kind="reduce-scatter", bytes=size)
        times, looped = program.times[computation], computation in in_loops
        result.append(replace(collective, times=times, looped=looped))
    return result


def totals(operations: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Count and bytes for each kind and its axes: `{"all-gather fsdp": (40, 81920)}`."""
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for collective in operations:
        key = " ".join((collective.kind, *collective.axes))
        count[key] += 1
        size[key] += collective.bytes
    return {key: (count[key], size[key]) for key in sorted(count)}


def _within_slice(op: Operation, sizes: Mapping[str, int], slices: int) -> Collective:
    """A collective over the chips' own links."""
    axes, group = _axes_and_group(op.text, sizes, slices)
    return Collective(
        op.name,
        op.opcode.removesuffix("-start"),
        tuple(buffer.shape for buffer in op.outputs),
        sum(buffer.bytes for buffer in op.outputs),
        axes,
        op.op_name or "no op_name",
        types=tuple(buffer.dtype for buffer in op.outputs),
        group=group,
    )


def _between_slices(op: Operation, axis: str, slices: int) -> Collective:
    """A transfer over the network between slices.

    XLA hands the array to that network's runtime, which reduces or gathers it:

        %s = (f32[8], u32[], token[]) send(%x), frontend_attributes={...
            megascale_transfer_type="ALL_REDUCE"...}
    """
    transfer = re.search(r'megascale_transfer_type="(\w+)"', op.text)
    kind = transfer[1].lower().replace("_", "-") if transfer else "send"
    data = op.buffers[0]  # of (data, context, token)
    return Collective(
        op.name,
        kind if kind in KINDS else "send",
        (data.shape,),
        data.bytes,
        (axis,),
        op.op_name or "no op_name",
        types=(data.dtype,),
        group=slices,
        slices=slices,
    )


def _axes_and_group(
    text: str, sizes: Mapping[str, int], slices: int
) -> tuple[tuple[str, ...], int]:
    """The mesh axes whose groups are those of an operation, and the number of devices in a group.

    Axes are found by trial: the groups of each combination of mesh axes are compared with those
    that the text lists.
    """
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", text):
        return _axes_of_pairs(_parse_lists(pairs[1]), sizes), 2
    match = re.search(r"replica_groups=(.*)", text)
    # In a program for several slices the devices are numbered through the pod or, for collectives
    # inside a slice, through one slice, in which the outermost axis is shorter.
    outer = next(iter(sizes))
    one_slice = {**sizes, outer: sizes[outer] // slices}
    for mesh in (sizes, one_slice) if slices > 1 else (sizes,):
        groups = _parse_groups(match[1], math.prod(mesh.values())) if match else frozenset()
        for count in range(len(mesh) + 1):
            for axes in itertools.combinations(mesh, count):
                # With an axis of size 1 the groups would be those without it: it is left out.
                if all(mesh[a] > 1 for a in axes) and groups == _mesh_axes_groups(axes, mesh):
                    return axes, math.prod(mesh[a] for a in axes)
    return ("?",), max(map(len, groups), default=1)


def _axes_of_pairs(pairs: list[list[int]], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes along which a permutation's `{source,target}` pairs differ."""
    shape, moved = tuple(sizes.values()), set()
    for pair in pairs:
        # Coordinates of both devices on the mesh: for each axis an array [source's, target's].
        coordinates = np.unravel_index(pair, shape)
        moved |= {axis for axis, c in zip(sizes, coordinates, strict=True) if c[0] != c[1]}
    return tuple(axis for axis in sizes if axis in moved)


def _mesh_axes_groups(axes: tuple[str, ...], sizes: Mapping[str, int]) -> Groups:
    """The groups of devices that a collective over these mesh axes has."""
    grid = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    return _groups_along(grid, [list(sizes).index(a) for a in axes])


def _groups_along(grid: np.ndarray, dimensions: list[int]) -> Groups:
    """The sets of devices in an array that differ only along these dimensions."""
    # With those dimensions last, each group is a row.
    last = np.moveaxis(grid, dimensions, range(grid.ndim - len(dimensions), grid.ndim))
    rows = last.reshape(-1, math.prod(grid.shape[i] for i in dimensions))
    return frozenset(frozenset(row.tolist()) for row in rows)


def _parse_groups(text: str, devices: int) -> Groups:
    """The groups of devices that `replica_groups=` names, in any of the three notations."""
    if text.startswith("mesh["):
        return _parse_mesh_groups(text, devices)
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        rows = _parse_iota(iota[2], iota[3]).reshape(parse_ints(iota[1]))
        return frozenset(frozenset(row.tolist()) for row in rows)
    # `{}` means all devices in one group.
    lists = re.match(r"\{(.*?\}|)\}", text)
    groups = _parse_lists(lists[1]) if lists else []
    return frozenset(frozenset(g) for g in groups or [list(range(devices))])


def _parse_mesh_groups(text: str, devices: int) -> Groups:
    """The groups of `mesh['a'=8,'b'=2], device_ids=([4,4]T(1,0)) {'a':(2)2,'b'}`.

    `device_ids`, if any, lists the mesh's devices, as an iota or one by one. `'a':(2)2` is a part
    of an axis: axis `a` of size 8 is split into sizes (2, 2, 2), of which the middle one counts
    ("(size before it)its own size").
    """
    match = re.match(r"mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", text)
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", match[1])}
    ids = np.arange(devices)
    if match[2] and (order := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", match[2])):
        ids = _parse_iota(order[1], order[2])
    elif match[2]:
        ids = np.array(parse_ints(match[2]))
    shape, dimensions = [], []
    axes = dict(re.findall(r"'(\w+)'(?::(\(\d+\)\d+))?", match[3]))
    for name, size in sizes.items():
        if sub_axis := re.match(r"\((\d+)\)(\d+)", axes.get(name, "")):
            before, inside = int(sub_axis[1]), int(sub_axis[2])
            dimensions.append(len(shape) + 1)
            shape += [before, inside, size // before // inside]
            continue
        if name in axes:
            dimensions.append(len(shape))
        shape.append(size)
    return _groups_along(ids.reshape(shape), dimensions)


def _parse_iota(shape: str, order: str | None) -> np.ndarray:
    """The flat devices of `[2,4]T(1,0)`: 0, 1, ... in that shape, transposed to that order."""
    dimensions = parse_ints(shape)
    grid = np.arange(math.prod(dimensions)).reshape(dimensions)
    return (grid.transpose(parse_ints(order)) if order else grid).reshape(-1)


def _parse_lists(text: str) -> list[list[int]]:
    """The lists in `{0,1},{2,3}`."""
    return [list(parse_ints(inside)) for inside in re.findall(r"\{([\d,]+)\}", text)]
