"""The translation Transformer: Vaswani et al. 2017, "Attention Is All You Need".

An encoder reads the source, a decoder predicts the target one token at a time (figure 1). One table
embeds source and target and gives the logits (section 3.4). Marian's published models are the same
network with other choices, so they are this module with another configuration.

Axis letters: B batch, S source length, T target length, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import (
    CheckedFields,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rate,
)
from jaxformers.layers import (
    Activation,
    BlockConfig,
    DecoderStack,
    Dropout,
    EncoderStack,
    Execution,
    Mask,
    TokenEmbedding,
    sinusoids,
)
from jaxformers.layers.embeddings import Sinusoid


@dataclass(frozen=True)
class Generation(CheckedFields):
    """How the publisher of weights searches for translations (Hugging Face's `generate`)."""

    beams: PositiveInt | None = None
    """Width of the beam search (`num_beams`); None: nothing is stated."""
    length_penalty: FiniteFloat = 1.0
    """Scores are log-probabilities over the number of tokens to this power."""
    early_stopping: bool | Literal["never"] = False
    """When a search ends; see `jaxformers.decoding.Scoring.stopping`."""
    no_repeat_ngram: NonNegativeInt = 0
    """No n-gram of so many tokens comes twice in a translation; 0: any may."""
    renormalize: bool = False
    """Whether probabilities are of the tokens that may come, rather than of all."""
    max_length: PositiveInt | None = None
    """Most tokens of a translation, the start token counted; None: nothing is stated."""


@dataclass(frozen=True)
class TransformerConfig(CheckedFields):
    """Shape and choices of a translation Transformer; the defaults are the paper's base model.

    What the paper leaves open follows the released code (Tensor2Tensor, June 2017): no biases in
    attention, a zero vector as first decoder input, no dropout on attention probabilities.
    """

    vocab_size: PositiveInt = 37_000
    width: PositiveInt = 512
    heads: PositiveInt = 8
    feed_forward: PositiveInt = 2048
    encoder_layers: PositiveInt = 6
    decoder_layers: PositiveInt = 6
    decoder_heads: PositiveInt | None = None
    """None: the encoder's `heads`."""
    decoder_feed_forward: PositiveInt | None = None
    """None: the encoder's `feed_forward`."""
    dropout: Rate = 0.1
    """On embeddings and each sub-layer's output (section 5.4)."""
    attention_dropout: Rate = 0.0
    activation_dropout: Rate = 0.0
    activation: Activation = "relu"
    norm_position: Literal["pre", "post"] = "post"
    norm_epsilon: PositiveFloat = 1e-6
    attention_bias: bool = False
    positions: Sinusoid | Literal["none"] = "interleaved"
    max_length: PositiveInt = 1024
    """Longest source or target, in tokens."""
    scale_embedding: bool = True
    """Multiplies input embeddings by sqrt(width) (section 3.4)."""
    logits_bias: bool = False
    """Adds a bias to the logits that is not trained (Marian's buffer `final_logits_bias`)."""
    pad_id: NonNegativeInt = 0
    eos_id: NonNegativeInt = 1
    start_id: NonNegativeInt = 0
    """Token of the first decoder input."""
    zero_pad: bool = True
    """The padding token, and with it the start token, is embedded as the zero vector."""
    forced_eos_id: NonNegativeInt | None = None
    """Token forced as the last of a translation that reaches the maximum length."""
    banned_ids: tuple[NonNegativeInt, ...] = ()
    """Tokens that are never generated (Marian's `bad_words_ids`)."""
    generation: Generation | None = None
    """The search that the weights' publisher states; None: none."""

    def __post_init__(self):
        super().__post_init__()
        special_ids = (self.pad_id, self.eos_id, self.start_id, self.forced_eos_id or 0)
        if (largest := max(*special_ids, *self.banned_ids)) >= self.vocab_size:
            raise ConfigError(
                f"a special token has id {largest}, of a vocabulary of {self.vocab_size}: ids are "
                "below vocab_size"
            )
        self.encoder_block, self.decoder_block  # noqa: B018  (validates them here)

    @staticmethod
    def base(vocab_size: int = 37_000, **changes) -> TransformerConfig:
        """The base model (table 3): 63,045,632 parameters with 37,000 tokens."""
        return TransformerConfig(vocab_size, **changes)

    @staticmethod
    def big(vocab_size: int = 37_000, **changes) -> TransformerConfig:
        """The big model (table 3): 214,171,648 parameters; dropout 0.3 (0.1 for English-French)."""
        size = dict(width=1024, heads=16, feed_forward=4096, dropout=0.3)
        return TransformerConfig(vocab_size, **(size | changes))

    @property
    def encoder_block(self) -> BlockConfig:
        """Configuration of the encoder's blocks."""
        return BlockConfig(
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            activation=self.activation,
            norm_position=self.norm_position,
            norm_epsilon=self.norm_epsilon,
            attention_bias=self.attention_bias,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.activation_dropout,
        )

    @property
    def decoder_block(self) -> BlockConfig:
        """Configuration of the decoder's blocks, whose heads and feed-forward may differ."""
        return replace(
            self.encoder_block,
            heads=self.decoder_heads or self.heads,
            feed_forward=self.decoder_feed_forward or self.feed_forward,
        )


class Transformer(nn.Module):
    """`model.apply(variables, source_ids, target_in_ids, source_mask) -> logits [B, T, V]`.

    Vaswani et al., "Attention Is All You Need", 2017.

    Example:
        >>> config = jf.TransformerConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, max_length=16,
        ...     encoder_layers=1, decoder_layers=1,
        ... )
        >>> model, source_ids = jf.Transformer(config), jnp.array([[5, 8, 2]])
        >>> variables = model.init(jax.random.key(0), source_ids, source_ids)
        >>> model.apply(variables, source_ids, jnp.array([[0, 7]])).shape  # [B, T, V]
        (1, 2, 50)
    """

    config: TransformerConfig
    execution: Execution = Execution()

    def setup(self):
        # Pre-norm blocks leave their last residual sum unnormalised: the stack adds a final norm.
        c, final_norm = self.config, self.config.norm_position == "pre"
        self.token_embedding = TokenEmbedding(
            c.vocab_size,
            c.width,
            # Unit variance after multiplication by sqrt(width).
            std=c.width**-0.5 if c.scale_embedding else 0.02,
            pad_id=c.pad_id,
            zero_pad=c.zero_pad,
            execution=self.execution,
        )
        self.encoder = EncoderStack(c.encoder_block, c.encoder_layers, final_norm, self.execution)
        self.decoder = DecoderStack(c.decoder_block, c.decoder_layers, final_norm, self.execution)
        self.drop = Dropout(c.dropout)
        if c.logits_bias:
            rows = self.execution.rows(c.vocab_size)
            self.logits_bias = self.param("logits_bias", nn.initializers.zeros, (rows,))

    def __call__(
        self,
        source_ids: Int[Array, "B S"],
        target_in_ids: Int[Array, "B T"],
        source_mask: Int[Array, "B S"] | None = None,
        *,
        source_segments: Int[Array, "B S"] | None = None,
        source_positions: Int[Array, "B S"] | None = None,
        target_segments: Int[Array, "B T"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T V"]:
        """Float32 logits of the next token at each target position.

        Args:
            source_ids: source tokens.
            target_in_ids: decoder inputs, already shifted: the start token, then the target.
            source_mask: 1 for tokens, 0 for padding; None: no padding.
            source_segments, target_segments: the example, from 1 on, that each token of a packed
                row belongs to; 0 for padding. Tokens attend within their example.
            source_positions, target_positions: positions within the example; None: 0, 1, 2...
            train: dropout on; needs `rngs={"dropout": key}`.

        V is `vocab_size`, padded with masked logits if `execution.vocab_multiple` says so.
        """
        memory = self.encode(
            source_ids, source_mask, source_segments, source_positions, train=train
        )  # [B, S, D]
        hidden = self.decode(
            target_in_ids,
            memory,
            source_mask,
            source_segments,
            target_segments,
            target_positions,
            train=train,
        )  # [B, T, D]
        return self.logits(hidden)

    def encode(
        self, source_ids, source_mask=None, segments=None, positions=None, *, train: bool = False
    ) -> Float[Array, "B S D"]:
        """Encoder output; arguments as for `__call__`."""
        mask = Mask(keys=source_mask, query_segments=segments, key_segments=segments)
        return self.encoder(self.embed(source_ids, positions, train=train), mask, train=train)

    def decode(
        self,
        target_in_ids,
        memory: Float[Array, "B S D"],
        source_mask=None,
        source_segments=None,
        target_segments=None,
        target_positions=None,
        *,
        train: bool = False,
    ) -> Float[Array, "B T D"]:
        """Decoder output, which `logits` takes; arguments as for `__call__`."""
        # Self-attention is causal by position in the row. In a packed row the segments also keep
        # examples apart, there and in cross-attention (target token -> source token).
        mask = Mask(query_segments=target_segments, key_segments=target_segments, causal=True)
        cross = Mask(
            keys=source_mask,
            query_segments=None if source_segments is None else target_segments,
            key_segments=source_segments,
        )
        x = self.embed(target_in_ids, target_positions, train=train)
        return self.decoder(x, memory, mask, cross, train=train)

    def embed(self, ids: Int[Array, "B L"], positions=None, *, train: bool = False):
        """Token embeddings plus positions `[B, L, D]`, the input of a stack (sections 3.4, 3.5).

        Raises:
            DataError: sequences longer than `max_length`.
        """
        c, length = self.config, ids.shape[1]
        if length > c.max_length:
            raise DataError(
                f"a sequence of {length} tokens is longer than the model's {c.max_length} positions"
            )
        x = self.token_embedding.embed(ids)  # [B, L, D]
        if c.scale_embedding:
            x = x * jnp.asarray(c.width**0.5, x.dtype)
        if c.positions != "none":
            # Positions of packed rows are looked up, in a table of all of them.
            rows = length if positions is None else c.max_length
            table = jnp.asarray(self.position_table(rows), x.dtype)
            x = x + (table[None] if positions is None else jnp.take(table, positions, axis=0))
        return self.drop(x, train=train)

    def position_table(self, length: int):
        """The first `length` rows `[length, D]` of the float32 sinusoid table; None without one."""
        kind = self.config.positions
        return None if kind == "none" else sinusoids(length, self.config.width, kind)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Float32 logits x E^T with the embedding table E (section 3.4)."""
        y = self.token_embedding.logits(hidden)
        if not self.config.logits_bias:
            return y
        # Marian's bias is a buffer: it is not trained.
        return y + jax.lax.stop_gradient(self.logits_bias)[None, None]
