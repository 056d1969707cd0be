"""BERT as Hugging Face publishes it, with any head or none, in and out.

Sentence-embedding folders are encoders without a head. Which head a file holds, its tensors tell:
`architectures` of files from 2018 and 2019 often names another.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from jaxformers.pretrained.bert.encoder_names import (
    CLASS_SUFFIXES,
    ENCODER,
    early_norm,
    model_map,
)
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import Published, open_folder
from jaxformers.pretrained.mapping.config_fields import class_names
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

PREFIX = "bert."
ARCHITECTURES = {
    module: f"Bert{suffix}"
    for module, suffix in CLASS_SUFFIXES.items()
    if module is not BertForPreTraining  # its class goes by the heads that it has
}
# Heads whose tensors have the names of another head's.
OTHERS = ("BertForMultipleChoice", "BertLMHeadModel")
SENTENCE = "cls.seq_relationship.weight"
HEADS: tuple[Entry, ...] = (
    *linear("cls.predictions.transform.dense", "transform"),
    *early_norm("cls.predictions.transform.LayerNorm", "transform_norm"),
    Entry(("cls.predictions.bias", "cls.predictions.decoder.bias"), "logits_bias"),
    *linear("cls.seq_relationship", "next_sentence"),
    *linear("classifier", "classifier"),
    *linear("qa_outputs", "spans"),
)


def recognises_untyped(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` without `model_type` is a BERT's, as those of 2018 and 2019 are.

    RoBERTa's of that time have a single segment.
    """
    names = config.get("architectures") or ["Bert"]
    named = isinstance(names, list) and str(names[0]).startswith("Bert")
    return named and config.get("type_vocab_size", 1) != 1


def name_map(module: type[nn.Module], prefix: str) -> NameMap:
    """The names of a head's file; `prefix` stands before those of the encoder."""
    # Nothing trains the pooler under a head over all tokens, but older files have one.
    unpooled = module in (BertForSpanExtraction, BertForTokenClassification)
    ignored = (r"pooler\..*",) if unpooled else ()
    return model_map(module, prefix, ENCODER, HEADS, "cls.predictions.decoder.weight", ignored)


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
    if type(model) not in CLASS_SUFFIXES or model.config.variant != "bert":
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
        if not model.config.has_sentence_head:
            return "BertForMaskedLM"
        return (
            "BertForPreTraining" if model.config.masked_words else "BertForNextSentencePrediction"
        )
    return ARCHITECTURES[type(model)]
