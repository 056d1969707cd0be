"""Relevance of everything inside a function: an interpreter over the function's own jaxpr.

A `Tape` runs a jaxpr operation by operation and keeps what it computed; `relevance` then walks back
over it and hands the relevance of each result to its operands by the rules of `lrp_rules.py`.
Nothing depends on layers or models. Functions inside functions (jit, remat, custom derivatives) are
run in line; a scan runs as a scan, forwards and backwards, its inside taped anew at each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from jaxformers.arrays import Array
from jaxformers.interpret.lrp_rules import (
    Operand,
    is_elementwise,
    is_reduction,
    signal,
    spread_back,
)

_NO_CALLS = ("scan", "while", "cond", "reduce", "reduce_window", "pallas_call", "shard_map")
Relevance = dict[int, Array]
"""The relevance of values, by their number on the tape."""


@dataclass
class _Step:
    eqn: JaxprEqn
    ins: list[int]
    outs: list[int]
    carries: list[Array] | None = None
    """Of a scan: what each of its turns started from, stacked."""


@dataclass
class Tape:
    """A function as it ran. Its values have numbers, in the order in which they came to be."""

    values: list[Operand] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)

    def give(self, array: Array, active: bool, source: int | None = None, *kind: bool) -> int:
        """Put a value on the tape and number it; by default it is a signal of its own.

        `kind`: what `Operand` says of it beyond that.
        """
        number = len(self.values)
        source = number if source is None else source
        self.values.append(Operand(jnp.asarray(array), active, source, *kind))
        return number

    def run(self, closed: ClosedJaxpr, ins: Sequence[int]) -> list[int]:
        """Run a jaxpr on numbered values; the numbers of its results."""
        numbers = dict(zip(closed.jaxpr.invars, ins, strict=True))
        for var, const in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            numbers[var] = self.give(const, False)

        def number(atom) -> int:
            return self.give(atom.val, False) if isinstance(atom, Literal) else numbers[atom]

        # Equations stand in the order of evaluation, so that every operand has its number already.
        for eqn in closed.jaxpr.eqns:
            outs = self._equation(eqn, [number(atom) for atom in eqn.invars])
            numbers.update(zip(eqn.outvars, outs, strict=True))
        return [number(atom) for atom in closed.jaxpr.outvars]

    def relevance(self, initial: Sequence[tuple[int, Array]]) -> Relevance:
        """The relevance of all values from that of some: for each, all that its users hand back.

        Values that do not depend on the input get none and are absent.
        """
        # R_in = sum over users of their rule's share of R_out: relevance adds up as gradients do.
        relevances: Relevance = {}
        for number, r in initial:
            self._add_relevance(relevances, number, r)
        # A value is complete once all its users, which come later on the tape, have been visited.
        for step in reversed(self.steps):
            if any(number in relevances for number in step.outs):
                shares = (
                    self._scan_back(step, relevances)
                    if step.carries
                    else self._back(step, relevances)
                )
                for number, share in zip(step.ins, shares, strict=True):
                    if share is not None:
                        self._add_relevance(relevances, number, share)
        return relevances

    def _add_relevance(self, relevances: Relevance, number: int, r: Array) -> None:
        if self.values[number].carries:
            relevances[number] = relevances[number] + r if number in relevances else r

    def _equation(self, eqn: JaxprEqn, ins: list[int]) -> list[int]:
        # Calls (jit, remat, custom rules) are entered: rules see primitive operations only.
        inner = _inner_function(eqn)
        if inner is not None:
            return self.run(inner, ins)
        operands = [self.values[i] for i in ins]
        active = any(operand.active for operand in operands)
        carries = None
        # A scan is run as one, and each turn's carry kept: walking back needs its inside again.
        if eqn.primitive.name == "scan" and active:
            results, carries = _scan(eqn, [operand.array for operand in operands])
            flags = _scan_activity(eqn, [operand.active for operand in operands])[1]
            outs = [self.give(x, flag) for x, flag in zip(results, flags, strict=True)]
        else:
            results = _operation(eqn)(*(operand.array for operand in operands))
            results = results if eqn.primitive.multiple_results else [results]
            outs = [self._result(eqn.primitive.name, operands, x, active) for x in results]
        if active:
            self.steps.append(_Step(eqn, ins, outs, carries))
        return outs

    def _result(self, name: str, operands: list[Operand], array: Array, active: bool) -> int:
        # A statistic (a mean, a sum, a maximum) describes a signal and takes none of its relevance.
        carrying = [operand for operand in operands if operand.carries]
        statistic = bool(carrying) and all(operand.statistic for operand in carrying)
        if name == "broadcast_in_dim" and carrying:
            # A softmax over one place spreads nothing, yet its sum is no signal of its own.
            statistic |= array.size > operands[0].array.size or operands[0].reduced
        source, reduced = None, is_reduction(name) and array.size == operands[0].array.size
        if carrying and is_elementwise(name):
            # A result of the same shape goes on with the identity of the signal it came from.
            at = signal(operands, array.shape)
            if at is not None and operands[at].array.shape == array.shape:
                source, reduced = operands[at].source, operands[at].reduced
        return self.give(array, active, source, statistic, reduced)

    def _back(self, step: _Step, relevances: Relevance) -> list[Array | None]:
        outs = [self.values[i] for i in step.outs]
        return spread_back(
            step.eqn.primitive.name,
            _operation(step.eqn),
            [self.values[i] for i in step.ins],
            [out.array for out in outs],
            [relevances.get(i, jnp.zeros_like(self.values[i].array)) for i in step.outs],
        )

    def _scan_back(self, step: _Step, relevances: Relevance) -> list[Array | None]:
        """The scan's turns in reverse; each is run again, and its inside walked back."""
        params, values = step.eqn.params, [self.values[i] for i in step.ins]
        # A scan takes [constants, carries, stacked inputs] and gives [carries, stacked results].
        consts, n = _scan_sizes(step.eqn)
        active = _scan_activity(step.eqn, [value.active for value in values])[0]

        def turn(later, inputs):
            (of_carry, of_consts), (carry, xs, of_ys) = later, inputs
            # As in rematerialisation: the turn runs again from its carry, on a tape of its own.
            tape, arrays = Tape(), [*(value.array for value in values[:consts]), *carry, *xs]
            ins = [tape.give(x, on) for x, on in zip(arrays, active, strict=True)]
            outs = tape.run(params["jaxpr"], ins)
            inside = tape.relevance(list(zip(outs, [*of_carry, *of_ys], strict=True)))
            got = [inside.get(i, _none(tape.values[i])) for i in (*ins, *outs[n:])]
            # All turns share the constants, so that their shares add up over the turns.
            of_consts = [a + b for a, b in zip(of_consts, got[:consts], strict=True)]
            ends = consts + n
            return (got[consts:ends], of_consts), (got[ends : len(ins)], got[len(ins) :])

        outs = [relevances.get(i, _none(self.values[i])) for i in step.outs]
        blank = jnp.zeros(params["length"])
        of_ys = [r if r.ndim else blank for r in outs[n:]]
        # The first turn's activity holds for all, so a carry has its relevance's shape throughout.
        carries = [
            _none(Operand(c[0], on, 0))
            for c, on in zip(step.carries, active[consts:], strict=False)
        ]
        starts = [r if r.ndim == c.ndim else c for r, c in zip(outs[:n], carries, strict=True)]
        (of_carry, of_consts), (of_xs, of_ys) = jax.lax.scan(
            turn,
            (starts, [_none(value) for value in values[:consts]]),
            (step.carries, [value.array for value in values[consts + n :]], of_ys),
            length=params["length"],
            # The backward walk visits the turns in the opposite order.
            reverse=not params["reverse"],
        )
        # What the turns themselves made of their stacked results is these results' relevance too.
        for number, r in zip(step.outs[n:], of_ys, strict=True):
            if self.values[number].carries:
                relevances[number] = r
        return [*of_consts, *of_carry, *of_xs]


def trace(fn: Callable[..., Any], inputs: Any, weights: Any) -> tuple[Tape, Any]:
    """Run `fn(inputs, weights)` on a tape; with it, the number of each leaf of the result.

    Args:
        fn: any function that JAX can trace.
        inputs: the tree of arrays on which relevance may fall.
        weights: the tree of arrays that take no relevance.
    """
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(inputs, weights)
    tape = Tape()
    # Inputs carry relevance; weights are constants of the explanation.
    ins = [tape.give(x, True) for x in jax.tree.leaves(inputs)]
    ins += [tape.give(x, False) for x in jax.tree.leaves(weights)]
    return tape, jax.tree.unflatten(jax.tree.structure(shapes), tape.run(closed, ins))


def _none(value: Operand) -> Array:
    """No relevance: zeros where there could be some, else one zero in its place."""
    return jnp.zeros_like(value.array) if value.carries else jnp.zeros(())


def _operation(eqn: JaxprEqn) -> Callable[..., Any]:
    """The equation as a function of its operands' values."""
    return lambda *arrays: eqn.primitive.bind(*arrays, **eqn.params)


def _inner_function(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The function that an equation calls, once and on just its operands; None: it is no call."""
    if eqn.primitive.name in _NO_CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(name)
        # Since JAX 0.11 the two are one class.
        if isinstance(inner, Jaxpr) and not isinstance(inner, ClosedJaxpr):
            inner = ClosedJaxpr(inner, ())
        if isinstance(inner, ClosedJaxpr) and len(inner.jaxpr.invars) == len(eqn.invars):
            return inner
    return None


def _scan_sizes(eqn: JaxprEqn) -> tuple[int, int]:
    """Numbers of constants and of carries of a scan, whose other operands are stacked inputs."""
    if "ft_in" in eqn.params:  # since JAX 0.11
        consts, carries, _ = eqn.params["ft_in"].unpack()
        return len(consts), len(carries)
    return eqn.params["num_consts"], eqn.params["num_carry"]


def _scan(eqn: JaxprEqn, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
    """A scan's results, and what each turn was handed by the one before."""
    params, (consts, n) = eqn.params, _scan_sizes(eqn)
    body = jaxpr_as_fun(params["jaxpr"])

    def turn(carry, xs):
        outs = body(*arrays[:consts], *carry, *xs)
        return outs[:n], (outs[n:], carry)

    # carries: [length, ...] a carry, what each turn started from.
    last, (ys, carries) = jax.lax.scan(
        turn,
        arrays[consts : consts + n],
        arrays[consts + n :],
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*last, *ys], carries


def _scan_activity(eqn: JaxprEqn, flags: list[bool]) -> tuple[list[bool], list[bool]]:
    """Which of a turn's arguments, and which of the scan's results, depend on the input."""
    consts, n = _scan_sizes(eqn)
    flags = list(flags)
    # A fixed point: activity only grows, so this ends after at most as many rounds as carries.
    while True:  # what a turn makes depend on the input, the next one is handed
        outs = _activity(eqn.params["jaxpr"].jaxpr, flags)
        carry = [a or b for a, b in zip(flags[consts : consts + n], outs[:n], strict=True)]
        if carry == flags[consts : consts + n]:
            return flags, outs
        flags[consts : consts + n] = carry


def _activity(jaxpr: Jaxpr, flags: Sequence[bool]) -> list[bool]:
    """Which results depend on the arguments that are flagged."""
    active = {var for var, flag in zip(jaxpr.invars, flags, strict=True) if flag}

    def flag(atom) -> bool:
        return not isinstance(atom, Literal) and atom in active

    for eqn in jaxpr.eqns:
        ins, inner = [flag(atom) for atom in eqn.invars], _inner_function(eqn)
        if inner is not None:
            outs = _activity(inner.jaxpr, ins)
        elif eqn.primitive.name == "scan":
            outs = _scan_activity(eqn, ins)[1]
        else:
            outs = [any(ins)] * len(eqn.outvars)
        active |= {var for var, on in zip(eqn.outvars, outs, strict=True) if on}
    return [flag(atom) for atom in jaxpr.outvars]
