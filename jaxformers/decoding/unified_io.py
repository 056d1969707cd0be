"""Unified-IO's decoder, one token at a time over a key-value cache: text, or codes after a text.

As in `cached`, the beams of an example are queries side by side, and a table of ancestors says
which slots of the cache a beam descends from. Slots of the text that precedes codes come first; all
beams share them. The bias of absolute and of relative positions is computed once for all positions;
a step takes its row.

Axis letters: B batch, T text tokens, L slots or positions, H heads, K width of a head, D model
width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding.cached import visible_slots
from jaxformers.decoding.protocol import Vocabulary
from jaxformers.layers import DecoderBlock, Mask, Norm
from jaxformers.layers.blocks import KeysValues
from jaxformers.models.unified_io import UnifiedIO
from jaxformers.sharding import constrain

PAD_ID, EOS_ID, NO_ID = 0, 1, -2
FIRST_CODE = -1
"""Codes are counted without their offset V, so that the image's start token V - 1 is -1."""


@flax.struct.dataclass
class Memory:
    """What stays the same at every step of decoding one batch."""

    params: dict[str, Any]
    blocks: tuple[dict[str, Any], ...]
    """The parameters of each decoder block."""
    source: tuple[KeysValues, ...]
    """For each block, keys and values `[B, H, S, K]` of the encoder's states."""
    source_mask: Any
    """`[B, S]`; None: all are valid."""
    rows: tuple[Array, Array]
    """Position and segment embeddings `[1, L, D]`, text first."""
    bias: Float[Array, "1 H L L"]
    text_ids: Int[Array, "B T"]
    """Decoder inputs before the codes; T is 0 where text is generated."""
    text_mask: Bool[Array, "B T"]


@flax.struct.dataclass
class Cache:
    """Keys and values of earlier tokens, and which of them each beam descends from."""

    blocks: tuple[KeysValues, ...]
    """For each block, keys and values `[B, H, T + L x beams, K]`."""
    ancestors: Int[Array, "B beams L"]
    """The beam that wrote each beam's token at each step."""


@dataclass(frozen=True)
class CachedUnifiedIO:
    """A `PrefixDecoder` of Unified-IO.

    Its inputs are a mapping with the arguments of `UnifiedIO.encode`, and for codes `target_ids`
    and `target_mask`, the text before them as `UnifiedIO.decode` takes it.
    """

    model: UnifiedIO
    text_length: int
    """T of the text before the codes; the most tokens of a text that is generated."""
    code_length: int = 0
    """Number of codes to generate; 0: text is generated."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Text with its end token, or codes, which have none."""
        c = self.model.config
        if self.code_length:
            return Vocabulary(c.image_vocab_size, FIRST_CODE, NO_ID, 0)
        return Vocabulary(c.vocab_size, PAD_ID, EOS_ID, PAD_ID)

    @property
    def prefix(self) -> int:
        """Slots of the text before the codes."""
        return self.text_length if self.code_length else 0

    def encode(self, variables: Mapping[str, Any], inputs: Mapping[str, Any]) -> Memory:
        """Runs the encoder, and computes what no step changes."""
        model, params = self.model, variables["params"]
        inputs = dict(inputs)
        text_ids, text_mask = inputs.pop("target_ids", None), inputs.pop("target_mask", None)
        states, source_mask = model.apply({"params": params}, **inputs, method="encode_masked")
        if text_ids is None:
            text_ids = jnp.zeros((states.shape[0], 0), jnp.int32)
        if text_mask is None:
            text_mask = jnp.ones(text_ids.shape, bool)
        lengths = (self.text_length, self.code_length)
        rows, bias = (
            model.apply({"params": params}, *lengths, method=method)
            for method in (_decoder_rows, _decoder_bias)
        )
        # Factors of products are cast to the compute type here, once, and not again at each step.
        dtype = model.execution.compute_dtype
        params = jax.tree_util.tree_map_with_path(
            lambda path, p: p.astype(dtype) if path[-1].key in ("kernel", "table") else p, params
        )
        stacked = params["decoder"]["stack"]["blocks"]
        layers = range(model.config.decoder_layers)
        blocks = tuple(jax.tree.map(lambda p, i=i: p[i], stacked) for i in layers)
        source = tuple(
            self._block.apply(
                {"params": p}, states, method=lambda block, x: block.cross_attention.keys_values(x)
            )
            for p in blocks
        )
        mask = text_mask.astype(bool)
        return Memory(params, blocks, source, source_mask, rows, bias, text_ids, mask)

    def init_cache(self, batch: int, beams: int, length: int) -> Cache:
        """Zeros, `[B, H, T + length x beams, K]` twice for each block."""
        c = self.model.config
        shape = (batch, c.heads, self.prefix + length * beams, c.head_width)
        zeros = jnp.zeros(shape, self.model.execution.compute_dtype)
        zeros = constrain(zeros, "batch", "heads", "length", "head_width")
        ancestors = jnp.broadcast_to(jnp.arange(beams)[None, :, None], (batch, beams, length))
        return Cache(((zeros, zeros),) * c.decoder_layers, ancestors)

    def prefill(self, memory: Memory, cache: Cache) -> Cache:
        """The cache with the text before the codes in its first slots."""
        length = self.prefix
        if not length:
            return cache
        slots = cache.blocks[0][0].shape[2]
        causal = jnp.tril(jnp.ones((length, length), bool))[None]
        visible = causal & memory.text_mask[:, None, :]  # [B, T, T]
        visible = jnp.pad(visible, ((0, 0), (0, 0), (0, slots - length)))
        bias = jnp.pad(
            memory.bias[:, :, :length, :length], ((0, 0), (0, 0), (0, 0), (0, slots - length))
        )
        rows = tuple(row[:, :length] for row in memory.rows)
        x = self._apply(memory, memory.text_ids, rows, method=_decoder_inputs)
        return self._run(memory, cache, x, jnp.int32(0), visible, bias)[1]

    def step(
        self, memory: Memory, cache: Cache, tokens: Int[Array, "B beams"], time: Int[Array, ""]
    ) -> tuple[Float[Array, "B beams V"], Cache]:
        """Runs the decoder over each beam's newest token; see `StepDecoder.step`."""
        (batch, beams), prefix = tokens.shape, self.prefix
        position = prefix + time
        ids = tokens + self.model.config.vocab_size if self.code_length else tokens
        rows = tuple(jax.lax.dynamic_slice_in_dim(r, position, 1, axis=1) for r in memory.rows)
        x = self._apply(memory, ids, rows, method=_decoder_inputs)  # [B, beams, D]

        ancestors = cache.ancestors.at[:, :, time].set(jnp.arange(beams)[None])
        text_mask = jnp.broadcast_to(memory.text_mask[:, None], (batch, beams, prefix))
        visible = jnp.concatenate([text_mask, visible_slots(ancestors, time)], axis=2)
        bias = jax.lax.dynamic_slice_in_dim(memory.bias, position, 1, axis=2)  # [1, H, 1, L]
        last = prefix + ancestors.shape[2]
        # Every slot of a step has its position.
        by_slot = jnp.repeat(bias[..., prefix:last], beams, axis=3)
        bias = jnp.concatenate([bias[..., :prefix], by_slot], axis=3)
        slot = prefix + time * beams
        x, cache = self._run(memory, cache, x, slot, visible, bias)
        c = self.model.config
        norm = Norm("rms", c.norm_epsilon)  # the stack's, which is not run as a stack here
        x = norm.apply({"params": memory.params["decoder"]["stack"]["norm"]}, x)
        logits = self._apply(memory, x, method=_code_logits if self.code_length else _text_logits)
        return logits, cache.replace(ancestors=ancestors)

    def reorder(self, cache: Cache, parents: Int[Array, "B beams"]) -> Cache:
        """Gathers the rows of ancestors; keys and values stay where they are."""
        ancestors = jnp.take_along_axis(cache.ancestors, parents[..., None], axis=1)
        return cache.replace(ancestors=ancestors)

    def _run(
        self, memory: Memory, cache: Cache, x: Array, slot: Array, visible: Array, bias: Array
    ) -> tuple[Array, Cache]:
        """All blocks over new tokens, whose keys and values are written from `slot` on."""
        mask, cross_mask = Mask(dense=visible[:, None]), Mask(keys=memory.source_mask)
        blocks = []
        for params, past, source in zip(memory.blocks, cache.blocks, memory.source, strict=True):
            x, past = self._block.apply(
                {"params": params}, x, past, source, slot, mask, cross_mask, bias, method="step"
            )
            blocks.append(past)
        return x, cache.replace(blocks=tuple(blocks))

    def _apply(self, memory: Memory, *args, method) -> Array:
        return self.model.apply({"params": memory.params}, *args, method=method)

    @property
    def _block(self) -> DecoderBlock:
        return DecoderBlock(self.model.config.block, self.model.execution)


def _decoder_rows(model: UnifiedIO, num_text: int, num_codes: int) -> tuple[Array, Array]:
    return model.decoder.rows(num_text, num_codes)


def _decoder_bias(model: UnifiedIO, num_text: int, num_codes: int) -> Array:
    return model.decoder.bias(num_text, num_codes)


def _decoder_inputs(model: UnifiedIO, ids: Array, rows: tuple[Array, Array]) -> Array:
    return model.decoder.inputs(model.tokens(ids), rows)


def _text_logits(model: UnifiedIO, x: Array) -> Array:
    return model.tokens.text_logits(x)


def _code_logits(model: UnifiedIO, x: Array) -> Array:
    return model.tokens.code_logits(x)
