"""Names of the tensors that Hugging Face's BERT and RoBERTa share, and the map of any variant."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn

from jaxformers.models import (
    Bert,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear

LAYER = "encoder.layer.{layer}"
# Ends of the names of transformers' classes.
CLASS_SUFFIXES: dict[type[nn.Module], str] = {
    Bert: "Model",
    BertForPreTraining: "ForMaskedLM",
    BertForSequenceClassification: "ForSequenceClassification",
    BertForSpanExtraction: "ForQuestionAnswering",
    BertForTokenClassification: "ForTokenClassification",
}


def early_norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """Files from before 2019 call a norm's weight gamma and its bias beta."""
    return (
        Entry((f"{theirs}.weight", f"{theirs}.gamma"), f"{ours}/scale"),
        Entry((f"{theirs}.bias", f"{theirs}.beta"), f"{ours}/bias"),
    )


ENCODER: tuple[Entry, ...] = (
    Entry("embeddings.position_embeddings.weight", "position_embedding/table"),
    Entry("embeddings.token_type_embeddings.weight", "type_embedding/table"),
    *early_norm("embeddings.LayerNorm", "embedding_norm"),
    *linear(f"{LAYER}.attention.self.query", "encoder/blocks/self_attention/query"),
    *linear(f"{LAYER}.attention.self.key", "encoder/blocks/self_attention/key"),
    *linear(f"{LAYER}.attention.self.value", "encoder/blocks/self_attention/value"),
    *linear(f"{LAYER}.attention.output.dense", "encoder/blocks/self_attention/out", inputs=2),
    *early_norm(f"{LAYER}.attention.output.LayerNorm", "encoder/blocks/self_attention_norm"),
    *linear(f"{LAYER}.intermediate.dense", "encoder/blocks/feed_forward/up"),
    *linear(f"{LAYER}.output.dense", "encoder/blocks/feed_forward/down"),
    *early_norm(f"{LAYER}.output.LayerNorm", "encoder/blocks/feed_forward_norm"),
    *linear("pooler.dense", "pooler"),
)


def model_map(
    module: type[nn.Module],
    prefix: str,
    encoder: Sequence[Entry],
    heads: Sequence[Entry],
    decoder: str,
    ignored: tuple[str, ...] = (),
) -> NameMap:
    """The names of a model's file.

    Args:
        module: the encoder, or one with a head.
        prefix: stands before the names of the encoder's tensors; empty: none.
        encoder: its tensors but the token embedding.
        heads: those of the heads.
        decoder: the masked-word head's view of the token embedding.
        ignored: patterns of tensors, without prefix, that no output depends on.
    """
    ours = "params/" if module is Bert else "params/bert/"
    words = (f"{prefix}embeddings.word_embeddings.weight", decoder)
    return NameMap(
        (
            Entry(words, f"{ours}token_embedding/table"),
            *(entry.under(prefix, ours) for entry in encoder),
            *(entry.under("", "params/") for entry in heads),
        ),
        ignored=tuple(rf"(\w+\.)?{name}" for name in (r"embeddings\.position_ids", *ignored)),
    )
