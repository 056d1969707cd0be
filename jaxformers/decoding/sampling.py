"""Sampling from any `StepDecoder`, as one compiled loop.

At each step the next token is drawn from the nucleus (Holtzman et al. 2020): the fewest most
probable tokens whose probabilities sum to `top_p` or more. The nucleus is that of the model's own
probabilities; the temperature changes the odds within it, as in T5X and Unified-IO's released code.
With classifier-free guidance (Ho and Salimans 2022) the logits are u + s (c - u), from those given
the inputs, c, and those given other inputs, u, such as an empty prompt.

Axis letters: B batch, L generated length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding.protocol import StepDecoder, first_cache, padded_batch
from jaxformers.decoding.search import Decoded, Sizes
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeFloat, PositiveFraction
from jaxformers.sharding import constrain


@dataclass(frozen=True)
class Sampling(CheckedFields):
    """How the next token is drawn."""

    temperature: NonNegativeFloat = 1.0
    """Divides the logits; 0 takes the most probable token."""
    top_p: PositiveFraction = 1.0
    """Probability of the nucleus; 1: all tokens."""
    guidance: NonNegativeFloat | None = None
    """s of classifier-free guidance, for weights that were trained for it; None: none."""


def sample(
    decoder: StepDecoder,
    variables: Any,
    inputs: Any,
    max_tokens: int,
    key: Array,
    sampling: Sampling = Sampling(),
    unconditional: Any = None,
) -> Decoded:
    """Draws a sequence for each example.

    Args:
        decoder: the model, hashable; see `StepDecoder`.
        variables: its variables.
        inputs: what its `encode` takes: any pytree of arrays, batch first.
        max_tokens: L, the most tokens generated, the end of sequence counted.
        key: a key of `jax.random`. What an example draws depends on it and on the example's place
            in the batch alone.
        sampling: temperature, nucleus and guidance.
        unconditional: inputs of the same shapes for guidance.

    Returns `ids [B, L]`, and `scores [B]`, the sums of the tokens' log-probabilities in the model's
    own distribution over its whole vocabulary (with guidance, in the guided one).

    Temperature, `top_p` and guidance of another size compile nothing anew.

    Raises:
        ConfigError: guidance without `unconditional` inputs or the reverse, or no tokens.
    """
    if (sampling.guidance is None) != (unconditional is None):
        raise ConfigError(
            f"guidance={sampling.guidance} takes unconditional inputs, and they a guidance: "
            "give both or neither"
        )
    if max_tokens < 1:
        raise ConfigError(f"sampling with max_tokens={max_tokens}; it takes 1 or more")
    rows = jax.tree.leaves(inputs)[0].shape[0]
    inputs, unconditional = padded_batch((inputs, unconditional))
    numbers = (sampling.temperature, sampling.top_p, sampling.guidance or 0.0)
    return _sample(
        decoder,
        variables,
        inputs,
        unconditional,
        key,
        tuple(map(np.float32, numbers)),
        sizes=Sizes(rows, 1, 1, max_tokens),
    )


@flax.struct.dataclass
class State:
    """The samples after `time` tokens."""

    time: Int[Array, ""]
    tokens: Int[Array, " B"]
    ids: Int[Array, "B L"]
    scores: Float[Array, " B"]
    done: Bool[Array, " B"]
    cache: Any


@partial(jax.jit, static_argnames=("decoder", "sizes"))
def _sample(decoder, variables, inputs, unconditional, key, numbers, sizes: Sizes) -> Decoded:
    temperature, top_p, guidance = numbers
    batch, length = jax.tree.leaves(inputs)[0].shape[0], sizes.length
    guided = unconditional is not None
    if guided:
        inputs = jax.tree.map(lambda *x: jnp.concatenate(x), inputs, unconditional)
    vocabulary = decoder.vocabulary
    memory = decoder.encode(variables, inputs)
    copies = 2 if guided else 1  # rows of the conditional half, then those of the other
    row_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(batch))

    def grow(state: State) -> State:
        tokens = jnp.tile(state.tokens, copies)[:, None]
        logits, cache = decoder.step(memory, state.cache, tokens, state.time)
        logits = logits[:, 0]  # [copies x B, V]
        if guided:
            conditional, other = jnp.split(logits, 2)
            logits = other + guidance * (conditional - other)
        ban = np.zeros(logits.shape[-1], np.float32)
        ban[list(vocabulary.banned_ids)] = ban[vocabulary.size :] = -np.inf
        log_probs = jax.nn.log_softmax(logits + ban[None], axis=-1)
        step_keys = jax.vmap(lambda k: jax.random.fold_in(k, state.time))(row_keys)
        drawn = draw(step_keys, log_probs, temperature, top_p)
        tokens = jnp.where(state.done, vocabulary.pad_id, drawn)
        gain = jnp.take_along_axis(log_probs, drawn[:, None], axis=1)[:, 0]
        return State(
            state.time + 1,
            tokens,
            state.ids.at[:, state.time].set(tokens),
            state.scores + jnp.where(state.done, 0.0, gain),
            state.done | (drawn == vocabulary.eos_id),
            cache,
        )

    start = State(
        jnp.int32(0),
        jnp.full(batch, vocabulary.start_id, jnp.int32),
        jnp.full((batch, length), vocabulary.pad_id, jnp.int32),
        jnp.zeros(batch),
        jnp.zeros(batch, bool),
        first_cache(decoder, memory, copies * batch, 1, length),
    )
    end = jax.lax.while_loop(lambda s: (s.time < length) & ~s.done.all(), grow, start)
    # Replicated on every device, so that each host of a pod can read all rows.
    return Decoded(*(constrain(x, *(None,) * x.ndim)[: sizes.rows] for x in (end.ids, end.scores)))


def draw(
    keys: Array, logits: Float[Array, "B V"], temperature: Array, top_p: Array
) -> Int[Array, " B"]:
    """One token of each row's nucleus, with a key of its own for each row."""
    nucleus = jnp.where(in_nucleus(logits, top_p), logits, -jnp.inf)
    scaled = nucleus / jnp.maximum(temperature, 1e-6)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(temperature > 0, drawn, logits.argmax(-1)).astype(jnp.int32)


def in_nucleus(logits: Float[Array, "B V"], top_p: Array) -> Bool[Array, "B V"]:
    """Which tokens are among the fewest whose probabilities sum to `top_p`; ties with the last are.

    The most probable token always is.
    """
    descending = jnp.sort(logits, axis=-1)[:, ::-1]
    cumulative = jnp.cumsum(jax.nn.softmax(descending, axis=-1), axis=-1)
    # Rounding may leave the sum of all below 1: the last token is then the cut.
    last = jnp.minimum((cumulative < top_p).sum(-1, keepdims=True), logits.shape[-1] - 1)
    return logits >= jnp.take_along_axis(descending, last, axis=-1)
