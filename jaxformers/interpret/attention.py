"""Attention probabilities of any model of ours, with what a score makes of them.

They are reached by name (the collections `probs` and `perturb` of `layers.attention`): no second
model. Three views of each probability: its value, the gradient of a score with respect to it, and
the relevance that it passed on to that score (`tape`, `rules`).

Axis letters: n layers, B batch, M scores explained for each example, H heads, T queries, S keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.interpret.jaxpr_interpreter import trace


class Attention(NamedTuple):
    """What belongs to each attention of a model, layers first; None where there is none."""

    encoder: Any = None
    """An encoder's to itself, `[n, B, H, T, T]`; for each score, `[n, B, M, H, T, T]`."""
    decoder: Any = None
    """The decoder's to itself."""
    cross: Any = None
    """`[..., T, S]`: the decoder's to the encoder's output."""


class Explained(NamedTuple):
    """Scores of a model's output and what lies behind them."""

    scores: Any
    """`[B, M]`."""
    probabilities: Attention
    """`[n, B, H, T, S]` each."""
    gradients: Attention
    """`[n, B, M, H, T, S]` each: of each score by each probability."""
    relevance: Attention | None
    """The same shapes; None when it was not asked for. A score's own relevance is 1."""


Select = Callable[[Any, Any], Array]
"""`select(output, targets) -> scores [B, M]`."""


def class_scores(logits: Array, classes: Array) -> Array:
    """The logits `[B, M]` of `classes` `[B, M]` among `[B, N]`."""
    return jnp.take_along_axis(logits, classes, axis=1)


def token_scores(logits: Array, targets: tuple[Array, Array]) -> Array:
    """The logits `[B, M]` of (positions, tokens), each `[B, M]`, among `[B, T, V]`."""
    positions, tokens = targets
    rows = jnp.take_along_axis(logits, positions[:, :, None], axis=1)
    return jnp.take_along_axis(rows, tokens[:, :, None], axis=2)[:, :, 0]


def attention_maps(
    model: nn.Module, variables: Any, *inputs: Any, method: str | None = None, **arrays: Any
) -> Attention:
    """All attention probabilities of `model.apply(variables, *inputs, **arrays)`, float32.

    Args:
        model: any model built from `jaxformers.layers`.
        variables: its variables.
        *inputs: its inputs, batch first.
        method: one of the model's methods, instead of its call.
        **arrays: further inputs by name, such as `attention_mask`.
    """
    return _maps(model, method, variables, inputs, arrays)


def explained_attention(
    model: nn.Module,
    variables: Any,
    *inputs: Any,
    targets: Any,
    select: Select = class_scores,
    relevance: bool = True,
    **arrays: Any,
) -> Explained:
    """Probabilities, and for each score their gradients and their relevance.

    Args:
        model: any model built from `jaxformers.layers`; best computed in float32.
        variables: its variables.
        *inputs: its inputs, batch first.
        targets: which scores to explain, batch first: what `select` takes.
        select: chooses the scores from the model's output; a function of a module, not a lambda,
            or each call compiles anew.
        relevance: whether to propagate relevance too, the dearer part.
        **arrays: further inputs by name.
    """
    return _explained(model, select, relevance, variables, (inputs, arrays), targets)


@partial(jax.jit, static_argnums=(0, 1))
def _maps(model, method, variables, inputs, arrays) -> Attention:
    _, state = model.apply(variables, *inputs, method=method, mutable=["probs"], **arrays)
    return _by_place(state.get("probs", {}))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _explained(model, select, relevance, variables, inputs, targets) -> Explained:
    def of_one(inputs, targets):
        inputs, targets = jax.tree.map(lambda x: x[None], (inputs, targets))
        return _explained_one(model, select, relevance, variables, inputs, targets)

    got = jax.vmap(of_one)(inputs, targets)
    return got._replace(
        probabilities=jax.tree.map(lambda x: x[:, :, 0].swapaxes(0, 1), got.probabilities),
        gradients=jax.tree.map(_layers_first, got.gradients),
        relevance=jax.tree.map(_layers_first, got.relevance),
    )


def _explained_one(model, select, relevance, variables, inputs, targets) -> Explained:
    """One example, with a batch axis of 1: the rules' sums are then its own."""

    def scores(inputs, rest):
        variables, targets = rest
        arrays, named = inputs
        output, state = model.apply(variables, *arrays, mutable=["probs"], **named)
        return select(output, targets)[0], state.get("probs", {})

    def of_perturbed(perturb):
        return scores(inputs, ({**variables, "perturb": perturb}, targets))

    like = jax.eval_shape(scores, inputs, (variables, targets))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    found, back, state = jax.vjp(of_perturbed, zeros, has_aux=True)
    each = jnp.eye(found.shape[0], dtype=found.dtype)
    (gradients,) = jax.vmap(back)(each)
    parts = None
    if relevance:
        tape, (number, places) = trace(scores, inputs, (variables, targets))

        def share(one):
            known = tape.relevance([(number, one)])
            none = jnp.zeros_like
            return jax.tree.map(lambda i: known.get(i, none(tape.values[i].array)), places)

        parts = _by_place(jax.vmap(share)(each), lead=1)
    return Explained(found, _by_place(state), _by_place(gradients, lead=1), parts)


def _by_place(collection: Any, lead: int = 0) -> Attention:
    """The leaves of a `probs` collection by what attends to what; `lead` axes before their own."""
    leaves = flatten_dict(collection, sep="/")
    places: dict[str, list[Array]] = {}
    for path in sorted(leaves, key=_natural):
        leaf = leaves[path]
        # One layer outside a stack has no axis of layers.
        leaf = jnp.expand_dims(leaf, lead) if leaf.ndim == lead + 4 else leaf
        places.setdefault(_place(path), []).append(leaf)
    if not places:
        raise DataError("the model gave no attention probabilities: it has no attention to look at")
    return Attention(**{key: jnp.concatenate(found, lead) for key, found in places.items()})


def _place(path: str) -> str:
    if "cross_attention" in path:
        return "cross"
    return "decoder" if any(part.startswith("decoder") for part in path.split("/")) else "encoder"


def _natural(path: str) -> list[Any]:
    return [(part.isdigit(), part.zfill(9)) for part in re.split(r"(\d+)", path)]


def _layers_first(x: Array) -> Array:
    """`[B, M, n, 1, H, T, S]` to `[n, B, M, H, T, S]`."""
    return jnp.moveaxis(x[:, :, :, 0], 2, 0)
