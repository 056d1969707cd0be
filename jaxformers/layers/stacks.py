"""Stacks of blocks. Their parameters always carry a leading layer axis, whatever the platform.

The blocks run in `nn.scan`: rolled where compile time counts (TPU, GPU), unrolled on CPU where
step time does. One layout serves every platform, name map and sharding row.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.basic import Norm
from jaxformers.layers.blocks import BlockConfig, DecoderBlock, EncoderBlock
from jaxformers.layers.execution import Execution, remat_policy
from jaxformers.layers.masks import Mask

SHOWN = ("probs", "perturb", "blocks")  # collections of what is inside
SCANNED = dict.fromkeys(("params", *SHOWN), 0)


class Stack(nn.Module):
    """`layers` equal blocks in turn, and a final norm when `final_norm`."""

    config: BlockConfig
    layers: int
    final_norm: bool = False
    execution: Execution = Execution()

    block = EncoderBlock

    def setup(self):
        self.blocks = type(self).block(self.config, self.execution)
        if self.final_norm:
            self.norm = Norm(self.config.norm, self.config.norm_epsilon)

    def run(self, x: Array, *inputs, train: bool = False) -> Array:
        """All blocks over x, each given the same `inputs`."""
        skips = self._skips() if train else None

        def body(block, carry, inputs, skip):
            return block(carry, *inputs, train=train, skip=skip), None

        if self.execution.remat != "none":
            policy = remat_policy(self.execution.remat)
            body = nn.remat(body, policy=policy, prevent_cse=self.execution.platform == "cpu")
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
        *,
        train: bool = False,
        first: int | None = None,
    ) -> Float[Array, "B M D"]:
        """Runs the stack.

        `first`: how many leading tokens (M) are wanted at its end; None: all. Where blocks are
        unrolled the last one then computes no others; a rolled loop would copy all parameters
        for that.
        """
        if first is None or not self._last_apart(mask, train):
            return self.run(x, mask, train=train)[:, :first]
        params, last = _split_last(self.blocks.variables["params"])
        before = EncoderStack(self.config, self.layers - 1, execution=self.execution, parent=None)
        x = before.apply({"params": {"blocks": params}}, x, mask, train=train)
        block = EncoderBlock(self.config, self.execution, parent=None)
        x = block.apply({"params": last}, x, mask, train=train, first=first)
        return self.norm(x) if self.final_norm else x

    def _last_apart(self, mask: Mask | None, train: bool) -> bool:
        """Whether the last block may run by itself: unrolled, with nothing inside asked for.

        Where training draws at random it may not, so that every platform draws the same.
        """
        c = self.config
        rates = c.dropout, c.attention_dropout, c.activation_dropout, c.drop_path
        asked = any(self.is_mutable_collection(name) for name in (*SHOWN, "intermediates"))
        return (
            self.layers > 1
            and self.execution.platform == "cpu"
            and self.execution.remat == "none"
            and not (train and any(rates))
            and not (asked or self.variables.get("perturb") or self.is_initializing())
            and (mask is None or mask.same_for_queries)
        )


class DecoderStack(Stack):
    """Decoder blocks over x `[B, T, D]`, attending to `memory` `[B, S, D]`."""

    block = DecoderBlock

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"],
        mask: Mask | None = None,
        cross_mask: Mask | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B T D"]:
        """Runs the stack."""
        return self.run(x, memory, mask, cross_mask, train=train)


def _split_last(stacked):
    """The parameters of all blocks but the last, and the last one's, without the layer axis.

    They are split, not sliced: the gradient is then one concatenation.
    """
    leaves, tree = jax.tree.flatten(stacked)
    before, last = zip(*(jax.lax.split(x, (len(x) - 1, 1)) for x in leaves), strict=True)
    return tree.unflatten(before), tree.unflatten([x[0] for x in last])
