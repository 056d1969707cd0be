"""Which collectives a compiled program holds: kind, bytes, mesh axes, and where they come from.

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
from dataclasses import dataclass

import numpy as np

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
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}
_OP = re.compile(
    rf"^\s*(?:ROOT )?%(?P<name>[\w.-]+) = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})"
    r"(?P<start>-start)?\((?P<rest>.*)$"
)
_SHAPE = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")

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
        looped: whether it stands in the body of a loop, so that it runs several times.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    axes: tuple[str, ...]
    op_name: str
    looped: bool = False

    def __str__(self) -> str:
        """Its kind, axes, bytes and origin, in a line."""
        over = " x ".join(self.axes) or "one device"
        loop = " in a loop" if self.looped else ""
        return (
            f"{self.kind} over {over} of {self.bytes:,} bytes{loop} (%{self.name}, {self.op_name})"
        )


def collectives(hlo: str, sizes: Mapping[str, int]) -> list[Collective]:
    """The collectives in the text of a compiled program.

    Args:
        hlo: `jit(f).lower(...).compile().as_text()`.
        sizes: the mesh's axes and their sizes, outermost first (`dict(mesh.shape)`).
    """
    found, computation, loops = [], "", _loop_bodies(hlo)
    for line in hlo.splitlines():
        if header := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
            computation = header[1]
        elif op := _OP.match(line):
            found.append(_collective(op, sizes, computation in loops))
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


def _collective(op: re.Match, sizes: Mapping[str, int], looped: bool) -> Collective:
    results = _SHAPE.findall(op["type"])
    if op["start"] and len(results) > 1:  # an asynchronous one gives its operands too
        results = results[len(results) // 2 :]
    shapes = tuple(tuple(int(n) for n in dims.split(",") if n) for _, dims in results)
    bits = sum(math.prod(s) * _bits(kind) for s, (kind, _) in zip(shapes, results, strict=True))
    origin = re.search(r'op_name="([^"]*)"', op["rest"])
    return Collective(
        op["name"],
        op["kind"],
        shapes,
        bits // 8,
        _axes(op["rest"], sizes),
        origin[1] if origin else "no op_name",
        looped,
    )


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    width = re.search(r"\d+", kind)
    return int(width[0]) if width else 0


def _loop_bodies(hlo: str) -> set[str]:
    """Computations that run inside a `while`, those that its body calls included."""
    calls: dict[str, set[str]] = {}
    bodies: set[str] = set()
    computation = ""
    for line in hlo.splitlines():
        if header := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
            computation = header[1]
        elif " while(" in line:
            bodies |= set(re.findall(r"body=%([\w.-]+)", line))
        called = re.findall(r"(?:to_apply|calls|body|condition)=%([\w.-]+)", line)
        calls.setdefault(computation, set()).update(called)
    reached, ahead = set(), list(bodies)
    while ahead:
        body = ahead.pop()
        if body not in reached:
            reached.add(body)
            ahead += calls.get(body, ())
    return reached


def _axes(rest: str, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes whose groups are those of the operation."""
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", rest):
        return _axes_between(_lists(pairs[1]), sizes)
    found = re.search(r"replica_groups=(.*)", rest)
    groups = _groups(found[1], math.prod(sizes.values())) if found else None
    for count in range(len(sizes) + 1):
        for axes in itertools.combinations(sizes, count):
            # An axis of size 1 explains nothing, so it is never named.
            if all(sizes[a] > 1 for a in axes) and groups == _groups_along(axes, sizes):
                return axes
    return ("?",)


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
        flat = _iota(iota[2], iota[3]).reshape(_numbers(iota[1]))
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
        ids = np.array(_numbers(mesh[2]))
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
    dims = _numbers(shape)
    grid = np.arange(math.prod(dims)).reshape(dims)
    return (grid.transpose(_numbers(order)) if order else grid).reshape(-1)


def _lists(text: str) -> list[list[int]]:
    return [list(_numbers(inside)) for inside in re.findall(r"\{([\d,]+)\}", text)]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)
