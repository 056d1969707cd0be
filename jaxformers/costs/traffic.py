"""What a compiled program moves through a chip's memory, and what it keeps for its backward pass.

Both are read from the optimised HLO text, loops counted as often as they run. A fusion reads its
operands and writes its results once; what lies in the chip's own small memory costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jaxformers.costs.collectives import KINDS as COLLECTIVES
from jaxformers.costs.hlo import Buffer, Operation, Program

BACKWARD = "transpose("  # in the path of every operation of a backward pass
_FREE = {
    "after-all",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "tuple",
    "while",
}
_SAME = {"bitcast", "copy", "copy-start", "copy-done", "get-tuple-element", "opt-barrier"}
_BETWEEN_MEMORIES = {"copy-start", "slice-start"}  # one of the two is the chip's own
_NEW = {"parameter", "constant", "iota", "partition-id"}


def moved_bytes(program: Program) -> int:
    """Bytes that one device reads from and writes to its main memory in a call.

    An array that a loop takes a slice of in each turn (a stack of layers) counts by the slice.
    """
    return sum(_moved_by(program).values())


def unknown_loops(program: Program) -> list[str]:
    """Loops of unknown length that weigh something; all else counts them as one turn.

    Those do whose one turn sends something or moves a hundredth of all bytes; the draws of a beta
    distribution, for one, do not.
    """
    moved = _moved_by(program)
    sends = {name for name, op in program if op.kind.removesuffix("-start") in COLLECTIVES}

    def weighs(loop: Operation) -> bool:
        inside = program.reached(loop.attribute("body"))
        return bool(inside & sends) or 100 * sum(moved.get(name, 0) for name in inside) >= sum(
            moved.values()
        )

    loops = (op for name, op in program if op.kind == "while" and program.times[name])
    return [op.name for op in loops if program.turns(op) is None and weighs(op)]


def _moved_by(program: Program) -> dict[str, int]:
    """Bytes that each computation moves in a call, as often as it runs."""
    turns, found = _turns(program), {}
    for name, operations in program.computations.items():
        if name not in program.fused and program.times[name]:
            made = {op.name: op for op in operations}
            moved = sum(_moved(op, made, turns.get(name, 1)) for op in operations)
            found[name] = moved * program.times[name]
    return found


def _turns(program: Program) -> dict[str, int]:
    """The number of turns of each loop's body."""
    loops = (op for _, op in program if op.kind == "while")
    return {op.attribute("body"): program.turns(op) or 1 for op in loops}


def _moved(op: Operation, made: dict[str, Operation], turns: int) -> int:
    if op.kind in _FREE or op.kind.endswith("-done") or "AllocateBuffer" in op.rest:
        return 0
    if op.kind in _BETWEEN_MEMORIES:  # what it carries, not what it is cut from
        return _size(op.outcome, turns, on_chip=True)
    read = [made[name].results for name in op.operands if name in made]
    single = [each[0] for each in read if len(each) == 1]
    for written in op.outcome:
        # A stack that a slice is written into is not read.
        if turns > 1 and written.shape[:1] == (turns,) and written in single:
            single.remove(written)
    return _size(op.outcome, turns) + _size(tuple(single), turns)


def _size(buffers: tuple[Buffer, ...], turns: int, on_chip: bool = False) -> int:
    return sum(
        each.bytes // (turns if turns > 1 and each.shape[:1] == (turns,) else 1)
        for each in buffers
        if on_chip or not each.on_chip
    )


@dataclass(frozen=True)
class Kept:
    """An array that the forward pass leaves for the backward pass."""

    buffer: Buffer
    op_name: str


def kept_for_backward(program: Program) -> list[Kept]:
    """What an operation of the forward pass makes and one of the backward pass takes.

    Parameters and other arguments are not among them, their copies in the compute type are.
    """
    found = {}
    for computation, operations in program.computations.items():
        if computation not in program.fused:
            for op, place, buffer in _crossing(program, operations):
                found[computation, op.name, place] = Kept(buffer, op.op_name)
    return list(found.values())


def _crossing(program: Program, operations: list[Operation]) -> Iterator:
    """(operation, place in its result, buffer) of what goes from forward to backward here."""
    made = {op.name: op for op in operations}
    for op in operations:
        if BACKWARD not in op.op_name or op.kind in _SAME:
            continue
        for name in op.operands:
            taken = made.get(name)
            names = taken.operands if taken and taken.kind == "tuple" else (name,)
            for origin, place in (_origin(made, program, each) for each in names):
                forward = origin and origin.kind not in _NEW and BACKWARD not in origin.op_name
                if forward and "AllocateBuffer" not in origin.rest and origin.op_name:
                    yield origin, place, origin.results[place]


def _origin(
    made: dict[str, Operation], program: Program, name: str
) -> tuple[Operation | None, int]:
    """The operation that made a value, copies and tuples seen through, and the place in it."""
    place = 0
    while (op := made.get(name)) is not None:
        if op.kind == "get-tuple-element":
            place = int(op.attribute("index"))
        elif op.kind == "tuple" or (op.kind == "while" and _unchanged(program, op, place)):
            source = op if op.kind == "tuple" else made.get(op.operands[0])
            if source is None or source.kind != "tuple":
                return None, 0
            name, place = source.operands[place], 0
            continue
        elif op.kind not in _SAME:
            return op, place
        name = op.operands[0]
    return None, 0


def _unchanged(program: Program, loop: Operation, place: int) -> bool:
    """Whether a loop hands on the value at `place` as it was given."""
    body = {op.name: op for op in program.computations.get(loop.attribute("body"), ())}
    root = next((op for op in body.values() if op.root), None)
    if root is None or root.kind != "tuple":
        return False
    op = body.get(root.operands[place])
    while op is not None and op.kind in _SAME - {"get-tuple-element"}:
        op = body.get(op.operands[0])
    if op is None or op.kind != "get-tuple-element" or int(op.attribute("index")) != place:
        return False
    return body[op.operands[0]].kind == "parameter"


def kept_bytes(program: Program) -> int:
    """Bytes of `kept_for_backward`, with the padding of tiles."""
    return sum(each.buffer.padded for each in kept_for_backward(program))


def padding(buffers: list[Buffer]) -> Counter[str]:
    """Bytes lost to padding, by what is padded, the most first."""
    lost: Counter[str] = Counter()
    for each in buffers:
        lost[str(each)] += each.padded - each.bytes
    return lost
