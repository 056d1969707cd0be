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
                turns = self.turns(operation)
                for called in called_by(operation):
                    runs[called] = runs.get(called, 0) + runs[name] * (
                        1 if turns is None else turns
                    )
        return runs

    @cached_property
    def fused(self) -> set[str]:
        """Computations inside a fusion or a reduction, whose values never reach memory."""
        inside = {c for _, op in self for c in called_by(op) if op.kind not in _OUTER}
        return {name for outer in inside for name in self.reached(outer)}

    def reached(self, computation: str) -> set[str]:
        """A computation and all that it calls, directly or not."""
        found, ahead = set(), [computation]
        while ahead:
            if (name := ahead.pop()) in self.computations and name not in found:
                found.add(name)
                ahead += [c for op in self.computations[name] for c in called_by(op)]
        return found

    def turns(self, operation: Operation) -> int | None:
        """Turns of a loop; None where the text does not tell them, 1 for no loop.

        XLA tells them for CPUs and GPUs; for TPUs they follow from the loop's counter.
        """
        if operation.kind != "while":
            return 1
        if known := re.search(r'known_trip_count":\{"n":"(\d+)"', operation.rest):
            return int(known[1])
        return self._counted(operation)

    def _counted(self, loop: Operation) -> int | None:
        """Turns of a loop that steps a counter from a constant to a constant; None for others."""
        condition, body = (self._scope(loop.attribute(name)) for name in ("condition", "body"))
        compare, inside = _through(condition, condition.root)
        if compare is None or compare.kind != "compare":
            return None
        left, right = (inside.value(name) for name in compare.operands)
        test = compare.attribute("direction")
        if isinstance(left, int):
            left, right, test = right, left, _MIRRORED.get(test, test)
        if not isinstance(left, _Element) or not isinstance(right, int):
            return None
        start = self._scope(self._home[loop.name]).value(loop.operands[0], left.index)
        after = body.value(body.root, left.index)
        stepped = isinstance(after, _Element) and after.index == left.index
        if not isinstance(start, int) or not stepped:
            return None
        return _turns(start + left.plus, after.plus, right, test)

    @cached_property
    def _home(self) -> dict[str, str]:
        """The computation that each loop stands in."""
        return {op.name: computation for computation, op in self if op.kind == "while"}

    def _scope(self, computation: str) -> _Scope:
        operations = self.computations.get(computation, ())
        return _Scope(self, {op.name: op for op in operations})


@dataclass(frozen=True)
class _Element:
    """A number of a loop's state as a turn finds it, and what has been added to it since."""

    index: int
    plus: int = 0


@dataclass(frozen=True)
class _Scope:
    """A computation's operations, and where the values of its parameters come from."""

    program: Program
    made: dict[str, Operation]
    given: tuple[str, ...] = ()
    outer: _Scope | None = None
    """None for a loop's own computation, whose one parameter is the loop's state."""

    @property
    def root(self) -> str:
        return next((op.name for op in self.made.values() if op.root), "")

    def value(self, name: str, index: int | None = None) -> int | _Element | None:
        """The number that `name` is, or element `index` of its tuple; None where it is not told."""
        op, inside = _through(self, name)
        if op is None:
            return None
        if index is not None:
            if op.kind == "tuple":
                return inside.value(op.operands[index])
            return _Element(index) if op.kind == "parameter" else None
        if op.kind == "get-tuple-element":
            return inside.value(op.operands[0], int(op.attribute("index")))
        if op.kind == "constant" and (number := re.match(r"(-?\d+)\)", op.rest)):
            return int(number[1])
        if op.kind in ("add", "subtract"):
            return _sum(*map(inside.value, op.operands), sign=1 if op.kind == "add" else -1)
        return None


def _through(scope: _Scope, name: str) -> tuple[Operation | None, _Scope]:
    """The operation that makes a value, copies and fusions seen through, and where it stands."""
    while (op := scope.made.get(name)) is not None:
        if op.kind in _COPIES:
            name = op.operands[0]
        elif op.kind in ("fusion", "call"):
            inner = scope.program._scope(op.attribute("calls") or op.attribute("to_apply"))
            scope = _Scope(scope.program, inner.made, op.operands, scope)
            name = scope.root
        elif op.kind == "parameter" and scope.outer:
            name, scope = scope.given[numbers(op.rest.partition(")")[0])[0]], scope.outer
        else:
            break
    return op, scope


def _sum(left: int | _Element | None, right: int | _Element | None, sign: int):
    if isinstance(right, _Element) and sign == 1:
        left, right = right, left
    if not isinstance(right, int) or left is None:
        return None
    right *= sign
    return left + right if isinstance(left, int) else _Element(left.index, left.plus + right)


def _turns(start: int, step: int, limit: int, test: str) -> int | None:
    """How often `test` holds of start, start + step and so on against `limit`; None for ever."""
    if test in ("GT", "GE"):
        start, step, limit = -start, -step, -limit
    if test in ("LE", "GE"):
        limit += 1
    away = limit - start
    if test == "NE" and step and away % step == 0 and away // step >= 0:
        return away // step
    if test not in ("LT", "LE", "GT", "GE") or (away > 0 and step <= 0):
        return None
    return max(0, -(-away // step)) if away > 0 else 0


_COPIES = {"bitcast", "convert", "copy", "copy-start", "copy-done", "opt-barrier", "reshape"}
_MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE"}
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
