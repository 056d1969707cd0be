"""Memory traffic of a compiled program, and the arrays that it saves for its backward pass.

Both are read from the optimised HLO text, with loops counted as often as they run. A fusion reads
its operands and writes its results once; arrays in the chip's own small memory cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxformers.costs.collectives import KINDS as COLLECTIVES
from jaxformers.costs.hlo import Program
from jaxformers.costs.hlo_operations import Buffer, Operation

# JAX names operations of a backward pass `jit(step)/transpose(jvp(f))/dot_general`.
BACKWARD = "transpose("
# Opcodes that move nothing themselves: they rename values, or run computations that are counted by
# themselves.
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
# Opcodes whose result is their operand (or an element of it), looked through to find its origin.
_SAME_VALUE = {"bitcast", "copy", "copy-start", "copy-done", "get-tuple-element", "opt-barrier"}
_BETWEEN_MEMORIES = {"copy-start", "slice-start"}  # between main memory and the chip's own
_NOT_COMPUTED = {"parameter", "constant", "iota", "partition-id"}


def moved_bytes(program: Program) -> int:
    """Bytes that one device reads from and writes to its main memory in a call.

    An array that a loop slices in each turn (a stack of layers) counts by the slice.
    """
    return sum(_moved_by_computation(program).values())


def unknown_loops(program: Program) -> list[str]:
    """Names of significant loops of unknown length, which all costs here count as one turn.

    A loop is significant if one turn runs a collective or moves a hundredth of all bytes. The
    rejection sampling of a beta distribution, for one, is not.
    """
    moved = _moved_by_computation(program)
    total = sum(moved.values())
    sends = {name for name, op in program if op.opcode.removesuffix("-start") in COLLECTIVES}
    names = []
    for computation, op in program:
        if op.opcode != "while" or not program.times[computation]:
            continue
        if program.trip_count(op) is None:
            inside = program.reachable_from([op.attribute("body")])
            if inside & sends or 100 * sum(moved.get(name, 0) for name in inside) >= total:
                names.append(op.name)
    return names


def _moved_by_computation(program: Program) -> dict[str, int]:
    """Bytes that each computation moves in a call, all its runs together."""
    loops = (op for _, op in program if op.opcode == "while")
    turns = {op.attribute("body"): program.trip_count(op) or 1 for op in loops}
    moved = {}
    for name, operations in program.computations.items():
        if name not in program.fused and program.times[name]:
            by_name = {op.name: op for op in operations}
            once = sum(_moved(op, by_name, turns.get(name, 1)) for op in operations)
            moved[name] = once * program.times[name]
    return moved


def _moved(op: Operation, by_name: dict[str, Operation], turns: int) -> int:
    """Bytes that an operation moves in one run of its computation.

    `turns`: how often that runs as a loop's body, 1 for no loop.
    """
    if op.opcode in _FREE or op.opcode.endswith("-done") or "AllocateBuffer" in op.text:
        return 0
    # `slice-start(%a)` has the full %a as operand, but carries only its result between memories.
    if op.opcode in _BETWEEN_MEMORIES:
        return _size(op.outputs, turns, on_chip=True)
    operands = [by_name[name].buffers for name in op.operands if name in by_name]
    # Operands of a tuple type are handed on, not read.
    inputs = [buffers[0] for buffers in operands if len(buffers) == 1]
    for output in op.outputs:
        # A fusion that writes one layer's slice into a stack [turns, ...] takes the stack as an
        # operand and updates it in place: it does not read it.
        if turns > 1 and output.shape[:1] == (turns,) and output in inputs:
            inputs.remove(output)
    return _size(op.outputs, turns) + _size(tuple(inputs), turns)


def _size(buffers: tuple[Buffer, ...], turns: int, on_chip: bool = False) -> int:
    """Bytes of buffers; in a loop, a stack [turns, ...] counts by one of its slices."""
    return sum(
        buffer.bytes // (turns if turns > 1 and buffer.shape[:1] == (turns,) else 1)
        for buffer in buffers
        if on_chip or not buffer.on_chip
    )


@dataclass(frozen=True)
class Residual:
    """An array that the forward pass saves for the backward pass."""

    buffer: Buffer
    op_name: str


def saved_for_backward(program: Program) -> list[Residual]:
    """Results of forward operations that backward operations take as operands.

    Parameters and other arguments are not among them; their copies in the compute dtype are.
    """
    # By origin, since several backward operations may take one array.
    residuals = {}
    for computation, operations in program.computations.items():
        if computation not in program.fused:
            for op, index, buffer in _crossing(program, operations):
                residuals[computation, op.name, index] = Residual(buffer, op.op_name)
    return list(residuals.values())


def _crossing(program: Program, operations: list[Operation]) -> Iterator:
    """(operation, index in its result, buffer) of values from forward to backward operations."""
    by_name = {op.name: op for op in operations}
    for op in operations:
        if BACKWARD not in op.op_name or op.opcode in _SAME_VALUE:
            continue
        for name in op.operands:
            # A backward loop takes all its inputs as one tuple.
            operand = by_name.get(name)
            names = operand.operands if operand and operand.opcode == "tuple" else (name,)
            for origin, index in (_origin(by_name, program, name) for name in names):
                is_forward = (
                    origin and origin.opcode not in _NOT_COMPUTED and BACKWARD not in origin.op_name
                )
                if is_forward and "AllocateBuffer" not in origin.text and origin.op_name:
                    yield origin, index, origin.buffers[index]


def _origin(
    by_name: dict[str, Operation], program: Program, name: str
) -> tuple[Operation | None, int]:
    """The operation that computed a value, and the value's index in its result.

    Copies, tuples, and loops that hand the value on unchanged are looked through.
    """
    index = 0
    while (op := by_name.get(name)) is not None:
        if op.opcode == "get-tuple-element":
            index = int(op.attribute("index"))
        elif op.opcode == "tuple" or (op.opcode == "while" and _is_invariant(program, op, index)):
            # Continue with element `index` of the tuple, a loop's being its initial state.
            source = op if op.opcode == "tuple" else by_name.get(op.operands[0])
            if source is None or source.opcode != "tuple":
                return None, 0
            name, index = source.operands[index], 0
            continue
        elif op.opcode not in _SAME_VALUE:
            return op, index
        name = op.operands[0]
    return None, 0


def _is_invariant(program: Program, loop: Operation, index: int) -> bool:
    """Whether a loop's body returns element `index` of its state as it was.

    That is, its root is `tuple(..., %x, ...)` with `%x = get-tuple-element(%parameter), index=...`.
    """
    body = {op.name: op for op in program.computations.get(loop.attribute("body"), ())}
    root = next((op for op in body.values() if op.root), None)
    if root is None or root.opcode != "tuple":
        return False
    op = body.get(root.operands[index])
    while op is not None and op.opcode in _SAME_VALUE - {"get-tuple-element"}:
        op = body.get(op.operands[0])
    if op is None or op.opcode != "get-tuple-element" or int(op.attribute("index")) != index:
        return False
    return body[op.operands[0]].opcode == "parameter"
