"""Stacks of blocks. Their parameters always carry a leading layer axis, whatever the platform.

The blocks run in `nn.scan`: rolled where compile time counts (TPU, GPU), unrolled on CPU where
step time does. One layout serves every platform, name map and sharding row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.blocks import BlockConfig, DecoderBlock, EncoderBlock
from jaxformers.layers.execution import Execution, remat_policy
from jaxformers.layers.norm import Norm

SHOWN = ("probs", "perturb", "blocks")  # collections of what is inside
SCANNED: Mapping[Any, int] = dict.fromkeys(("params", *SHOWN), 0)


class Stack(nn.Module):
    """`layers` equal blocks in turn, and a final norm when `final_norm`."""

    config: BlockConfig
    layers: int
    final_norm: bool = False
    execution: Execution = Execution()

    block: ClassVar[type[EncoderBlock | DecoderBlock]] = EncoderBlock

    def setup(self):
        self.blocks = type(self).block(self.config, self.execution)
        if self.final_norm:
            self.norm = Norm(self.config.norm, self.config.norm_epsilon)

    def run(self, x: Array, *inputs, train: bool = False) -> Array:
        """All blocks over x, each given the same `inputs`."""
        # Stochastic depth is a scanned input, one rate a layer: a rate in the code would give each
        # layer a program of its own.
        skips = self._skips() if train else None

        def body(block, carry, inputs, skip):
            return block(carry, *inputs, train=train, skip=skip), None

        if self.execution.remat != "none":
            # Inside a rolled loop XLA cannot merge the recomputation with the forward pass;
            # in the unrolled one it would, and remat would save nothing.
            policy = remat_policy(self.execution.remat)
            body = nn.remat(body, policy=policy, prevent_cse=self.execution.platform == "cpu")
        # Parameters are stacked, [layers, ...], on every platform, so that one name map and one
        # sharding row serve all. TPUs roll the loop (compile time); a CPU unrolls it (step time).
        scan = nn.scan(
            body,
            variable_axes=SCANNED,
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, nn.broadcast if skips is None else 0),
            length=self.layers,
            unroll=self.layers if self.execution.platform == "cpu" else 1,
        )
        x, _ = scan(self.blocks, x, inputs, skips)
        return self.norm(x) if self.final_norm else x

    def _skips(self) -> Array | None:
        """Each block's rate of stochastic depth, `[layers]` from 0 up; None without it."""
        if self.config.drop_path == 0.0:
            return None
        return jnp.linspace(0.0, self.config.drop_path, self.layers, dtype=jnp.float32)


class EncoderStack(Stack):
    """Encoder blocks: x `[B, L, D]` to `[B, L, D]`."""

    block = EncoderBlock

    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Mask | None = None,
        bias: Float[Array, "#B #H #L #L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """Runs the stack; `Mask(causal=True)` makes it a decoder without cross-attention.

        `bias` is added to the attention scores of every block.
        """
        return self.run(x, mask, bias, train=train)


class DecoderStack(Stack):
    """Decoder blocks over x `[B, T, D]`, attending to `memory` `[B, S, D]`."""

    block = DecoderBlock

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"],
        mask: Mask | None = None,
        cross_mask: Mask | None = None,
        bias: Float[Array, "#B #H #T #T"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B T D"]:
        """Runs the stack; `bias` is added to the scores of every block's self-attention."""
        return self.run(x, memory, mask, cross_mask, bias, train=train)
