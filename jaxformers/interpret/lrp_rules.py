"""How relevance passes one operation backwards: the rules of Chefer et al. 2021 (CVPR), section 3.

The paper states them by layer; here they stand by JAX's primitives, which make up every layer:

- a product with weights (linear map, convolution): what pushed the output up, x+ w+ + x- w-, shares
  its relevance in proportion (equation 4's alpha = 1 rule); biases take none;
- a product of two signals (queries and keys, probabilities and values): each operand shares in
  proportion to what it gave, and takes half (equation 7 keeps the sum);
- a sum of two signals (a residual): in proportion, then each operand's part rescaled so that its
  total is its size's share of the whole (equation 8);
- an activation, a softmax, a norm: all of it passes unchanged. Element by element such a layer is a
  function of one signal and of statistics (a mean, a maximum, a sum) that take no relevance.
- what only moves numbers moves their relevance.

Shapes are the program's own; there is no batch axis, for `jax.vmap` goes around all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxformers.arrays import Array
from jaxformers.costs.flops import ELEMENTWISE
from jaxformers.errors import ConfigError

# JAX's primitives that move numbers about, and that fold several into one, as names in a line.
_MOVES = (
    "reshape transpose squeeze expand_dims broadcast_in_dim slice dynamic_slice gather concatenate "
    "stack unstack pad rev select_n split dynamic_update_slice scatter convert_element_type copy "
    "copy_p reduce_precision sharding_constraint optimization_barrier stop_gradient"
)
_POOLS = "cumsum reduce_window_sum reduce_window_max reduce_window_min max min"
MOVES = frozenset(_MOVES.split())
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})
POOLS = REDUCTIONS.union(_POOLS.split())
PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
ELEMENT_BY_ELEMENT = frozenset(n for n in ELEMENTWISE if n[:3] != "cum") - {"select_n"}
EPSILON = 1e-9


@dataclass(frozen=True)
class Operand:
    """One argument of an operation: its value, and where it comes from.

    Attributes:
        array: the value.
        active: whether it depends on the model's input, as weights do not.
        source: the signal of which it is a function element by element.
        statistic: whether it was reduced and spread again, as a norm's mean is.
        reduced: whether it was reduced over axes of one place, which leaves its size, and not yet
            spread again.
    """

    array: Array
    active: bool
    source: int
    statistic: bool = False
    reduced: bool = False

    @property
    def carries(self) -> bool:
        """Whether relevance can go to it."""
        return self.active and jnp.issubdtype(self.array.dtype, jnp.inexact)


def divide(a: Array, b: Array) -> Array:
    """a / b kept finite: zero where b is zero."""
    return jnp.where(b == 0, 0.0, a / (b + jnp.where(b < 0, -EPSILON, EPSILON)))


def is_elementwise(name: str) -> bool:
    """Whether each number of the result depends on the operands' number at its place alone."""
    return name in ELEMENT_BY_ELEMENT or name in ("convert_element_type", "copy", "stop_gradient")


def is_reduction(name: str) -> bool:
    """Whether the operation folds axes into one number each."""
    return name in REDUCTIONS


def signal(operands: Sequence[Operand], shape: tuple[int, ...]) -> int | None:
    """Which operand an elementwise operation is a function of; None: of two different signals."""
    active = [i for i, operand in enumerate(operands) if operand.carries]
    # A mean or a maximum that is spread back over its axis scales a signal but is none itself.
    full_size = [i for i in active if not _spread(operands[i], shape)]
    chosen = full_size or active
    if len({operands[i].source for i in chosen}) == 1:
        return chosen[0]
    return None


def spread_back(
    name: str,
    run: Callable[..., Any],
    operands: Sequence[Operand],
    outputs: Sequence[Array],
    relevance: Sequence[Array],
) -> list[Array | None]:
    """The relevance of an operation's operands from that of its results.

    Args:
        name: JAX's name of the primitive.
        run: the operation, on the operands' values.
        operands: its arguments.
        outputs: its results.
        relevance: theirs, each of its result's shape.

    Raises:
        ConfigError: relevance reached an operation that has no rule here.
    """
    if not any(operand.carries for operand in operands):
        return [None] * len(operands)
    if name in MOVES:
        return _move_back(run, operands, relevance)
    if name in PRODUCTS:
        return _share_product(run, operands, relevance[0])
    if name in ELEMENT_BY_ELEMENT:
        at = signal(operands, outputs[0].shape)
        if at is not None:
            return _all_to_operand(operands, at, relevance[0])
    if name in ("add", "sub", "add_any"):
        return _share_sum(operands, relevance[0], -1.0 if name == "sub" else 1.0)
    if name == "mul":
        return [_fold(relevance[0] / 2, x.array.shape) if x.carries else None for x in operands]
    if name in ("div", "pow"):
        return _all_to_operand(operands, 0, relevance[0])
    if name in POOLS:
        return _share_in_proportion(run, operands, outputs[0], relevance[0])
    raise ConfigError(
        f"no relevance rule for the operation {name!r}: use method='generic', or add a rule to "
        "jaxformers/interpret/lrp_rules.py"
    )


def _spread(operand: Operand, shape: tuple[int, ...]) -> bool:
    return operand.statistic or operand.array.shape != shape


def _all_to_operand(operands: Sequence[Operand], at: int, r: Array) -> list[Array | None]:
    """All of it to one operand."""
    out: list[Array | None] = [None] * len(operands)
    if operands[at].carries:
        out[at] = _fold(r, operands[at].array.shape)
    return out


def _pullback(run, operands: Sequence[Operand]) -> tuple[Any, Callable, list[int]]:
    """The results, their derivative's transpose, and which operands it is taken for."""
    at = [i for i, operand in enumerate(operands) if operand.carries]

    def of_active(*active):
        arrays = [operand.array for operand in operands]
        for i, array in zip(at, active, strict=True):
            arrays[i] = array
        return run(*arrays)

    out, back = jax.vjp(of_active, *(operands[i].array for i in at))
    return out, back, at


def _move_back(run, operands: Sequence[Operand], relevance: Sequence[Array]) -> list[Array | None]:
    out, back, at = _pullback(run, operands)
    likes = [r.astype(y.dtype) for r, y in zip(relevance, jax.tree.leaves(out), strict=True)]
    return _at_operands(back(jax.tree.unflatten(jax.tree.structure(out), likes)), at, len(operands))


def _share_in_proportion(
    run, operands: Sequence[Operand], out: Array, r: Array
) -> list[Array | None]:
    """x * d out/dx * r / out."""
    # Sums and maxima are homogeneous of degree 1, y = sum_i x_i dy/dx_i: the shares sum to r.
    result, back, at = _pullback(run, operands)
    shares = back(
        jax.tree.unflatten(jax.tree.structure(result), [divide(r, out).astype(out.dtype)])
    )
    shares = [operands[i].array * share for i, share in zip(at, shares, strict=True)]
    return _at_operands(shares, at, len(operands))


def _share_product(run, operands: Sequence[Operand], r: Array) -> list[Array | None]:
    at = [i for i, operand in enumerate(operands) if operand.carries]
    a, b = (operand.array for operand in operands)
    if len(at) == 2:
        # Two signals: R_a = a dz/da R/z, and for b alike; each sums to R, so each is halved.
        z, back = jax.vjp(run, a, b)
        da, db = back(divide(r, z))
        return [a * da / 2, b * db / 2]
    if at == [0]:
        return [_weighted(run, a, b, r), None]
    return [None, _weighted(lambda x, w: run(w, x), b, a, r)]


def _weighted(run, x: Array, w: Array, r: Array) -> Array:
    """Relevance of x through a product with weights, by the products that are not negative."""
    # Equation 4: R_j = sum_i of x_j w_ji R_i / sum_j' x_j' w_j'i over products that are positive;
    # their sum is x+ w+ + x- w-. The vjp of a product by w+ is the product by its transpose.
    positive, negative = jnp.maximum(x, 0), jnp.minimum(x, 0)
    up, back_up = jax.vjp(lambda y: run(y, jnp.maximum(w, 0)), positive)
    down, back_down = jax.vjp(lambda y: run(y, jnp.minimum(w, 0)), negative)
    share = divide(r, up + down)
    return positive * back_up(share)[0] + negative * back_down(share)[0]


def _share_sum(operands: Sequence[Operand], r: Array, sign: float) -> list[Array | None]:
    a, b = operands[0].array, operands[1].array * sign
    share = divide(r, a + b)
    shares = [a * share, b * share]  # in proportion to the operands' values; sums to r
    sums = [x.sum() for x in shares]
    # Equation 8: operand u gets |sum R_u| / (|sum R_u| + |sum R_v|) of the total, so that large
    # shares of opposite signs cannot grow without bound.
    size, total = sum(jnp.abs(x) for x in sums), r.sum()
    out: list[Array | None] = []
    for operand, x, x_sum in zip(operands, shares, sums, strict=True):
        target_sum = divide(jnp.abs(x_sum), size) * total
        out.append(_fold(x * divide(target_sum, x_sum), operand.array.shape))
    return out


def _fold(r: Array, shape: tuple[int, ...]) -> Array:
    """Summed over the axes along which an operand of this shape was repeated."""
    if r.shape == shape:
        return r
    if shape == ():
        return r.sum()
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and r.shape[i] != 1)
    return r.sum(repeated, keepdims=True)


def _at_operands(shares: Sequence[Array], at: Sequence[int], n: int) -> list[Array | None]:
    out: list[Array | None] = [None] * n
    for i, share in zip(at, shares, strict=True):
        out[i] = share
    return out
