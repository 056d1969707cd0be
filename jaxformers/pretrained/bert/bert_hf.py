"""BERT as Hugging Face publishes it, with any head or none, in and out.

Sentence-embedding folders are encoders without a head. Which head a file holds, its tensors tell:
`architectures` of files from 2018 and 2019 often names another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution
from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.pretrained.bert.bert_config import inexpressible, read_config, write_config
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import Published, open_folder
from jaxformers.pretrained.mapping.config_fields import class_names
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear
from jaxformers.pretrained.mapping.transforms import Same, Transform
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

PREFIX = "bert."
ARCHITECTURES = {
    Bert: "BertModel",
    BertForSequenceClassification: "BertForSequenceClassification",
    BertForSpanExtraction: "BertForQuestionAnswering",
    BertForTokenClassification: "BertForTokenClassification",
}
# Heads whose tensors have the names of another head's.
OTHERS = ("BertForMultipleChoice", "BertLMHeadModel")
LAYER = "encoder.layer.{layer}"
SENTENCE = "cls.seq_relationship.weight"


def _norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    """Files from before 2019 call a norm's weight gamma and its bias beta."""
    return (
        Entry((f"{theirs}.weight", f"{theirs}.gamma"), f"{ours}/scale"),
        Entry((f"{theirs}.bias", f"{theirs}.beta"), f"{ours}/bias"),
    )


ENCODER: tuple[Entry, ...] = (
    Entry("embeddings.position_embeddings.weight", "position_embedding/table"),
    Entry("embeddings.token_type_embeddings.weight", "type_embedding/table"),
    *_norm("embeddings.LayerNorm", "embedding_norm"),
    *linear(f"{LAYER}.attention.self.query", "encoder/blocks/self_attention/query"),
    *linear(f"{LAYER}.attention.self.key", "encoder/blocks/self_attention/key"),
    *linear(f"{LAYER}.attention.self.value", "encoder/blocks/self_attention/value"),
    *linear(f"{LAYER}.attention.output.dense", "encoder/blocks/self_attention/out", inputs=2),
    *_norm(f"{LAYER}.attention.output.LayerNorm", "encoder/blocks/self_attention_norm"),
    *linear(f"{LAYER}.intermediate.dense", "encoder/blocks/feed_forward/up"),
    *linear(f"{LAYER}.output.dense", "encoder/blocks/feed_forward/down"),
    *_norm(f"{LAYER}.output.LayerNorm", "encoder/blocks/feed_forward_norm"),
    *linear("pooler.dense", "pooler"),
)
HEADS: tuple[Entry, ...] = (
    *linear("cls.predictions.transform.dense", "transform"),
    *_norm("cls.predictions.transform.LayerNorm", "transform_norm"),
    Entry(("cls.predictions.bias", "cls.predictions.decoder.bias"), "logits_bias"),
    *linear("cls.seq_relationship", "next_sentence"),
    *linear("classifier", "classifier"),
    *linear("qa_outputs", "spans"),
)


def name_map(module: type[nn.Module], prefix: str, table: Transform = Same()) -> NameMap:  # noqa: B008
    """The names of a head's file; `prefix` stands before those of the encoder."""
    ours = "params/" if module is Bert else "params/bert/"
    words = (f"{prefix}embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
    # Nothing trains the pooler under a head over all tokens, but older files have one.
    unpooled = module in (BertForSpanExtraction, BertForTokenClassification)
    pooler = (r"(bert\.)?pooler\..*",) if unpooled else ()
    return NameMap(
        (
            Entry(words, f"{ours}token_embedding/table", table),
            *(entry.under(prefix, ours) for entry in ENCODER),
            *(entry.under("", "params/") for entry in HEADS),
        ),
        ignored=(r"(bert\.)?embeddings\.position_ids", *pooler),
    )


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a published folder, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    opened = open_folder(path, PREFIX)
    architecture = opened.fields.architecture(OTHERS)
    config = read_config(opened.fields.content, opened.fields.place)
    module, config = _module(opened, config, architecture)
    names = name_map(module, opened.prefix)
    return read_model(module(config, execution), names, opened.tensors)


def _module(
    opened: Published, config: BertConfig, architecture: str | None
) -> tuple[type[nn.Module], BertConfig]:
    """The module that has the file's head, and its configuration.

    The classifiers of texts and of tokens have tensors of the same names and shapes: that of texts
    reads the pooler, which old files of the other hold too, so `architecture` decides.
    """
    shapes = opened.tensors.shapes
    pooler, sentence = f"{opened.prefix}pooler.dense.weight" in shapes, SENTENCE in shapes
    words = any(name.startswith("cls.predictions.") for name in shapes)
    config = replace(config, pooler=pooler, next_sentence=sentence)
    if "qa_outputs.weight" in shapes:
        return BertForSpanExtraction, config
    if "classifier.weight" in shapes:
        labels = shapes["classifier.weight"][0]
        names = class_names(opened.fields.content, labels)
        config = replace(config, labels=labels, label_names=names)
        of_texts = architecture == ARCHITECTURES[BertForSequenceClassification]
        of_tokens = architecture == ARCHITECTURES[BertForTokenClassification]
        if of_tokens or not (pooler or of_texts):
            return BertForTokenClassification, replace(config, pooler=False)
        return BertForSequenceClassification, replace(config, pooler=True)
    if words or sentence:
        return BertForPreTraining, replace(config, masked_words=words)
    return Bert, config


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no Hugging Face form; None when it has."""
    if type(model) not in (*ARCHITECTURES, BertForPreTraining):
        return "it is no BERT"
    return inexpressible(model.config)


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' class of the same head, if the format supports it.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    prefix = "" if type(model) is Bert else PREFIX
    tensors = name_map(type(model), prefix).write(unpadded_arrays(model, variables))
    return tensors, {safetensors_folder.CONFIG: write_config(model.config, _architecture(model))}


def _architecture(model: nn.Module) -> str:
    if isinstance(model, BertForPreTraining):
        if not (model.config.next_sentence and model.config.pooler):
            return "BertForMaskedLM"
        return (
            "BertForPreTraining" if model.config.masked_words else "BertForNextSentencePrediction"
        )
    return ARCHITECTURES[type(model)]
