"""Trip counts of `while` loops in HLO text, from the loop's counter.

XLA writes `known_trip_count` for CPUs and GPUs, but not for TPUs. There the count follows from the
counter's start, step and limit:

    %body:       %i = get-tuple-element(%p), index=0    %next = add(%i, %one)
    %condition:  %i = get-tuple-element(%p), index=0    ROOT %lt = compare(%i, %n), direction=LT
    %main:       %state = tuple(%zero, ...)             %w = while(%state), condition=..., body=...

Values are followed backwards from the comparison, through copies and fusions, to integers or to an
element of the loop's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxformers.costs.hlo_operations import Operation, parse_ints

Computations = Mapping[str, Sequence[Operation]]

# Operations that pass on the value of their operand (a counter is an integer, of any width).
_COPIES = {"bitcast", "convert", "copy", "copy-start", "copy-done", "opt-barrier", "reshape"}
_MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE"}


def trip_count(loop: Operation, caller: str, computations: Computations) -> int | None:
    """How often a loop's body runs, None where its text does not determine it.

    Args:
        loop: a `while` operation.
        caller: the computation that it is in.
        computations: all of the program, by name.
    """
    if match := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.text):
        return int(match[1])
    condition = _Scope.of(computations, loop.attribute("condition"))
    body = _Scope.of(computations, loop.attribute("body"))
    compare, scope = _follow(condition, condition.root)
    if compare is None or compare.opcode != "compare":
        return None
    left, right = (scope.value(name) for name in compare.operands)
    direction = compare.attribute("direction")
    if isinstance(left, int):  # `limit > i` as `i < limit`
        left, right, direction = right, left, _MIRRORED.get(direction, direction)
    if not isinstance(left, _StateElement) or not isinstance(right, int):
        return None
    start = _Scope.of(computations, caller).value(loop.operands[0], left.index)
    after = body.value(body.root, left.index)
    # The element after a turn must be itself plus a constant, or it is no counter.
    is_counter = isinstance(after, _StateElement) and after.index == left.index
    if not isinstance(start, int) or not is_counter:
        return None
    return _count_turns(start + left.plus, after.plus, right, direction)


@dataclass(frozen=True)
class _StateElement:
    """Element `index` of a loop's state at the start of a turn, plus a constant."""

    index: int
    plus: int = 0


@dataclass(frozen=True)
class _Scope:
    """A computation's operations by name, and where the values of its parameters come from.

    Attributes:
        computations: all of the program, by name.
        operations: of this computation, by name.
        arguments: names, in `outer`, of the values of its parameters.
        outer: the calling scope; None for a loop's own computation, whose one parameter is the
            loop's state.
    """

    computations: Computations
    operations: dict[str, Operation]
    arguments: tuple[str, ...] = ()
    outer: _Scope | None = None

    @staticmethod
    def of(computations: Computations, name: str, arguments=(), outer=None) -> _Scope:
        operations = {op.name: op for op in computations.get(name, ())}
        return _Scope(computations, operations, arguments, outer)

    @property
    def root(self) -> str:
        return next((op.name for op in self.operations.values() if op.root), "")

    def value(self, name: str, index: int | None = None) -> int | _StateElement | None:
        """The value of operation `name`, or of element `index` of its tuple; None if unknown."""
        op, scope = _follow(self, name)
        if op is None:
            return None
        if index is not None:
            if op.opcode == "tuple":
                return scope.value(op.operands[index])
            return _StateElement(index) if op.opcode == "parameter" else None
        if op.opcode == "get-tuple-element":
            return scope.value(op.operands[0], int(op.attribute("index")))
        if op.opcode == "constant" and (number := re.match(r"(-?\d+)\)", op.text)):
            return int(number[1])  # the text of `constant(-1), metadata=...` starts at `-1)`
        if op.opcode in ("add", "subtract"):
            return _add(*map(scope.value, op.operands), sign=1 if op.opcode == "add" else -1)
        return None


def _follow(scope: _Scope, name: str) -> tuple[Operation | None, _Scope]:
    """The operation that computes a value, and its scope: looks through copies, fusions, calls."""
    while (op := scope.operations.get(name)) is not None:
        if op.opcode in _COPIES:
            name = op.operands[0]
        elif op.opcode in ("fusion", "call"):
            called = op.attribute("calls") or op.attribute("to_apply")
            scope = _Scope.of(scope.computations, called, op.operands, scope)
            name = scope.root
        elif op.opcode == "parameter" and scope.outer:
            # `%p = s32[] parameter(1)`: its value is the caller's operand 1.
            number = parse_ints(op.text.partition(")")[0])[0]
            name, scope = scope.arguments[number], scope.outer
        else:
            break
    return op, scope


def _add(left: int | _StateElement | None, right: int | _StateElement | None, sign: int):
    """`left + sign * right`, None unless it is an integer or a state element plus one."""
    if isinstance(right, _StateElement) and sign == 1:
        left, right = right, left
    if not isinstance(right, int) or left is None:
        return None
    right *= sign
    if isinstance(left, int):
        return left + right
    return _StateElement(left.index, left.plus + right)


def _count_turns(start: int, step: int, limit: int, direction: str) -> int | None:
    """How many of start, start + step, ... compare true with `limit` before one does not.

    None where all do, until the counter overflows.
    """
    # `i > n` counting down is `-i < -n` counting up; `i <= n` is `i < n + 1`.
    if direction in ("GT", "GE"):
        start, step, limit = -start, -step, -limit
    if direction in ("LE", "GE"):
        limit += 1
    distance = limit - start
    if direction == "NE" and step and distance % step == 0 and distance // step >= 0:
        return distance // step
    if direction not in ("LT", "LE", "GT", "GE") or (distance > 0 and step <= 0):
        return None
    return max(0, -(-distance // step)) if distance > 0 else 0
