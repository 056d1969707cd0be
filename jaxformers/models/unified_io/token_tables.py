"""Embeddings and logits of text tokens and image codes, which share one range of ids.

Axis letters: B batch, L tokens, D model width, V text vocabulary, K image codes.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.layers import Execution, TokenEmbedding
from jaxformers.models.unified_io.config import UnifiedIOConfig


class TokenTables(nn.Module):
    """The table of text `[V, D]` and that of codes `[K, D]`; ids from V on are codes.

    They are published as one table. Apart, each divides over a mesh, and logits of text are not
    computed where a code must come, nor the reverse.
    """

    config: UnifiedIOConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.text_embedding = TokenEmbedding(c.vocab_size, c.width, 1.0, execution=self.execution)
        self.code_embedding = TokenEmbedding(
            c.image_vocab_size, c.width, 1.0, execution=self.execution
        )

    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Embeds text ids below V and codes from V on."""
        v = self.config.vocab_size
        text = self.text_embedding.embed(jnp.minimum(ids, v - 1))
        code = self.code_embedding.embed(jnp.clip(ids - v, 0, self.config.image_vocab_size - 1))
        return jnp.where((ids < v)[..., None], text, code)

    def text_logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """x E^T / sqrt(D) over text, float32."""
        return self.text_embedding.logits(x) * self.config.width**-0.5

    def code_logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L K"]:
        """x E^T / sqrt(D) over codes, float32."""
        return self.code_embedding.logits(x) * self.config.width**-0.5
