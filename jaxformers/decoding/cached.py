"""The translation Transformer's decoder, one token at a time over a key-value cache.

The beams of a sentence take the place of a sequence's positions in training: one query each. The
cache of a block holds the keys and values that every beam computed at every step, `[B, H, L x
beams, K]` each; step t writes its slots t x beams to (t + 1) x beams - 1 and no other. When beams
are reordered, no key or value moves: a small table of ancestors `[B, beams, L]` says which of the
slots of each step a beam descends from, and becomes the attention mask.

Axis letters: B batch, S source, L steps, H heads, K width of a head, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding.protocol import Vocabulary
from jaxformers.layers import DecoderBlock, Mask, Norm
from jaxformers.layers.blocks import KeysValues
from jaxformers.models import Transformer
from jaxformers.sharding import constrain


@flax.struct.dataclass
class Memory:
    """What stays the same at every step of decoding one batch."""

    params: dict[str, Any]
    """Parameters outside the decoder's blocks."""
    blocks: tuple[dict[str, Any], ...]
    """The parameters of each decoder block."""
    source: tuple[KeysValues, ...]
    """For each block, keys and values `[B, H, S, K]` of the encoder's output."""
    source_mask: Bool[Array, "B S"]


@flax.struct.dataclass
class Cache:
    """Keys and values of earlier steps, and which of them each beam descends from."""

    blocks: tuple[KeysValues, ...]
    """For each block, keys and values `[B, H, L x beams, K]`; those to come are zeros."""
    ancestors: Int[Array, "B beams L"]
    """The beam that wrote each beam's token at each step."""


@dataclass(frozen=True)
class CachedTransformer:
    """A `StepDecoder` of a translation Transformer; its inputs are source ids and their mask."""

    model: Transformer

    @property
    def vocabulary(self) -> Vocabulary:
        """Size and special tokens, from the model's configuration."""
        c = self.model.config
        return Vocabulary(
            c.vocab_size, c.start_id, c.eos_id, c.pad_id, c.forced_eos_id, c.banned_ids
        )

    def encode(
        self, variables: dict[str, Any], inputs: tuple[Int[Array, "B S"], Bool[Array, "B S"]]
    ) -> Memory:
        """Runs the encoder, and computes the keys and values of its output for each block."""
        source_ids, source_mask = inputs
        params = variables["params"]
        encoded = self.model.apply({"params": params}, source_ids, source_mask, method="encode")
        # Factors of products are cast to the compute type here, once, and not again at each step.
        compute_dtype = self.model.execution.compute_dtype
        params = jax.tree_util.tree_map_with_path(
            lambda path, p: p.astype(compute_dtype) if path[-1].key in ("kernel", "table") else p,
            params,
        )
        # The stack holds its blocks' parameters stacked, [layers, ...]; a step runs them unrolled.
        stacked = params["decoder"]["blocks"]
        layers = range(self.model.config.decoder_layers)
        blocks = tuple(jax.tree.map(lambda p, i=i: p[i], stacked) for i in layers)
        source = tuple(
            self._block.apply(
                {"params": p}, encoded, method=lambda block, x: block.cross_attention.keys_values(x)
            )
            for p in blocks
        )
        return Memory(params, blocks, source, source_mask)

    def init_cache(self, batch: int, beams: int, length: int) -> Cache:
        """Zeros, `[B, H, length x beams, K]` twice for each block."""
        c = self.model.config.decoder_block
        shape = (batch, c.heads, length * beams, c.width_of_head)
        zeros = jnp.zeros(shape, self.model.execution.compute_dtype)
        zeros = constrain(zeros, "batch", "heads", "length", "head_width")
        ancestors = jnp.broadcast_to(jnp.arange(beams)[None, :, None], (batch, beams, length))
        return Cache(((zeros, zeros),) * self.model.config.decoder_layers, ancestors)

    def step(
        self, memory: Memory, cache: Cache, tokens: Int[Array, "B beams"], time: Int[Array, ""]
    ) -> tuple[Float[Array, "B beams V"], Cache]:
        """Runs the decoder over each beam's newest token; see `StepDecoder.step`."""
        variables, c = {"params": memory.params}, self.model.config
        batch, beams = tokens.shape
        # `embed` adds positions along axis 1, where beams would be: a row of one token each.
        rows = tokens.reshape(-1, 1)  # [B x beams, 1]
        x = self.model.apply(variables, rows, jnp.broadcast_to(time, rows.shape), method="embed")
        x = x.reshape(batch, beams, -1)  # [B, beams, D]

        # A beam's newest token is its own; earlier ones are as `reorder` left them.
        ancestors = cache.ancestors.at[:, :, time].set(jnp.arange(beams)[None])
        mask = Mask(dense=visible_slots(ancestors, time)[:, None])  # [B, 1, beams, L x beams]
        cross_mask = Mask(keys=memory.source_mask)
        slot = time * beams  # where this step's keys and values are written
        blocks = []
        for params, past, source in zip(memory.blocks, cache.blocks, memory.source, strict=True):
            x, past = self._block.apply(
                {"params": params}, x, past, source, slot, mask, cross_mask, method="step"
            )
            blocks.append(past)
        if c.norm_position == "pre":
            # The norm after a stack of pre-norm blocks belongs to the stack, which is not run here.
            norm = Norm(c.decoder_block.norm, c.norm_epsilon)
            x = norm.apply({"params": memory.params["decoder"]["norm"]}, x)
        logits = self.model.apply(variables, x, method="logits")  # [B, beams, V]
        return logits, Cache(tuple(blocks), ancestors)

    def reorder(self, cache: Cache, parents: Int[Array, "B beams"]) -> Cache:
        """Gathers the rows of ancestors; keys and values stay where they are."""
        ancestors = jnp.take_along_axis(cache.ancestors, parents[..., None], axis=1)
        return cache.replace(ancestors=ancestors)

    @property
    def _block(self) -> DecoderBlock:
        return DecoderBlock(self.model.config.decoder_block, self.model.execution)


def visible_slots(
    ancestors: Int[Array, "B beams L"], time: Int[Array, ""]
) -> Bool[Array, "B beams slots"]:
    """Which of the cache's L x beams slots each beam descends from, step `time` included."""
    batch, beams, length = ancestors.shape
    descends = (
        ancestors[..., None] == jnp.arange(beams)[None, None, None, :]
    )  # [B, beams, L, beams]
    not_later = (jnp.arange(length) <= time)[None, None, :, None]
    return (descends & not_later).reshape(batch, beams, length * beams)
