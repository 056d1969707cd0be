"""Optimised HLO text as computations of operations, and how often each computation runs.

The text is a list of computations, callees before their callers, each `{ ... }` with an operation
a line; the one marked ENTRY is the program:

    %body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
      ...
    }
    ENTRY %main (a: f32[8]) -> f32[8] {
      %w = (s32[], f32[8]) while(%state), condition=%condition, body=%body
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from jaxformers.costs.hlo_operations import Operation, called_computations, parse_operation
from jaxformers.costs.trip_count import trip_count

_HEADER = re.compile(r"(?P<entry>ENTRY )?%(?P<name>[\w.-]+) \(.*\{$")
# Opcodes that run their computations as code of its own, whose results are written to memory. Those
# that others call (a `fusion`, the sum in a `reduce`) are expanded in place.
_RUNS_COMPUTATIONS = {"while", "call", "conditional", "async-start"}


@dataclass
class Program:
    """Computations by name, callees first, each a list of operations.

    The key "" holds operations outside any computation (of a text that is only lines).
    """

    computations: dict[str, list[Operation]] = field(default_factory=dict)
    entry: str = ""

    @classmethod
    def parse(cls, text: str) -> Program:
        """Parses the text of `jit(f).lower(...).compile().as_text()`."""
        program, name = cls({"": []}), ""
        for line in text.splitlines():
            if header := _HEADER.match(line):
                name = header["name"]
                program.computations[name] = []
                program.entry = name if header["entry"] else program.entry
            elif operation := parse_operation(line):
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
        # Callers come after their callees in the text, so in reverse order a computation's own
        # count is complete before it is passed on.
        for name in reversed(self.computations):
            for operation in self.computations[name]:
                count = self.trip_count(operation)
                for called in called_computations(operation):
                    runs[called] = runs.get(called, 0) + runs[name] * (
                        1 if count is None else count
                    )
        return runs

    @cached_property
    def fused(self) -> set[str]:
        """Computations inside a fusion or a reduction, whose values never reach memory."""
        expanded = [
            called
            for _, operation in self
            for called in called_computations(operation)
            if operation.opcode not in _RUNS_COMPUTATIONS
        ]
        return self.reachable_from(expanded)

    def reachable_from(self, computations: Iterable[str]) -> set[str]:
        """These computations and all that they call, directly or not."""
        reached, queue = set(), list(computations)
        while queue:
            if (name := queue.pop()) in self.computations and name not in reached:
                reached.add(name)
                queue += [c for op in self.computations[name] for c in called_computations(op)]
        return reached

    def trip_count(self, operation: Operation) -> int | None:
        """How often a loop's body runs, None where the text does not determine it.

        1 for an operation that is no loop.
        """
        if operation.opcode != "while":
            return 1
        return trip_count(operation, self._caller[operation.name], self.computations)

    @cached_property
    def _caller(self) -> dict[str, str]:
        """The computation that each loop is in."""
        return {op.name: computation for computation, op in self if op.opcode == "while"}
