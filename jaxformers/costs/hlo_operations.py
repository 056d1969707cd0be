"""Operations of optimised HLO text, one a line: name, element types, shapes, operands, attributes.

The syntax, on a line of a TPU program (`metadata` shortened):

    ROOT %ag.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} all-gather(%p.2), dimensions={0}, metadata={...}
    root  name  type: shape, layout                 opcode     operands   attributes

A layout `{1,0:T(8,128)(2,1)S(1)}` lists the dimensions from the fastest-moving one on, then the
tiles `T(...)` that a TPU stores the array in, then its memory space: `S(1)` is on chip.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

_LEFT_SIDE = re.compile(r"^\s*(?P<root>ROOT )?%(?P<name>[\w.-]+) = ")
_OPCODE = re.compile(r" ?(?P<opcode>[\w-]+)\(")
# The attributes that name a computation: `to_apply=%add`, `calls=%fused`, `body=%b`,
# `condition=%c`, `true_computation=%t`.
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|\w+_computation)=%([\w.-]+)")
_BUFFER = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
# Element types whose name does not end with their bits; a `pred` takes a byte.
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0, "opaque": 0}


@dataclass(frozen=True)
class Buffer:
    """One array of an operation's result, on one device.

    Attributes:
        dtype: its element type, such as `bf16`.
        shape: its dimensions.
        minor_to_major: dimensions from the fastest-moving to the slowest, where the text has them.
        tile: sizes that a TPU pads the fastest-moving dimensions to multiples of, slowest first.
        on_chip: whether it is in the chip's own small memory rather than in its main memory.
    """

    dtype: str
    shape: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    on_chip: bool = False

    @property
    def bytes(self) -> int:
        """Size in bytes, without the padding of tiles."""
        return math.prod(self.shape) * bits(self.dtype) // 8

    @property
    def padded(self) -> int:
        """Size in bytes, with the padding of tiles."""
        # `T(8,128)` with minor-to-major (1, 0) pads dimension 1 to 128 and dimension 0 to 8.
        shape = list(self.shape)
        for dimension, tile in zip(self.minor_to_major, reversed(self.tile), strict=False):
            shape[dimension] = -(-shape[dimension] // tile) * tile
        return math.prod(shape) * bits(self.dtype) // 8

    def __str__(self) -> str:
        """Element type and shape, such as `bf16[8,128]`."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def bits(dtype: str) -> int:
    """Bits of one element of an HLO type; 0 for a type without data."""
    if dtype in _BITS:
        return _BITS[dtype]
    width = re.search(r"\d+", dtype)
    return int(width[0]) if width else 0


def parse_buffers(text: str) -> tuple[Buffer, ...]:
    """The arrays of a type in order: of `f32[4]{0}`, or of a tuple, nested ones included."""
    buffers = []
    for dtype, shape, minor_to_major, layout in _BUFFER.findall(text):
        # Only the first tile counts: the second of `T(8,128)(2,1)` subdivides it (two bfloat16 rows
        # in one of 32 bits) and pads nothing more.
        tile = re.match(r"T\((\d+),?(\d*)\)", layout)
        buffers.append(
            Buffer(
                dtype,
                parse_ints(shape),
                parse_ints(minor_to_major),
                tuple(int(n) for n in tile.groups() if n) if tile else (),
                "S(1)" in layout,
            )
        )
    return tuple(buffers)


def parse_ints(text: str) -> tuple[int, ...]:
    """The integers of a comma-separated list such as `1,2,3`; an empty tuple for an empty text."""
    return tuple(int(n) for n in text.split(",") if n)


@dataclass
class Operation:
    """One operation of a computation.

    Attributes:
        name: unique in its computation, without `%`.
        opcode: such as `fusion`, `all-gather` or `while`.
        type: text of its result's type, a tuple's included.
        operands: names of its operands.
        text: its line from the operands on, attributes included.
        root: whether it gives the computation's result.
    """

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    text: str
    root: bool = False

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """All arrays of its type, those of nested tuples included."""
        return parse_buffers(self.type)

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        """The arrays that it computes; of an asynchronous start, those that its `-done` returns."""
        # A start's type is (operands, results, contexts...):
        #   %s = (f32[2,8], f32[4,8], u32[]) all-gather-start(%p)  gives f32[4,8].
        # Only an all-reduce's is its results alone: `(f32[4], f32[8]) all-reduce-start(%p, %q)`.
        elements = _tuple_elements(self.type) if self.opcode.endswith("-start") else []
        is_results = self.opcode == "all-reduce-start" and elements and elements[0][0] != "("
        if len(elements) < 2 or is_results:
            return self.buffers
        return parse_buffers(elements[1])

    @property
    def op_name(self) -> str:
        """Path of the JAX operation that it comes from (`jit(f)/while/body/dot`), or empty."""
        match = re.search(r'op_name="([^"]*)"', self.text)
        return match[1] if match else ""

    def attribute(self, name: str) -> str:
        """The computation or number that the attribute `name=` holds; empty without it."""
        match = re.search(rf"\b{name}=%?([\w.-]+)", self.text)
        return match[1] if match else ""


def called_computations(operation: Operation) -> list[str]:
    """Names of the computations that an operation runs."""
    # `async-update` and `async-done` repeat the `calls=` of their start, which would count twice.
    if operation.opcode.endswith(("-update", "-done")):
        return []
    # A `conditional` of several branches lists them: `branch_computations={%a, %b}`.
    branches = re.search(r"branch_computations=\{([^}]*)\}", operation.text)
    names = re.findall(r"%([\w.-]+)", branches[1]) if branches else []
    return [*_CALLED.findall(operation.text), *names]


def parse_operation(line: str) -> Operation | None:
    """The operation on a line; None for any other line."""
    left = _LEFT_SIDE.match(line)
    if left is None:
        return None
    # A tuple's type has spaces and parentheses inside, and so ends at the closing parenthesis; an
    # array's type has no space.
    start = left.end()
    end_of_type = _closing(line, start) if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end_of_type)
    if opcode is None:
        return None
    end_of_operands = _closing(line, opcode.end() - 1)
    return Operation(
        left["name"],
        opcode["opcode"],
        line[start:end_of_type].strip(),
        tuple(re.findall(r"%([\w.-]+)", line[opcode.end() : end_of_operands])),
        line[opcode.end() :],
        bool(left["root"]),
    )


def _tuple_elements(text: str) -> list[str]:
    """The types of a tuple's elements, such as `(a[2], (b[], c[]))`; none if it is no tuple."""
    if not text.startswith("("):
        return []
    # Commas also separate dimensions and nested elements: only those at depth 0 split. XLA numbers
    # the elements of long tuples in comments, `/*index=5*/`.
    depth, elements = 0, [""]
    for letter in re.sub(r"/\*.*?\*/", "", text)[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += letter
    return [element.strip() for element in elements]


def _closing(line: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(line)):
        depth += (line[index] == "(") - (line[index] == ")")
        if depth == 0:
            return index + 1
    return len(line)
