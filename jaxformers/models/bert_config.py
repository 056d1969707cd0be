"""The configuration of BERT, RoBERTa and DistilBERT, with the published sizes by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveFloat, PositiveInt, Rate
from jaxformers.layers import Activation, BlockConfig
from jaxformers.models.problem_type import ProblemType

UNCASED, CASED, ROBERTA = 30_522, 28_996, 50_265
Variant = Literal["bert", "roberta", "distilbert"]


@dataclass(frozen=True)
class BertConfig(CheckedFields):
    """Shape and choices of a BERT; the defaults are the uncased base model.

    `activation`: the models published in 2018 were trained with the exact GELU; Google's code has
    used its tanh approximation (`gelu_tanh`) since February 2019.
    """

    variant: Variant = "bert"
    """The embeddings and heads around the encoder, which is the same in all. "roberta" (Liu et al.
    2019; XLM-RoBERTa and CamemBERT too): positions count from `pad_id` + 1 and leave out padding;
    the classifier has a dense layer with tanh of its own; masked words are transformed by the exact
    GELU. "distilbert" (Sanh et al. 2019): no segment embedding, no pooler; the classifier has a
    dense layer with ReLU of its own. Neither has a next-sentence head."""
    vocab_size: PositiveInt = UNCASED
    width: PositiveInt = 768
    heads: PositiveInt = 12
    feed_forward: PositiveInt = 3072
    layers: PositiveInt = 12
    max_length: PositiveInt = 512
    """Longest sequence, in tokens."""
    type_vocab_size: NonNegativeInt = 2
    """Segments: sentence A and sentence B; 0: there is no segment embedding, as in DistilBERT."""
    dropout: Rate = 0.1
    """On embeddings, each sub-layer's output, and the classifier's input."""
    attention_dropout: Rate = 0.1
    classifier_dropout: Rate | None = None
    """On the classifier's input; None: `dropout`."""
    activation: Activation = "gelu"
    norm_epsilon: PositiveFloat = 1e-12
    pad_id: NonNegativeInt = 0
    pooler: bool = True
    """Has the dense layer over the first token; some published models were saved without it. Of
    RoBERTa the encoder alone has it, of DistilBERT nothing."""
    next_sentence: bool = True
    """`BertForPreTraining` of `variant` "bert" has the next-sentence head, over the pooler."""
    masked_words: bool = True
    """`BertForPreTraining` has the masked-word head."""
    labels: PositiveInt = 2
    """Number of classes of `BertForSequenceClassification`."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in order; empty: numbers."""
    problem_type: ProblemType | None = None
    """What the logits mean, in `problem_type.class_scores`; None: a softmax over the classes, of a
    single label a regression, as transformers trains it."""

    def __post_init__(self):
        super().__post_init__()
        if self.pad_id >= self.vocab_size:
            raise ConfigError(f"pad_id {self.pad_id} is not below vocab_size {self.vocab_size}")
        if (self.variant == "distilbert") != (self.type_vocab_size == 0):
            raise ConfigError(
                f"variant {self.variant!r} does not go with type_vocab_size "
                f"{self.type_vocab_size}: DistilBERT, and it alone, has no segments (0)"
            )
        if self.label_names and len(self.label_names) != self.labels:
            raise ConfigError(
                f"label_names has {len(self.label_names)} names for {self.labels} labels"
            )
        self.block  # noqa: B018  (validates it here)

    @staticmethod
    def sized(layers: int, width: int, *, cased: bool = False, **changes) -> BertConfig:
        """A published size: heads of width 64, feed-forward width 4 x width.

        Published for 2, 4, ... 12 layers and widths 128, 256, 512 and 768 (uncased). `changes` set
        any fields, heads and feed-forward width included.
        """
        size = dict(layers=layers, width=width, heads=width // 64, feed_forward=4 * width)
        return BertConfig(**(dict(vocab_size=CASED if cased else UNCASED) | size | changes))

    @staticmethod
    def tiny(**changes) -> BertConfig:
        """BERT-Tiny: 2 layers, width 128."""
        return BertConfig.sized(**dict(layers=2, width=128) | changes)

    @staticmethod
    def mini(**changes) -> BertConfig:
        """BERT-Mini: 4 layers, width 256."""
        return BertConfig.sized(**dict(layers=4, width=256) | changes)

    @staticmethod
    def small(**changes) -> BertConfig:
        """BERT-Small: 4 layers, width 512."""
        return BertConfig.sized(**dict(layers=4, width=512) | changes)

    @staticmethod
    def medium(**changes) -> BertConfig:
        """BERT-Medium: 8 layers, width 512."""
        return BertConfig.sized(**dict(layers=8, width=512) | changes)

    @staticmethod
    def base(**changes) -> BertConfig:
        """BERT-Base: 12 layers, width 768.

        110,106,428 parameters with both pre-training heads (uncased).
        """
        return BertConfig.sized(**dict(layers=12, width=768) | changes)

    @staticmethod
    def large(**changes) -> BertConfig:
        """BERT-Large: 24 layers, width 1024.

        336,226,108 parameters with both pre-training heads (uncased).
        """
        return BertConfig.sized(**dict(layers=24, width=1024) | changes)

    @staticmethod
    def roberta(layers: int = 12, width: int = 768, **changes) -> BertConfig:
        """RoBERTa-Base, or RoBERTa-Large with 24 layers of width 1024.

        124,697,433 parameters with the masked-word head (base).
        """
        fields: dict[str, Any] = dict(
            variant="roberta", vocab_size=ROBERTA, type_vocab_size=1, pad_id=1
        )
        fields |= dict(norm_epsilon=1e-5)
        return BertConfig.sized(layers, width, **(fields | changes))

    @staticmethod
    def distilbert(*, cased: bool = False, **changes) -> BertConfig:
        """DistilBERT-Base: 6 layers, width 768.

        66,985,530 parameters with the masked-word head (uncased).
        """
        fields: dict[str, Any] = dict(
            variant="distilbert", type_vocab_size=0, classifier_dropout=0.2
        )
        fields |= dict(layers=6, width=768)
        return BertConfig.sized(cased=cased, **(fields | changes))

    @property
    def has_sentence_head(self) -> bool:
        """Whether `BertForPreTraining` has the next-sentence head."""
        return self.variant == "bert" and self.pooler and self.next_sentence

    @property
    def position_rows(self) -> int:
        """Rows of the position table: `max_length`, behind those up to `pad_id` in RoBERTa."""
        return self.max_length + (self.pad_id + 1 if self.variant == "roberta" else 0)

    @property
    def resolved_problem_type(self) -> ProblemType | None:
        """`problem_type`; "regression" where it is None and there is a single label."""
        return self.problem_type or ("regression" if self.labels == 1 else None)

    @property
    def block(self) -> BlockConfig:
        """Configuration of the encoder's blocks: post-norm, with biases everywhere."""
        return BlockConfig(
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            activation=self.activation,
            norm_position="post",
            norm_epsilon=self.norm_epsilon,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            init="truncated_normal",
        )
