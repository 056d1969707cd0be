"""Transformer blocks: attention and feed-forward layers with residuals and norms (section 3.1).

Pre- and post-norm, activation, epsilon and biases are fields of one small `BlockConfig`; a paper's
file states its choices.

Axis letters: B batch, T target, S source, L length, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, PositiveFloat, PositiveInt, Rate
from jaxformers.layers import cpu
from jaxformers.layers.activations import Activation, activate
from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.attention.multi_head import MultiHeadAttention
from jaxformers.layers.dropout import Dropout, drop_path
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import BiasInit, Init, Linear
from jaxformers.layers.norm import Norm
from jaxformers.sharding import constrain

KeysValues = tuple[Float[Array, "B H _ K"], Float[Array, "B H _ K"]]  # what a cache keeps


@dataclass(frozen=True)
class BlockInit(CheckedFields):
    """Initialisers of a block's kernels, where they are not all the same."""

    query_key_value: Init = "xavier"
    out: Init = "xavier"
    up: Init = "xavier"
    """Of `up` and `gate`."""
    down: Init = "xavier"
    feed_forward_bias: BiasInit = "zeros"
    query: Init | None = None
    """Of query alone; None: `query_key_value`."""


@dataclass(frozen=True)
class BlockConfig(CheckedFields):
    """One block's shape and the choices in which published models differ."""

    width: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt
    head_width: PositiveInt | None = None
    """Width of a head; None: width / heads."""
    activation: Activation = "relu"
    gated: bool = False
    """Feed-forward of act(x W_gate) * (x W_up) (Shazeer 2020)."""
    norm: Literal["layer", "rms"] = "layer"
    norm_position: Literal["pre", "post"] = "post"
    norm_epsilon: PositiveFloat = 1e-6
    attention_bias: bool = True
    """Biases of query, key, value and output projection."""
    qkv_bias: bool = True
    """False leaves out those of query, key and value alone."""
    feed_forward_bias: bool = True
    attention_scale: PositiveFloat | None = None
    """Factor of the attention scores; None: (width of a head)^-0.5 (T5 has 1)."""
    query_key_norm: bool = False
    """Norms each head's queries and keys before their product (Dehghani et al. 2023)."""
    layer_scale: PositiveFloat | None = None
    """Initial value of a learned factor for each channel of a sub-layer's output (Touvron et al.
    2021, "Going deeper with Image Transformers"); None: no such factors."""
    dropout: Rate = 0.0
    """On each sub-layer's output, before the residual sum."""
    attention_dropout: Rate = 0.0
    """On attention probabilities."""
    activation_dropout: Rate = 0.0
    """Inside the feed-forward layer."""
    drop_path: Rate = 0.0
    """How often an example skips a sub-layer in the stack's last block; linearly less before it."""
    init: Init | BlockInit = "xavier"
    """Initialiser of all kernels, or of each."""

    def __post_init__(self):
        super().__post_init__()
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide a width of {self.width}")

    @property
    def width_of_head(self) -> int:
        """K: the width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def initialisers(self) -> BlockInit:
        """The initialiser of each kernel."""
        if isinstance(self.init, BlockInit):
            return self.init
        return BlockInit(self.init, self.init, self.init, self.init)


class FeedForward(nn.Module):
    """Position-wise feed-forward network (section 3.3, equation 2)."""

    config: BlockConfig
    execution: Execution = Execution()

    def setup(self):
        c, init = self.config, self.config.initialisers
        common = dict(use_bias=c.feed_forward_bias, bias_init=init.feed_forward_bias)
        common |= dict(dtype=self.execution.compute_dtype, platform=self.execution.platform)
        self.up = Linear((c.width,), (c.feed_forward,), kernel_init=init.up, **common)
        if c.gated:
            self.gate = Linear((c.width,), (c.feed_forward,), kernel_init=init.up, **common)
        self.down = Linear((c.feed_forward,), (c.width,), kernel_init=init.down, **common)
        self.drop = Dropout(c.activation_dropout)

    def __call__(self, x: Float[Array, "B L D"], *, train: bool = False) -> Float[Array, "B L D"]:
        """act(x W_up + b) W_down + b, or its gated form."""
        c = self.config
        # [B, L, D] -> [B, L, F]; gated (Shazeer 2020): act(x W_gate) * (x W_up).
        if c.gated:
            hidden = activate(self.gate(x), c.activation) * self.up(x)
        else:
            hidden = activate(self.up(x), c.activation)
        # F is cut over `tensor`: `up` needs no communication, `down` one sum over the axis.
        hidden = constrain(hidden, "batch", "length", "mlp")
        return self.down(self.drop(hidden, train=train))


class _Block(nn.Module):
    config: BlockConfig
    execution: Execution = Execution()

    def _norm(self) -> Norm:
        return Norm(self.config.norm, self.config.norm_epsilon)

    def _attention(self) -> MultiHeadAttention:
        c = self.config
        return MultiHeadAttention(
            c.width,
            c.heads,
            c.width_of_head,
            c.attention_bias,
            c.attention_dropout,
            c.initialisers.query_key_value,
            self.execution,
            scale=c.attention_scale,
            out_init=c.initialisers.out,
            query_init=c.initialisers.query,
            qkv_bias=c.qkv_bias,
            query_key_norm=c.norm_epsilon if c.query_key_norm else None,
        )

    def _layer_scale(self, sublayer: str) -> Array | None:
        """Parameter `[D]` that scales the output of a sub-layer; None where there are none."""
        c = self.config
        if c.layer_scale is None:
            return None
        start = nn.initializers.constant(c.layer_scale)
        return self.param(f"{sublayer}_layer_scale", start, (c.width,))

    def residual(
        self,
        x: Array,
        norm: Norm,
        sublayer,
        *,
        scale: Array | None = None,
        train: bool = False,
        skip: Array | None = None,
    ) -> Array:
        """x + f(norm(x)) (pre) or norm(x + f(x)) (post), with dropout on f's output.

        `scale`: factors `[D]` of f's output; None: 1. `skip`: the rate at which an example goes
        without f; None: never.
        """
        pre = self.config.norm_position == "pre"
        # pre: x + f(norm(x)), the stream itself is never normalised; post: norm(x + f(x)).
        y = self.drop(sublayer(norm(x) if pre else x), train=train)
        if scale is not None:
            y = y * scale.astype(y.dtype)[None, None]
        if skip is not None:
            y = drop_path(y, skip, self.make_rng("dropout"))
        # [B, L, D]; see `computed_once`: XLA for CPU would recompute the sum in each of its uses.
        y = cpu.computed_once(x + y, self.execution.platform)
        return constrain(y if pre else norm(y), "batch", "length", "embed")


class EncoderBlock(_Block):
    """Self-attention, then a feed-forward layer."""

    def setup(self):
        self.self_attention = self._attention()
        self.self_attention_norm = self._norm()
        self.self_attention_scale = self._layer_scale("self_attention")
        self.feed_forward = FeedForward(self.config, self.execution)
        self.feed_forward_norm = self._norm()
        self.feed_forward_scale = self._layer_scale("feed_forward")
        self.drop = Dropout(self.config.dropout)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        mask: Mask | None = None,
        bias: Float[Array, "#B #H #L #L"] | None = None,
        *,
        train: bool = False,
        skip: Float[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """One block; its output is sown as `blocks` when that collection is mutable.

        Args:
            x: the input.
            mask: which tokens each token attends to; None: all.
            bias: added to the scaled attention scores, such as relative positions; None: nothing.
            train: dropout on.
            skip: the rate at which an example goes without each sub-layer; None: never.
        """
        x = self.residual(
            x,
            self.self_attention_norm,
            lambda y: self.self_attention(y, mask=mask, bias=bias, train=train),
            scale=self.self_attention_scale,
            train=train,
            skip=skip,
        )
        x = self.residual(
            x,
            self.feed_forward_norm,
            lambda y: self.feed_forward(y, train=train),
            scale=self.feed_forward_scale,
            train=train,
            skip=skip,
        )
        return _sown(self, x)


class DecoderBlock(_Block):
    """Causal self-attention, attention to the encoder's output, then a feed-forward layer."""

    def setup(self):
        self.self_attention = self._attention()
        self.self_attention_norm = self._norm()
        self.self_attention_scale = self._layer_scale("self_attention")
        self.cross_attention = self._attention()
        self.cross_attention_norm = self._norm()
        self.cross_attention_scale = self._layer_scale("cross_attention")
        self.feed_forward = FeedForward(self.config, self.execution)
        self.feed_forward_norm = self._norm()
        self.feed_forward_scale = self._layer_scale("feed_forward")
        self.drop = Dropout(self.config.dropout)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"],
        mask: Mask | None = None,
        cross_mask: Mask | None = None,
        bias: Float[Array, "#B #H #T #T"] | None = None,
        *,
        train: bool = False,
        skip: Float[Array, ""] | None = None,
    ) -> Float[Array, "B T D"]:
        """One block; `mask` should be causal. Its output is sown as `blocks` when asked for.

        `bias` is added to the scores of self-attention; cross-attention has none.
        """
        x = self.residual(
            x,
            self.self_attention_norm,
            lambda y: self.self_attention(y, mask=mask, bias=bias, train=train),
            scale=self.self_attention_scale,
            train=train,
            skip=skip,
        )
        x = self.residual(
            x,
            self.cross_attention_norm,
            lambda y: self.cross_attention(y, memory, cross_mask, train=train),
            scale=self.cross_attention_scale,
            train=train,
            skip=skip,
        )
        x = self.residual(
            x,
            self.feed_forward_norm,
            lambda y: self.feed_forward(y, train=train),
            scale=self.feed_forward_scale,
            train=train,
            skip=skip,
        )
        return _sown(self, x)

    def step(
        self,
        x: Float[Array, "B T D"],
        past: KeysValues,
        memory: KeysValues,
        at: Int[Array, ""],
        mask: Mask,
        cross_mask: Mask,
        bias: Float[Array, "#B #H #T #S"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KeysValues]:
        """The block over new tokens only, given what it computed for earlier ones.

        Args:
            x: the new tokens; in beam search, one for each beam side by side.
            past: the keys and values `[B, H, S, K]` of all places, those of x not yet written.
            memory: the keys and values of the encoder's output, from `cross_attention`.
            at: the place of x's first token in `past`.
            mask: which places each new token may attend to, itself included.
            cross_mask: which source tokens it may attend to.
            bias: added to the scores of self-attention, of the new tokens against all of `past`.

        Returns the block's output, and `past` with x's keys and values written at `at`.
        """

        def attend_to_past(y):
            nonlocal past
            new = self.self_attention.keys_values(y)
            past = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, kv, at, axis=2)
                for old, kv in zip(past, new, strict=True)
            )
            return self.self_attention.attend(y, *past, mask, bias=bias)

        def attend_to_memory(y):
            return self.cross_attention.attend(y, *memory, cross_mask)

        for norm, sublayer, scale in (
            (self.self_attention_norm, attend_to_past, self.self_attention_scale),
            (self.cross_attention_norm, attend_to_memory, self.cross_attention_scale),
            (self.feed_forward_norm, self.feed_forward, self.feed_forward_scale),
        ):
            x = self.residual(x, norm, sublayer, scale=scale)
        return x, past


def _sown(block: nn.Module, x: Array) -> Array:
    if block.is_mutable_collection("blocks") and not block.is_initializing():
        block.sow("blocks", "output", x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    return x
