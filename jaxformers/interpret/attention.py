"""Attention probabilities of any model, their gradients and their relevance for a score.

They are read through the collections `probs` and `perturb` of `layers.attention`; no second model
is needed. Three views of each probability: its value, the gradient of a score with respect to it,
and the relevance that it passed on to that score (`jaxpr_interpreter`, `lrp_rules`).

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
    """One array for each kind of attention in a model, layers first; None where it has none."""

    encoder: Any = None
    """An encoder's to itself, `[n, B, H, T, T]`; for each score, `[n, B, M, H, T, T]`."""
    decoder: Any = None
    """The decoder's to itself."""
    cross: Any = None
    """`[..., T, S]`: the decoder's to the encoder's output."""


class Explained(NamedTuple):
    """Scores of a model's output, with the attention behind them."""

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
    rows = jnp.take_along_axis(logits, positions[:, :, None], axis=1)  # [B, M, V]
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
    return _by_kind(state.get("probs", {}))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _explained(model, select, relevance, variables, inputs, targets) -> Explained:
    def explain_example(inputs, targets):
        inputs, targets = jax.tree.map(lambda x: x[None], (inputs, targets))
        return _explained_one(model, select, relevance, variables, inputs, targets)

    # One example at a time under vmap: the LRP rules sum over whole arrays, batch included.
    explained = jax.vmap(explain_example)(inputs, targets)
    return explained._replace(
        probabilities=jax.tree.map(lambda x: x[:, :, 0].swapaxes(0, 1), explained.probabilities),
        gradients=jax.tree.map(_layers_first, explained.gradients),
        relevance=jax.tree.map(_layers_first, explained.relevance),
    )


def _explained_one(model, select, relevance, variables, inputs, targets) -> Explained:
    """One example, with a batch axis of 1: the rules' sums are then its own."""

    def scores(inputs, weights):
        variables, targets = weights
        arrays, named = inputs
        output, state = model.apply(variables, *arrays, mutable=["probs"], **named)
        return select(output, targets)[0], state.get("probs", {})

    def perturbed_scores(perturb):
        return scores(inputs, ({**variables, "perturb": perturb}, targets))

    like = jax.eval_shape(scores, inputs, (variables, targets))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    # `perturb` is added to the probabilities, so its gradient at zero is theirs.
    values, pullback, state = jax.vjp(perturbed_scores, zeros, has_aux=True)
    one_hot = jnp.eye(values.shape[0], dtype=values.dtype)  # [M, M], a row for each score
    (gradients,) = jax.vmap(pullback)(one_hot)
    maps = None
    if relevance:
        tape, (number, numbers) = trace(scores, inputs, (variables, targets))

        def propagate(score_relevance):
            relevances = tape.relevance([(number, score_relevance)])
            zeros = jnp.zeros_like
            return jax.tree.map(lambda i: relevances.get(i, zeros(tape.values[i].array)), numbers)

        maps = _by_kind(jax.vmap(propagate)(one_hot), lead=1)
    return Explained(values, _by_kind(state), _by_kind(gradients, lead=1), maps)


def _by_kind(collection: Any, lead: int = 0) -> Attention:
    """Groups a `probs` collection by kind of attention; `lead` axes come before the layers."""
    leaves = flatten_dict(collection, sep="/")
    groups: dict[str, list[Array]] = {}
    for path in sorted(leaves, key=_natural_order):
        leaf = leaves[path]
        # One layer outside a stack has no axis of layers.
        leaf = jnp.expand_dims(leaf, lead) if leaf.ndim == lead + 4 else leaf
        groups.setdefault(_attention_kind(path), []).append(leaf)
    if not groups:
        raise DataError("the model gave no attention probabilities: it has no attention to look at")
    return Attention(**{kind: jnp.concatenate(maps, lead) for kind, maps in groups.items()})


def _attention_kind(path: str) -> str:
    if "cross_attention" in path:
        return "cross"
    return "decoder" if any(name.startswith("decoder") for name in path.split("/")) else "encoder"


def _natural_order(path: str) -> list[Any]:
    return [(token.isdigit(), token.zfill(9)) for token in re.split(r"(\d+)", path)]


def _layers_first(x: Array) -> Array:
    """`[B, M, n, 1, H, T, S]` to `[n, B, M, H, T, S]`."""
    return jnp.moveaxis(x[:, :, :, 0], 2, 0)
