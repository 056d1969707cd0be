"""Floating-point operations (FLOPs) of a function, counted from its jaxpr.

XLA's `cost_analysis()` counts the body of a loop once; here a scan's body counts as often as it
runs. A multiply-add is two FLOPs. A convolution counts only the products with real inputs, not
those with padding or with the zeros that a strided convolution's gradient inserts (XLA's rule).
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.interpreters.partial_eval import dce_jaxpr

# JAX's primitives that count as one operation for each element of their result.
_ELEMENTWISE = (
    "abs acos acosh add add_any asin asinh atan atan2 atanh cbrt clamp cos cosh cumlogsumexp "
    "cummax cummin cumprod cumsum digamma div erf erf_inv erfc exp exp2 expm1 floor ceil "
    "integer_pow is_finite lgamma log log1p logistic max min mul neg nextafter pow rem round "
    "rsqrt select_n sign sin sinh sqrt square sub tan tanh"
)
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"})


@dataclass
class FlopCount:
    """FLOPs of a function.

    Attributes:
        matmul: FLOPs of matrix products and convolutions.
        elementwise: FLOPs of everything else on floating-point numbers, one an element.
        by_primitive: both, split by the name of JAX's primitive.
        unknown_loops: one turn of each `while` whose number of turns is not known before it runs;
            each is counted as one turn.
    """

    matmul: int = 0
    elementwise: int = 0
    by_primitive: Counter[str] = field(default_factory=Counter)
    unknown_loops: list[FlopCount] = field(default_factory=list)

    @property
    def total(self) -> int:
        """FLOPs of products, convolutions and elementwise operations."""
        return self.matmul + self.elementwise

    def add(self, count: FlopCount, times: int = 1) -> None:
        """Adds `times` times another count."""
        self.matmul += count.matmul * times
        self.elementwise += count.elementwise * times
        for name, flops in count.by_primitive.items():
            self.by_primitive[name] += flops * times
        self.unknown_loops += count.unknown_loops


def measure_flops(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> FlopCount:
    """Counts the FLOPs of `fn(*args, **kwargs)` without running it.

    Arguments may be arrays or `jax.ShapeDtypeStruct`s. Operations that do not contribute to the
    result are not counted. Of a `cond` the most expensive branch counts; a `shard_map` counts on
    all its devices; a Pallas kernel counts once per point of its grid.
    """
    return flops_of(jax.make_jaxpr(fn)(*args, **kwargs))


def flops_of(closed: ClosedJaxpr) -> FlopCount:
    """FLOPs of a jaxpr: `measure_flops` of a function that has been traced."""
    # Without dead code, which XLA removes too.
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(jaxpr)


def count_flops(
    fn: Callable[..., Any], *args: Any, elementwise: bool = False, **kwargs: Any
) -> int:
    """FLOPs of `fn(*args, **kwargs)`: its matrix products and convolutions.

    Args:
        fn: any function that JAX can trace.
        *args: arrays or `jax.ShapeDtypeStruct`s.
        elementwise: count all other floating-point operations too.
        **kwargs: like `args`.

    Warns:
        UserWarning: a `while` loop's number of turns is unknown; it was counted as one turn.
    """
    count = measure_flops(fn, *args, **kwargs)
    if any(turn.total for turn in count.unknown_loops):
        turns = ", ".join(f"{turn.total:,}" for turn in count.unknown_loops)
        warnings.warn(
            f"while loops of unknown length, counted as one turn each (FLOPs a turn: {turns})",
            stacklevel=2,
        )
    return count.total if elementwise else count.matmul


def model_flops(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """FLOPs for MFU: matrix products and convolutions only.

    Pass a function without rematerialisation and with plain attention: MFU counts the FLOPs that
    the model needs, not those that are repeated to save memory.
    """
    return count_flops(fn, *args, **kwargs)


def _count(jaxpr: Jaxpr) -> FlopCount:
    count = FlopCount()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if rule := _MATMUL.get(name):
            flops = rule(eqn)
            count.matmul += flops
            count.by_primitive[name] += flops
        elif name in ELEMENTWISE or name in REDUCTIONS:
            flops = _elements(eqn, name in REDUCTIONS)
            count.elementwise += flops
            count.by_primitive[name] += flops
        else:
            _count_inside(eqn, name, count)
    return count


def _count_inside(eqn: JaxprEqn, name: str, count: FlopCount) -> None:
    """Adds the FLOPs of the jaxprs inside an equation, as often as they run."""
    params = eqn.params
    if name == "scan":
        count.add(_count(_open(params["jaxpr"])), params["length"])
    elif name == "while":
        _count_while(eqn, count)
    elif name == "cond":
        branches = [_count(_open(branch)) for branch in params["branches"]]
        count.add(max(branches, key=lambda branch: branch.total))
    elif name == "shard_map":
        # The inner jaxpr has one device's shapes; "newly manual" axes are those mapped here, not by
        # an enclosing shard_map.
        sizes = dict(params["mesh"].shape)
        devices = math.prod(sizes[axis] for axis in params["newly_manual_axes"])
        count.add(_count(_open(params["jaxpr"])), devices)
    elif name == "pallas_call":
        count.add(_count(_open(params["jaxpr"])), math.prod(params["grid_mapping"].grid))
    # A scatter's or reduction's jaxpr is its combining function of two scalars, not a call.
    elif not name.startswith(("scatter", "reduce", "select_and")):
        for inner in _functions(params):
            count.add(_count(inner))


def _count_while(eqn: JaxprEqn, count: FlopCount) -> None:
    once = _count(_open(eqn.params["body_jaxpr"]))
    turns = _trip_count(eqn)
    count.add(once, 1 if turns is None else turns)
    if turns is None:
        count.unknown_loops.append(once)


def _trip_count(eqn: JaxprEqn) -> int | None:
    """Turns of a loop `i = a; while i < b: i += c` with constants a, b and c; else None."""
    test, body = _open(eqn.params["cond_jaxpr"]), _open(eqn.params["body_jaxpr"])
    test_consts, body_consts = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    # A while's operands are (consts of the test, consts of the body, state); each of its two jaxprs
    # takes its own consts and then the state.
    if [eqn.primitive.name for eqn in test.eqns] != ["lt"]:
        return None
    counter, limit = test.eqns[0].invars
    if isinstance(counter, Literal) or counter not in test.invars[test_consts:]:
        return None
    slot = test.invars[test_consts:].index(counter)
    start = eqn.invars[test_consts + body_consts + slot]
    if not isinstance(limit, Literal) and limit in test.invars[:test_consts]:
        limit = eqn.invars[test.invars.index(limit)]
    step = _increment(body, body.invars[body_consts + slot], body.outvars[slot])
    if step is None or not isinstance(start, Literal) or not isinstance(limit, Literal):
        return None
    return max(0, math.ceil((int(limit.val) - int(start.val)) / step))


def _increment(body: Jaxpr, before: Any, after: Any) -> int | None:
    """The positive constant that a loop's body adds to a counter."""
    for eqn in body.eqns:
        if after in eqn.outvars and eqn.primitive.name == "add":
            constants = [var for var in eqn.invars if isinstance(var, Literal)]
            if before in eqn.invars and len(constants) == 1 and int(constants[0].val) > 0:
                return int(constants[0].val)
    return None


def _functions(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters (jit, remat, custom derivatives, ...)."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                yield _open(item)


def _open(jaxpr: Any) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def _elements(eqn: JaxprEqn, reduction: bool) -> int:
    """One FLOP for each output element; a reduction of n elements to one takes n - 1."""
    if not jax.numpy.issubdtype(eqn.invars[-1].aval.dtype, jax.numpy.inexact):
        return 0
    out = eqn.outvars[0].aval.size
    return eqn.invars[0].aval.size - out if reduction else out


def _dot_general(eqn: JaxprEqn) -> int:
    # A multiply-add for each element of the output and of the contracted axes.
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _ragged_dot_general(eqn: JaxprEqn) -> int:
    # Rows [M, K] in groups, each with its own matrix [G, K, N]: every row meets one matrix.
    (contracted, _), _ = eqn.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _convolution(eqn: JaxprEqn) -> int:
    params = eqn.params
    numbers = params["dimension_numbers"]
    image, kernel = (var.aval.shape for var in eqn.invars[:2])
    out = eqn.outvars[0].aval.shape
    # Specs list the positions of (batch, feature, *spatial) or, of the kernel, (out, in, *spatial),
    # whose "in" is the channels of one group: grouped convolutions come out right.
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    products = batch * features * kernel[numbers.rhs_spec[1]]
    for axis in range(len(params["window_strides"])):
        products *= _real_positions(
            image[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            (params["window_strides"][axis], params["padding"][axis][0]),
            (params["lhs_dilation"][axis], params["rhs_dilation"][axis]),
        )
    return 2 * products


def _real_positions(
    image: int, kernel: int, out: int, window: tuple[int, int], dilation: tuple[int, int]
) -> int:
    """Pairs of output and kernel positions, along one axis, that meet a real input.

    `window` is (stride, padding before), `dilation` (of the input, of the kernel).
    """
    stride, padding = window
    input_dilation, kernel_dilation = dilation
    # Position in the dilated input of each pair, [out, kernel]. Real inputs are at multiples of the
    # input's dilation; the zeros between them stem from a strided convolution's gradient.
    position = (
        np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * kernel_dilation - padding
    )
    in_range = (position >= 0) & (position < (image - 1) * input_dilation + 1)
    return int((in_range & (position % input_dilation == 0)).sum())


def _cudnn_attention(eqn: JaxprEqn, products: int) -> int:
    """`products` of the size of q k^T, of queries [B, T, H, K] and keys [B, S, H, K]."""
    queries, keys = (var.aval.shape for var in eqn.invars[:2])
    return products * 2 * math.prod(queries) * keys[1]


_MATMUL: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _dot_general,
    "ragged_dot_general": _ragged_dot_general,
    "conv_general_dilated": _convolution,
    # The backward pass computes the scores again, and four gradients.
    "dot_product_attention_fwd_wrapper": partial(_cudnn_attention, products=2),
    "dot_product_attention_bwd_wrapper": partial(_cudnn_attention, products=5),
}
