"""BERT: Devlin et al. 2018, "Pre-training of Deep Bidirectional Transformers".

An encoder over token, segment and position embeddings (figure 2), pre-trained on masked language
modelling and next-sentence prediction (section 3.1), then fine-tuned with a small output head
(section 3.2). What the paper leaves open follows the released code: the epsilon of norms, the
transform before the masked-word logits, initial weights truncated at two standard deviations.
RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019) are the same encoder under other
embeddings and heads: `BertConfig.variant`.

Axis letters: B batch, L length, M masked positions, D model width, V vocabulary, N classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import (
    Dropout,
    EncoderStack,
    Execution,
    Linear,
    Mask,
    Norm,
    PositionEmbedding,
    TokenEmbedding,
    TypeEmbedding,
    activate,
)
from jaxformers.layers.embeddings import mask_padding
from jaxformers.models.bert_config import BertConfig
from jaxformers.sharding import constrain


class BertOutput(NamedTuple):
    """Hidden states and pooled output of the encoder."""

    hidden: Any
    """`[B, L, D]`: output of the last block."""
    pooled: Any
    """`[B, D]`: tanh of a dense layer over the first token; None without a pooler."""


class PreTrainingOutput(NamedTuple):
    """Float32 logits of both pre-training tasks."""

    mlm_logits: Any
    """`[B, L, V]`, or `[B, M, V]` at the masked positions only; None without the head."""
    nsp_logits: Any
    """`[B, 2]`: 0 for "is next", 1 for "is random"; None without the head."""


class SpanOutput(NamedTuple):
    """Float32 logits `[B, L]` of the positions where an answer starts and ends."""

    start_logits: Any
    end_logits: Any


class Bert(nn.Module):
    """The encoder: `model.apply(variables, input_ids, token_type_ids, attention_mask)`.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018.

    Example:
        >>> config = jf.BertConfig(vocab_size=50, width=16, heads=2, feed_forward=32, layers=1)
        >>> model, input_ids = jf.Bert(config), jnp.array([[2, 17, 31, 3]])
        >>> variables = model.init(jax.random.key(0), input_ids)
        >>> model.apply(variables, input_ids).hidden.shape
        (1, 4, 16)
    """

    config: BertConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.token_embedding = TokenEmbedding(
            c.vocab_size, c.width, std=0.02, truncated=True, execution=self.execution
        )
        self.position_embedding = PositionEmbedding(c.position_rows, c.width, truncated=True)
        if c.type_vocab_size:
            self.type_embedding = TypeEmbedding(c.type_vocab_size, c.width)
        self.embedding_norm = Norm("layer", c.norm_epsilon)
        self.drop = Dropout(c.dropout)
        self.encoder = EncoderStack(c.block, c.layers, execution=self.execution)
        if self._has_pooler:
            self.pooler = _dense(c.width, c.width, self.execution)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        *,
        segments: Int[Array, "B L"] | None = None,
        positions: Int[Array, "B L"] | None = None,
        train: bool = False,
    ) -> BertOutput:
        """Hidden states of all tokens, and the pooled first token.

        Args:
            input_ids: tokens, `[CLS] A [SEP] B [SEP]`.
            token_type_ids: 0 for sentence A, 1 for sentence B; None: all 0. A model without
                segment embedding (DistilBERT) does not read them.
            attention_mask: 1 for tokens, 0 for padding; None: no padding.
            segments: in packed rows, the example from 1 on that each token belongs to.
            positions: positions within the example, from 0 on; None: 0, 1, 2..., in RoBERTa
                those among the tokens that are not `pad_id`.
            train: dropout on; needs `rngs={"dropout": key}`.
        """
        x = self.embed(input_ids, token_type_ids, positions, train=train)
        mask = Mask(keys=attention_mask, query_segments=segments, key_segments=segments)
        hidden = self.encoder(x, mask, train=train)  # [B, L, D]
        return BertOutput(hidden, self._pool(hidden) if self._has_pooler else None)

    def pooled(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B D"]:
        """The pooled first token alone."""
        x = self.embed(input_ids, token_type_ids, train=train)
        return self._pool(self.encoder(x, Mask(keys=attention_mask), train=train))

    @property
    def _has_pooler(self) -> bool:
        return self.config.pooler and self.config.variant != "distilbert"

    def _pool(self, hidden: Float[Array, "B M D"]) -> Float[Array, "B D"]:
        """tanh(W h_0 + b) of the first token, [CLS] (section 3.1, "C" in figure 1)."""
        first = constrain(hidden[:, 0], "batch", "embed")
        return constrain(jnp.tanh(self.pooler(first)), "batch", "embed")

    def embed(self, input_ids, token_type_ids=None, positions=None, *, train: bool = False):
        """Sum of token, segment and position embeddings (figure 2), normalised: `[B, L, D]`.

        Raises:
            DataError: sequences longer than `max_length`.
        """
        c, (_, length) = self.config, input_ids.shape
        if length > c.max_length:
            raise DataError(
                f"a sequence of {length} tokens is longer than the model's {c.max_length} positions"
            )
        x = self.token_embedding.embed(input_ids)  # [B, L, D]
        if c.type_vocab_size:
            x = x + self.type_embedding(token_type_ids, x.dtype)
        if c.variant == "roberta":
            positions = roberta_positions(input_ids, positions, c.pad_id)
        x = x + self.position_embedding.rows(length, positions).astype(x.dtype)
        # The norm after the sum is the released code's: figure 2 has none.
        x = constrain(self.embedding_norm(x), "batch", "length", "embed")
        return self.drop(x, train=train)

    def token_logits(self, x: Float[Array, "B M D"]) -> Float[Array, "B M V"]:
        """Float32 logits x E^T with the token embedding table E."""
        return self.token_embedding.logits(x)


class BertForPreTraining(nn.Module):
    """Encoder with masked-word and next-sentence heads (BERT, section 3.1, tasks 1 and 2).

    Example:
        >>> config = jf.BertConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, layers=1
        ... )
        >>> model, input_ids = jf.BertForPreTraining(config), jnp.array([[2, 17, 31, 3]])
        >>> variables = model.init(jax.random.key(0), input_ids)
        >>> [logits.shape for logits in model.apply(variables, input_ids)]
        [(1, 4, 50), (1, 2)]
    """

    config: BertConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        if not (c.masked_words or c.has_sentence_head):
            raise ConfigError("a BERT for pre-training has masked_words, next_sentence or both")
        self.bert = Bert(c if c.variant == "bert" else replace(c, pooler=False), self.execution)
        if c.masked_words:
            # Logits of masked words: norm(act(W x + b)) E^T + bias, with the embedding table E.
            self.transform = _dense(c.width, c.width, self.execution)
            self.transform_norm = Norm("layer", c.norm_epsilon)
            rows = self.execution.rows(c.vocab_size)
            self.logits_bias = self.param("logits_bias", nn.initializers.zeros, (rows,))
        if c.has_sentence_head:
            self.next_sentence = _dense(c.width, 2)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        masked_positions: Int[Array, "B M"] | None = None,
        *,
        segments: Int[Array, "B L"] | None = None,
        positions: Int[Array, "B L"] | None = None,
        train: bool = False,
    ) -> PreTrainingOutput:
        """Logits of the words at `masked_positions` (None: at all positions) and next sentence.

        The other arguments are those of `Bert`. V is `vocab_size`, padded with masked logits if
        `execution.vocab_multiple` says so.
        """
        packing = dict(segments=segments, positions=positions)
        hidden, pooled = self.bert(
            input_ids, token_type_ids, attention_mask, **packing, train=train
        )  # [B, L, D], [B, D]
        if masked_positions is not None:
            # 15 % of the tokens: the vocabulary's product, a large share of all FLOPs, shrinks.
            hidden = _gather_positions(hidden, masked_positions)  # [B, M, D]
        mlm_logits = self.masked_word_logits(hidden) if self.config.masked_words else None
        nsp_logits = self.next_sentence(pooled) if self.config.has_sentence_head else None
        return PreTrainingOutput(mlm_logits, nsp_logits)

    def masked_word_logits(self, x: Float[Array, "B M D"]) -> Float[Array, "B M V"]:
        """Float32 logits over the vocabulary: norm(act(W x + b)) E^T + bias, E the token table."""
        c = self.config
        activation = "gelu" if c.variant == "roberta" else c.activation
        x = self.transform_norm(activate(self.transform(x), activation))
        logits = self.bert.token_logits(x) + self.logits_bias[None, None]
        # Masked again, since the bias has been added to the padding's logits too.
        return mask_padding(logits, c.vocab_size)


class BertForSequenceClassification(nn.Module):
    """Encoder with a classifier, or a regression for one label (BERT, section 4.1).

    BERT's reads the pooler's output. RoBERTa's and DistilBERT's have a dense layer of their own
    over the first token, `pre_classifier`, in its place.

    Example:
        >>> config = jf.BertConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, layers=1, labels=2
        ... )
        >>> model, input_ids = jf.BertForSequenceClassification(config), jnp.array([[2, 17, 31, 3]])
        >>> variables = model.init(jax.random.key(0), input_ids)
        >>> model.apply(variables, input_ids).shape
        (1, 2)
    """

    config: BertConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        if c.variant == "bert" and not c.pooler:
            raise ConfigError("a BERT classifier takes the pooler's output: set pooler")
        if c.variant != "bert":
            self.pre_classifier = _dense(c.width, c.width, self.execution)
        self.bert = Bert(c if c.variant == "bert" else replace(c, pooler=False), self.execution)
        rate = c.dropout if c.classifier_dropout is None else c.classifier_dropout
        self.drop = Dropout(rate)
        self.classifier = _dense(c.width, c.labels)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N"]:
        """Float32 logits of the classes, or the regressed value `[B, 1]`."""
        inputs = (input_ids, token_type_ids, attention_mask)
        if self.config.variant == "bert":
            pooled = self.bert.pooled(*inputs, train=train)
        else:
            first = self.bert(*inputs, train=train).hidden[:, 0]
            pooled = self._pre_classified(constrain(first, "batch", "embed"), train)
        return self.classifier(self.drop(pooled, train=train))

    def _pre_classified(self, first: Float[Array, "B D"], train: bool) -> Float[Array, "B D"]:
        if self.config.variant == "distilbert":
            return nn.relu(self.pre_classifier(first))
        return jnp.tanh(self.pre_classifier(self.drop(first, train=train)))


class BertForTokenClassification(nn.Module):
    """Encoder with a classifier over every token (BERT, section 5.3, named entities).

    It has no pooler, which no loss would train.

    Example:
        >>> config = jf.BertConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, layers=1, labels=3
        ... )
        >>> model, input_ids = jf.BertForTokenClassification(config), jnp.array([[2, 17, 31, 3]])
        >>> variables = model.init(jax.random.key(0), input_ids)
        >>> model.apply(variables, input_ids).shape
        (1, 4, 3)
    """

    config: BertConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.bert = Bert(replace(c, pooler=False), self.execution)
        # DistilBERT's rate of its own is for classifiers of whole texts.
        plain = c.classifier_dropout is None or c.variant == "distilbert"
        self.drop = Dropout(c.dropout if plain else c.classifier_dropout)
        self.classifier = _dense(c.width, c.labels)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L N"]:
        """Float32 logits of the classes of every token, padding included."""
        hidden = self.bert(input_ids, token_type_ids, attention_mask, train=train).hidden
        return self.classifier(self.drop(hidden, train=train))


class BertForSpanExtraction(nn.Module):
    """Encoder with a start vector and an end vector for answer spans (BERT, section 4.2).

    It has no pooler, which no loss would train.

    Example:
        >>> config = jf.BertConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, layers=1
        ... )
        >>> model, input_ids = jf.BertForSpanExtraction(config), jnp.array([[2, 17, 31, 3]])
        >>> variables = model.init(jax.random.key(0), input_ids)
        >>> [logits.shape for logits in model.apply(variables, input_ids)]
        [(1, 4), (1, 4)]
    """

    config: BertConfig
    execution: Execution = Execution()

    def setup(self):
        self.bert = Bert(replace(self.config, pooler=False), self.execution)
        self.spans = _dense(self.config.width, 2)

    def __call__(
        self,
        input_ids: Int[Array, "B L"],
        token_type_ids: Int[Array, "B L"] | None = None,
        attention_mask: Int[Array, "B L"] | None = None,
        *,
        train: bool = False,
    ) -> SpanOutput:
        """Logits of every token, padding included."""
        hidden = self.bert(input_ids, token_type_ids, attention_mask, train=train).hidden
        logits = self.spans(hidden)  # [B, L, 2]: S and E of section 4.2
        return SpanOutput(logits[..., 0], logits[..., 1])


def roberta_positions(
    input_ids: Int[Array, "B L"], positions: Int[Array, "B L"] | None, pad_id: int
) -> Int[Array, "B L"]:
    """RoBERTa's rows of the position table: the first token's is `pad_id` + 1, padding's `pad_id`.

    Args:
        input_ids: the tokens; what is padding is told by them, not by the mask, as in fairseq.
        positions: positions from 0 on that are stated, in packed rows; None: counted.
        pad_id: the padding token.
    """
    if positions is not None:
        return positions + pad_id + 1
    is_token = (input_ids != pad_id).astype(jnp.int32)
    return jnp.cumsum(is_token, axis=1) * is_token + pad_id


def _dense(inputs: int, outputs: int, execution: Execution = Execution()) -> Linear:  # noqa: B008
    """A dense layer with BERT's initial weights; by default a head's, in float32."""
    return Linear(
        (inputs,),
        (outputs,),
        kernel_init="truncated_normal",
        dtype=execution.compute_dtype,
        gathered=True,
        platform=execution.platform,
    )


def _gather_positions(
    hidden: Float[Array, "B L D"], positions: Int[Array, "B M"]
) -> Float[Array, "B M D"]:
    """Hidden states at these positions."""
    # A one-hot product: its gradient is a product too, where that of a gather is a scatter.
    one_hot = jax.nn.one_hot(positions, hidden.shape[1], dtype=hidden.dtype)  # [B, M, L]
    return jnp.einsum("BML,BLD->BMD", one_hot, hidden)
