"""Attention pooling: a learned query that attends to all tokens.

Axis letters: B batch, L length, D model width.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.attention.multi_head import MultiHeadAttention
from jaxformers.layers.blocks import BlockConfig, FeedForward
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import initializer
from jaxformers.layers.norm import Norm


class AttentionPooling(nn.Module):
    """Multi-head attention pooling (Zhai et al. 2022, "Scaling Vision Transformers"; big_vision's
    MAPHead, timm's `map`).

    Heads, widths, activation and epsilon are those of the encoder's blocks.
    """

    config: BlockConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.probe = self.param("probe", initializer("xavier", 1), (1, c.width))
        heads = c.width, c.heads, c.width_of_head
        self.attention = MultiHeadAttention(*heads, kernel_init=c.init, execution=self.execution)
        self.norm = Norm(epsilon=c.norm_epsilon)
        self.feed_forward = FeedForward(c, self.execution)

    def __call__(self, x: Float[Array, "B L D"], *, train: bool = False) -> Float[Array, "B D"]:
        """y + MLP(norm(y)) of y, the probe's attention to x."""
        probe = self.probe.astype(x.dtype)[None]  # [1, 1, D]
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[2]))
        y = self.attention(probe, x, train=train)  # [B, 1, D]
        # No residual over the attention: the probe is no token of the image.
        return (y + self.feed_forward(self.norm(y), train=train))[:, 0]
