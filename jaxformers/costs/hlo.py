"""A compiled program's text (optimised HLO) as operations, and how often each of them runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_HEADER = re.compile(r"(?P<entry>ENTRY )?%(?P<name>[\w.-]+) \(.*\{$")
_LEFT = re.compile(r"^\s*(?P<root>ROOT )?%(?P<name>[\w.-]+) = ")
_KIND = re.compile(r" ?(?P<kind>[\w-]+)\(")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|\w+_computation)=%([\w.-]+)")
_BUFFER = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0, "opaque": 0}


@dataclass(frozen=True)
class Buffer:
    """One array of an operation's result, on one device.

    Attributes:
        kind: its element type, such as `bf16`.
        shape: its dimensions.
        minor: dimensions from the fastest-moving to the slowest, where the text says so.
        tile: the two numbers that a TPU pads the two fastest dimensions to, slower one first.
        on_chip: whether it lies in the chip's own small memory, not in its main memory.
    """

    kind: str
    shape: tuple[int, ...]
    minor: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    on_chip: bool = False

    @property
    def bytes(self) -> int:
        """Without padding."""
        return math.prod(self.shape) * bits(self.kind) // 8

    @property
    def padded(self) -> int:
        """With the padding of its tiles."""
        shape = list(self.shape)
        for dim, tile in zip(self.minor, reversed(self.tile), strict=False):
            shape[dim] = -(-shape[dim] // tile) * tile
        return math.prod(shape) * bits(self.kind) // 8

    def __str__(self) -> str:
        """Such as `bf16[8,128]`."""
        return f"{self.kind}[{','.join(map(str, self.shape))}]"


def bits(kind: str) -> int:
    """Bits of one number of a type."""
    if kind in _BITS:
        return _BITS[kind]
    width = re.search(r"\d+", kind)
    return int(width[0]) if width else 0


def buffers(text: str) -> tuple[Buffer, ...]:
    """The arrays of a type: `f32[4]{0}`, or a tuple of such."""
    found = []
    for kind, shape, minor, layout in _BUFFER.findall(text):
        tile = re.match(r"T\((\d+),?(\d*)\)", layout)
        found.append(
            Buffer(
                kind,
                numbers(shape),
                numbers(minor),
                tuple(int(n) for n in tile.groups() if n) if tile else (),
                "S(1)" in layout,
            )
        )
    return tuple(found)


def numbers(text: str) -> tuple[int, ...]:
    """`1,2,3` as a tuple."""
    return tuple(int(n) for n in text.split(",") if n)


@dataclass
class Operation:
    """One operation: its name, kind, type, the names it takes, and the rest of its line."""

    name: str
    kind: str
    type: str
    operands: tuple[str, ...]
    rest: str
    root: bool = False

    @cached_property
    def results(self) -> tuple[Buffer, ...]:
        """All arrays of its type, those of tuples in it included."""
        return buffers(self.type)

    @property
    def outcome(self) -> tuple[Buffer, ...]:
        """Its results; of an asynchronous start those that its `-done` will give.

        A start's type is (operands, results, contexts...), as XLA's shape inference has it; only
        that of an all-reduce is the results alone.
        """
        parts = _elements(self.type) if self.kind.endswith("-start") else []
        if len(parts) < 2 or (self.kind == "all-reduce-start" and parts[0][0] != "("):
            return self.results
        return buffers(parts[1])

    @property
    def op_name(self) -> str:
        """The path of the JAX operation that it stems from; empty where none is told."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def attribute(self, name: str) -> str:
        """A computation or number behind `name=`; empty without it."""
        found = re.search(rf"\b{name}=%?([\w.-]+)", self.rest)
        return found[1] if found else ""


@dataclass
class Program:
    """Computations by name, callees first, each a list of operations; "" holds what has none."""

    computations: dict[str, list[Operation]] = field(default_factory=dict)
    entry: str = ""

    @classmethod
    def parse(cls, text: str) -> Program:
        """Reads `jit(f).lower(...).compile().as_text()`."""
        program, name = cls({"": []}), ""
        for line in text.splitlines():
            if header := _HEADER.match(line):
                name = header["name"]
                program.computations[name] = []
                program.entry = name if header["entry"] else program.entry
            elif operation := _operation(line):
                program.computations[name].append(operation)
        return program

    def __iter__(self) -> Iterator[tuple[str, Operation]]:
        """Every operation with the name of its computation."""
        for name, operations in self.computations.items():
            for operation in operations:
                yield name, operation

    @cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs in one call; a loop of unknown length counts once."""
        runs = dict.fromkeys(self.computations, 0)
        runs[self.entry] = runs[""] = 1
        for name in reversed(self.computations):  # callers come after those that they call
            for operation in self.computations[name]:
                turns = self.turns(operation) or 1
                for called in called_by(operation):
                    runs[called] = runs.get(called, 0) + runs[name] * turns
        return runs

    @cached_property
    def fused(self) -> set[str]:
        """Computations inside a fusion or a reduction, whose values never reach memory."""
        inside = {c for _, op in self for c in called_by(op) if op.kind not in _OUTER}
        for name in reversed(self.computations):
            if name in inside:
                inside |= {c for op in self.computations[name] for c in called_by(op)}
        return inside

    def turns(self, operation: Operation) -> int | None:
        """Turns of a loop; None where they are not known before it runs, 1 for no loop."""
        if operation.kind != "while":
            return 1
        if known := re.search(r'known_trip_count":\{"n":"(\d+)"', operation.rest):
            return int(known[1])
        return self._limit(operation.attribute("condition"))

    def _limit(self, condition: str) -> int | None:
        """The constant that the counter is compared with: JAX's loops count from 0."""
        found = []
        for operation in self.computations.get(condition, ()):
            constant = re.match(r"(\d+)\)", operation.rest)
            if operation.kind == "constant" and constant:
                found.append(int(constant[1]))
            found += [n for c in called_by(operation) if (n := self._limit(c)) is not None]
        return found[0] if len(found) == 1 else None


_OUTER = {"while", "call", "conditional", "async-start"}


def called_by(operation: Operation) -> list[str]:
    """The computations that an operation runs."""
    if operation.kind.endswith(("-update", "-done")):  # they only repeat their start's
        return []
    branches = re.search(r"branch_computations=\{([^}]*)\}", operation.rest)
    named = re.findall(r"%([\w.-]+)", branches[1]) if branches else []
    return [*_CALLED.findall(operation.rest), *named]


def _operation(line: str) -> Operation | None:
    left = _LEFT.match(line)
    if left is None:
        return None
    at = _end(line, left.end()) if line[left.end()] == "(" else line.find(" ", left.end())
    kind = _KIND.match(line, at)
    if kind is None:
        return None
    end = _end(line, kind.end() - 1)
    return Operation(
        left["name"],
        kind["kind"],
        line[left.end() : at].strip(),
        tuple(re.findall(r"%([\w.-]+)", line[kind.end() : end])),
        line[kind.end() :],
        bool(left["root"]),
    )


def _elements(text: str) -> list[str]:
    """The types in a tuple; none where the type is no tuple."""
    if not text.startswith("("):
        return []
    depth, parts = 0, [""]
    for letter in re.sub(r"/\*.*?\*/", "", text)[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _end(line: str, at: int) -> int:
    """The place behind the parenthesis that closes the one at `at`."""
    depth = 0
    for place in range(at, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if depth == 0:
            return place + 1
    return len(line)
