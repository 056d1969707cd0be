"""CLIP's text tower: a causal Transformer, pooled at the end of the text (section 2.4).

Axis letters: B batch, L tokens, D model width, E embedding.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.layers import (
    EncoderStack,
    Execution,
    Linear,
    Mask,
    PositionEmbedding,
    TokenEmbedding,
)
from jaxformers.models.clip.config import CLIPTextConfig
from jaxformers.models.clip.outputs import CLIPTextOutput
from jaxformers.sharding import constrain


class CLIPTextTower(nn.Module):
    """The text tower: `model.apply(variables, input_ids).text_embeds`."""

    config: CLIPTextConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        openai = c.init == "openai"
        # Untied: the text tower predicts nothing, so the table has no transposed use.
        self.token_embedding = TokenEmbedding(
            c.vocab_size, c.width, 0.02 if openai else c.width**-0.5, execution=self.execution
        )
        position_std = 0.01 if openai else c.width**-0.5
        self.position_embedding = PositionEmbedding(c.context_length, c.width, position_std)
        self.encoder = EncoderStack(c.block, c.layers, True, self.execution)
        if c.projection:
            init = c.width**-0.5 if openai else "xavier"
            self.projection = Linear(
                (c.width,), (c.projection,), c.projection_bias, init, gathered=True
            )

    def __call__(self, input_ids: Int[Array, "B L"], *, train: bool = False) -> CLIPTextOutput:
        """Embeds texts.

        Args:
            input_ids: up to `context_length` tokens. A causal tower needs no mask: padding after
                the end of the text never reaches it, whatever its id. SigLIP's takes texts padded
                to the full length.
            train: has no effect, as there is no dropout.

        Raises:
            DataError: texts longer than `context_length`, or of another rank.
        """
        return CLIPTextOutput(self.encode(input_ids, train=train))

    def encode(self, input_ids: Int[Array, "B L"], *, train: bool = False) -> Float[Array, "B E"]:
        """Projected encodings of the texts, not normalised, in float32."""
        x = self.features(input_ids, train=train)  # [B, L, D]
        # One token of each text: a gather of B rows, local to the device that holds a text.
        positions = self.pooled_positions(input_ids)[:, None, None]  # [B, 1, 1]
        tokens = jnp.take_along_axis(x, positions, axis=1)[:, 0]  # [B, D]
        pooled = constrain(tokens.astype(jnp.float32), "batch", "embed")
        return self.projection(pooled) if self.config.projection else pooled

    def features(
        self, input_ids: Int[Array, "B L"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Encoder output of all tokens, after the final norm."""
        c = self.config
        if input_ids.ndim != 2 or input_ids.shape[1] > c.context_length:
            raise DataError(
                f"input_ids of shape {tuple(input_ids.shape)}: the model takes [batch, up to "
                f"{c.context_length} tokens]"
            )
        if c.pooling == "last" and input_ids.shape[1] != c.context_length:
            raise DataError(
                f"texts of {input_ids.shape[1]} tokens: this model pools the last position, so "
                f"pad them to {c.context_length}"
            )
        x = self.token_embedding.embed(input_ids)
        x = x + self.position_embedding.rows(input_ids.shape[1]).astype(x.dtype)
        return self.encoder(x, Mask(causal=True) if c.causal else None, train=train)

    def pooled_positions(self, input_ids: Int[Array, "B L"]) -> Int[Array, "B"]:
        """Position of the token whose encoding represents each text."""
        c = self.config
        if c.pooling == "last":
            return jnp.full(input_ids.shape[0], input_ids.shape[1] - 1)
        # argmax gives the first of equal values: padding with the end-of-text id changes nothing.
        return jnp.argmax(input_ids == c.eos_id if c.pooling == "eos" else input_ids, axis=1)
