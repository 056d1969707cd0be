"""Unified-IO's decoder over [text ; image codes] (section 3.2).

Axis letters: B batch, T text tokens, C codes, L tokens (T + C), S encoder tokens, D model width.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import DecoderStack, Dropout, Execution, Norm, PositionEmbedding
from jaxformers.models.unified_io.config import UnifiedIOConfig
from jaxformers.models.unified_io.encoder import IMAGE, TEXT
from jaxformers.models.unified_io.masks import pairwise_mask
from jaxformers.models.unified_io.position_bias import AbsoluteBias, RelativeBias
from jaxformers.sharding import constrain

GRID_COLUMNS = 16  # of the codes, whatever their number


class UnifiedIODecoder(nn.Module):
    """Causal blocks over text tokens and then image codes, attending to the encoder's states."""

    config: UnifiedIOConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        rows = c.decoder_text_length + c.decoder_image_length
        self.position_embedding = PositionEmbedding(rows, c.width, 1.0)
        self.type_embedding = PositionEmbedding(c.segments, c.width, 1.0)
        self.input_norm, self.position_norm = (Norm("rms", c.norm_epsilon) for _ in range(2))
        self.self_position_bias = AbsoluteBias(c, execution)
        # Published and without effect: the authors' cross-attention drops its bias.
        self.cross_position_bias = AbsoluteBias(c, execution)
        self.relative_bias = RelativeBias(c.heads, False)
        self.stack = DecoderStack(c.block, c.decoder_layers, True, execution)
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        num_text: int,
        memory: Float[Array, "B S D"],
        mask: Array | None,
        memory_mask: Array | None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """States of all tokens.

        Args:
            tokens: embedded inputs, text first.
            num_text: T.
            memory: the encoder's states.
            mask: `[B, L]`, 1 for tokens to attend to; None: all.
            memory_mask: `[B, S]`, the same for the memory.
            train: dropout on.
        """
        num_codes = tokens.shape[1] - num_text
        x = self.drop(self.inputs(tokens, self.rows(num_text, num_codes)), train=train)
        bias = self.bias(num_text, num_codes)
        if self.is_initializing():
            rows = self.position_norm(self.rows(num_text, num_codes)[0])
            self.cross_position_bias(rows, rows)
        causal = pairwise_mask(mask, mask, causal=True)
        return self.stack(x, memory, causal, pairwise_mask(mask, memory_mask), bias, train=train)

    def inputs(
        self, tokens: Float[Array, "B L D"], rows: tuple[Array, Array]
    ) -> Float[Array, "B L D"]:
        """The input of the first block: embedded tokens with their positions and segments."""
        positions, segments = rows
        return self.input_norm(tokens + positions + segments)

    def rows(self, num_text: int, num_codes: int) -> tuple[Array, Array]:
        """Position and segment embeddings `[1, L, D]` of each token."""
        c, dtype = self.config, self.execution.compute_dtype
        table = self.position_embedding.rows(c.decoder_text_length + c.decoder_image_length)
        codes = table[:, c.decoder_text_length :][:, :num_codes]
        positions = jnp.concatenate([table[:, :num_text], codes], axis=1)
        text, image = (self.type_embedding.rows(2)[:, i, None] for i in (TEXT, IMAGE))
        segments = [jnp.repeat(text, num_text, axis=1), jnp.repeat(image, num_codes, axis=1)]
        return positions.astype(dtype), jnp.concatenate(segments, axis=1).astype(dtype)

    def bias(self, num_text: int, num_codes: int) -> Float[Array, "1 H L L"]:
        """Bias of self-attention: of absolute and of relative positions."""
        rows = self.position_norm(self.rows(num_text, num_codes)[0])
        bias = self.self_position_bias(rows, rows)
        text, codes = np.arange(num_text)[None], np.arange(num_codes)[None]
        bias = bias + self.relative_bias(text, codes, GRID_COLUMNS, bias.dtype)
        return constrain(bias, None, "heads", "length", "length")
