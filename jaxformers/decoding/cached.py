"""The decoder a token at a time, over a cache of the keys and values of earlier tokens.

The beams of a sentence lie side by side where a sequence's places lie in training: one query each.
The cache holds what every beam computed at every place, `[B, H, places x beams, K]`, and is only
ever written at the newest place. When beams are chosen anew nothing in it moves: a small table of
ancestors says which slot of each place a beam descends from, and becomes the attention mask.

Axis letters: B batch, S source, H heads, K width of a head, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.layers import DecoderBlock, Mask, Norm
from jaxformers.layers.blocks import KeysValues
from jaxformers.models import Transformer
from jaxformers.sharding import constrain


@flax.struct.dataclass
class Prepared:
    """What stays the same at every step of decoding one batch."""

    params: dict[str, Any]
    """Parameters outside the decoder's blocks."""
    blocks: tuple[dict[str, Any], ...]
    """The parameters of each decoder block."""
    memory: tuple[KeysValues, ...]
    """For each block, keys and values `[B, H, S, K]` of the encoder's output."""
    source_mask: Bool[Array, "B S"]


def prepare(
    model: Transformer,
    params: dict[str, Any],
    source_ids: Int[Array, "B S"],
    source_mask: Bool[Array, "B S"],
) -> Prepared:
    """Runs the encoder and everything else that the steps share."""
    encoded = model.apply({"params": params}, source_ids, source_mask, method="encode")
    params = jax.tree_util.tree_map_with_path(
        lambda path, p: p.astype(model.execution.compute_dtype) if _is_factor(path) else p, params
    )
    stacked = params["decoder"]["blocks"]
    blocks = tuple(
        jax.tree.map(lambda p, i=i: p[i], stacked) for i in range(model.config.decoder_layers)
    )
    block = _block(model)
    memory = tuple(
        block.apply({"params": p}, encoded, method=lambda b, x: b.cross_attention.keys_values(x))
        for p in blocks
    )
    return Prepared(params, blocks, memory, source_mask)


def _is_factor(path) -> bool:
    """Whether a parameter is one factor of a product, so that it may be cast once, before."""
    return path[-1].key in ("kernel", "table")


def _block(model: Transformer) -> DecoderBlock:
    return DecoderBlock(model.config.decoder_block, model.execution)


def empty_cache(model: Transformer, batch: int, slots: int) -> tuple[KeysValues, ...]:
    """A cache of zeros for each block, `[B, H, slots, K]` twice."""
    c = model.config.decoder_block
    shape = (batch, c.heads, slots, c.width_of_head)
    zeros = jnp.zeros(shape, model.execution.compute_dtype)
    zeros = constrain(zeros, "batch", "heads", "length", "head_width")
    return ((zeros, zeros),) * model.config.decoder_layers


def step(
    model: Transformer,
    prepared: Prepared,
    cache: tuple[KeysValues, ...],
    tokens: Int[Array, "B beams"],
    ancestors: Int[Array, "B beams places"],
    time: Int[Array, ""],
) -> tuple[Float[Array, "B beams V"], tuple[KeysValues, ...]]:
    """Logits of the token after each beam's newest, and the cache with that one in it.

    Args:
        tokens: the newest token of each beam.
        ancestors: the beam that each beam's token at each place was written by; the newest
            place's are the beams themselves.
        time: the newest place.
    """
    variables, c = {"params": prepared.params}, model.config
    alone = tokens.reshape(-1, 1)
    x = model.apply(variables, alone, jnp.broadcast_to(time, alone.shape), method="embed")
    x = x.reshape(*tokens.shape, -1)
    mask = Mask(dense=visible_slots(ancestors, time)[:, None])
    cross_mask = Mask(keys=prepared.source_mask)
    block, written = _block(model), []
    for params, past, memory in zip(prepared.blocks, cache, prepared.memory, strict=True):
        x, past = block.apply(
            {"params": params}, x, past, memory, time * tokens.shape[1], mask, cross_mask,
            method="step",
        )  # fmt: skip
        written.append(past)
    if c.norm_position == "pre":
        norm = Norm(c.decoder_block.norm, c.norm_epsilon)
        x = norm.apply({"params": prepared.params["decoder"]["norm"]}, x)
    return model.apply(variables, x, method="logits"), tuple(written)


def visible_slots(
    ancestors: Int[Array, "B beams places"], time: Int[Array, ""]
) -> Bool[Array, "B beams slots"]:
    """Which slots of the cache, `places x beams` of them, each beam descends from."""
    batch, beams, places = ancestors.shape
    own = ancestors[..., None] == jnp.arange(beams)[None, None, None, :]
    past = (jnp.arange(places) <= time)[None, None, :, None]
    return (own & past).reshape(batch, beams, places * beams)
