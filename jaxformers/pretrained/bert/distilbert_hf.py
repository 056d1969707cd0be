"""DistilBERT as Hugging Face publishes it, with any head or none, in and out.

Which head a file holds, its tensors tell. A fixed table of sines (`sinusoidal_pos_embds`) is read
from the file like a learned one, and is trained and written as one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.pretrained.bert.bert_config import inexpressible, label_fields
from jaxformers.pretrained.bert.encoder_names import CLASS_SUFFIXES, model_map
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import Published, open_folder
from jaxformers.pretrained.mapping.config_fields import (
    Fields,
    activation_name,
    class_names,
    problem_type,
)
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear, norm
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

MODEL_TYPE, PREFIX, CLASS_PREFIX = "distilbert", "distilbert.", "DistilBert"
# Heads whose tensors have the names of another head's.
OTHERS = ("DistilBertForMultipleChoice",)
# The classes take no token types, which a BERT's tokenizer gives unless it is told not to.
TOKENIZER_SETTINGS = {"model_input_names": ["input_ids", "attention_mask"]}
NORM_EPSILON = 1e-12  # config.json has no field for it
# Our field -> their field and its default.
SIZES = {
    "vocab_size": ("vocab_size", 30522),
    "width": ("dim", 768),
    "heads": ("n_heads", 12),
    "feed_forward": ("hidden_dim", 3072),
    "layers": ("n_layers", 6),
    "max_length": ("max_position_embeddings", 512),
}
RATES = {
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "classifier_dropout": ("seq_classif_dropout", 0.2),
}
# Further names of their fields.
ALIASES = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
LAYER = "transformer.layer.{layer}"
ENCODER: tuple[Entry, ...] = (
    Entry("embeddings.position_embeddings.weight", "position_embedding/table"),
    *norm("embeddings.LayerNorm", "embedding_norm"),
    *linear(f"{LAYER}.attention.q_lin", "encoder/blocks/self_attention/query"),
    *linear(f"{LAYER}.attention.k_lin", "encoder/blocks/self_attention/key"),
    *linear(f"{LAYER}.attention.v_lin", "encoder/blocks/self_attention/value"),
    *linear(f"{LAYER}.attention.out_lin", "encoder/blocks/self_attention/out", inputs=2),
    *norm(f"{LAYER}.sa_layer_norm", "encoder/blocks/self_attention_norm"),
    *linear(f"{LAYER}.ffn.lin1", "encoder/blocks/feed_forward/up"),
    *linear(f"{LAYER}.ffn.lin2", "encoder/blocks/feed_forward/down"),
    *norm(f"{LAYER}.output_layer_norm", "encoder/blocks/feed_forward_norm"),
)
HEADS: tuple[Entry, ...] = (
    *linear("vocab_transform", "transform"),
    *norm("vocab_layer_norm", "transform_norm"),
    Entry("vocab_projector.bias", "logits_bias"),
    *linear("pre_classifier", "pre_classifier"),
    *linear("classifier", "classifier"),
    *linear("qa_outputs", "spans"),
)


def name_map(module: type[nn.Module], prefix: str) -> NameMap:
    """The names of a head's file; `prefix` stands before those of the encoder."""
    return model_map(module, prefix, ENCODER, HEADS, "vocab_projector.weight")


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a published folder, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    opened = open_folder(path, PREFIX)
    opened.fields.architecture(OTHERS)
    module, config = _module(opened, _read_config(opened.fields))
    names = name_map(module, opened.prefix)
    return read_model(module(config, execution), names, opened.tensors)


def _read_config(fields: Fields) -> BertConfig:
    content = dict(fields.content)
    for alias, name in ALIASES.items():
        if alias in content and content.setdefault(name, content[alias]) != content[alias]:
            raise WeightsError(f"{fields.place}: {alias} and {name} differ, and mean the same")
    fields = Fields(content, fields.place)
    fields.require("tie_word_embeddings", True)
    fields.flag("sinusoidal_pos_embds")
    values: dict[str, Any] = {ours: fields.size(*theirs) for ours, theirs in SIZES.items()}
    values |= {ours: fields.rate(*theirs) for ours, theirs in RATES.items()}
    if (pad := content.get("pad_token_id")) is not None:
        if type(pad) is not int or not 0 <= pad < values["vocab_size"]:
            raise fields.refuse("pad_token_id", "not one token's id")
        values["pad_id"] = pad
    return fields.make(
        BertConfig,
        variant="distilbert",
        type_vocab_size=0,
        norm_epsilon=NORM_EPSILON,
        activation=fields.activation("activation", "gelu"),
        problem_type=problem_type(fields),
        **values,
    )


def _module(opened: Published, config: BertConfig) -> tuple[type[nn.Module], BertConfig]:
    """The module that has the file's head, and its configuration."""
    shapes = opened.tensors.shapes
    if "qa_outputs.weight" in shapes:
        return BertForSpanExtraction, config
    if "classifier.weight" in shapes:
        labels = shapes["classifier.weight"][0]
        names = class_names(opened.fields.content, labels)
        of_texts = "pre_classifier.weight" in shapes
        module = BertForSequenceClassification if of_texts else BertForTokenClassification
        return module, replace(config, labels=labels, label_names=names)
    has_words = any(name.startswith("vocab_") for name in shapes)
    return BertForPreTraining if has_words else Bert, config


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no form of Hugging Face's DistilBERT; None: it has one."""
    config = model.config
    if type(model) not in CLASS_SUFFIXES or config.variant != "distilbert":
        return "it is no DistilBERT"
    if config.norm_epsilon != NORM_EPSILON:
        return f"norm_epsilon is {config.norm_epsilon}, and {NORM_EPSILON} there"
    return inexpressible(config)


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' class of the same head.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    prefix = "" if type(model) is Bert else PREFIX
    tensors = name_map(type(model), prefix).write(unpadded_arrays(model, variables))
    architecture = CLASS_PREFIX + CLASS_SUFFIXES[type(model)]
    return tensors, {safetensors_folder.CONFIG: _write_config(model.config, architecture)}


def _write_config(config: BertConfig, architecture: str) -> dict[str, Any]:
    rate = config.dropout if config.classifier_dropout is None else config.classifier_dropout
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in (SIZES | RATES).items()}
    return (
        {"model_type": MODEL_TYPE, "architectures": [architecture], "dtype": "float32"}
        | numbers
        | {
            "seq_classif_dropout": rate,
            "activation": activation_name(config.activation),
            "pad_token_id": config.pad_id,
            "sinusoidal_pos_embds": False,
            "tie_word_embeddings": True,
        }
        | label_fields(config, architecture)
    )
