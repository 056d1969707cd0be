"""RoBERTa, XLM-RoBERTa and CamemBERT as Hugging Face publishes them, with any head, in and out.

The three are one network under three names. Which head a file holds, its tensors tell.
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
from jaxformers.pretrained.bert.bert_config import (
    inexpressible,
    read_roberta_config,
    write_config,
)
from jaxformers.pretrained.bert.encoder_names import CLASS_SUFFIXES, ENCODER, model_map
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import Published, open_folder
from jaxformers.pretrained.mapping.config_fields import class_names
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear, norm
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

PREFIX = "roberta."
# Beginnings of the names of transformers' classes, by model type.
CLASS_PREFIXES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
# Heads whose tensors have the names of another head's.
OTHERS = ("ForMultipleChoice", "ForCausalLM")
HEADS: tuple[Entry, ...] = (
    *linear("lm_head.dense", "transform"),
    *norm("lm_head.layer_norm", "transform_norm"),
    Entry(("lm_head.bias", "lm_head.decoder.bias"), "logits_bias"),
    *linear("classifier.dense", "pre_classifier"),
    *linear("qa_outputs", "spans"),
)


def recognises_untyped(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` without `model_type` is a RoBERTa's, as those of 2019 are."""
    names = config.get("architectures")
    return isinstance(names, list) and bool(names) and str(names[0]).startswith("Roberta")


def name_map(module: type[nn.Module], prefix: str) -> NameMap:
    """The names of a head's file; `prefix` stands before those of the encoder."""
    of_texts = module is BertForSequenceClassification
    heads = (*HEADS, *linear("classifier.out_proj" if of_texts else "classifier", "classifier"))
    # No head reads the pooler, but older files have one.
    ignored = () if module is Bert else (r"pooler\..*",)
    return model_map(module, prefix, ENCODER, heads, "lm_head.decoder.weight", ignored)


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a published folder, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    opened = open_folder(path, PREFIX)
    opened.fields.architecture(
        tuple(prefix + suffix for prefix in CLASS_PREFIXES.values() for suffix in OTHERS)
    )
    config = read_roberta_config(opened.fields.content, opened.fields.place)
    module, config = _module(opened, config)
    names = name_map(module, opened.prefix)
    return read_model(module(config, execution), names, opened.tensors)


def _module(opened: Published, config: BertConfig) -> tuple[type[nn.Module], BertConfig]:
    """The module that has the file's head, and its configuration."""
    shapes = opened.tensors.shapes
    config = replace(config, pooler=False)
    if "qa_outputs.weight" in shapes:
        return BertForSpanExtraction, config
    for name, module in (
        ("classifier.out_proj.weight", BertForSequenceClassification),
        ("classifier.weight", BertForTokenClassification),
    ):
        if name in shapes:
            labels = shapes[name][0]
            names = class_names(opened.fields.content, labels)
            return module, replace(config, labels=labels, label_names=names)
    if any(name.startswith("lm_head.") for name in shapes):
        return BertForPreTraining, config
    return Bert, replace(config, pooler=f"{opened.prefix}pooler.dense.weight" in shapes)


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no form of Hugging Face's RoBERTa; None: it has one."""
    config = model.config
    if type(model) not in CLASS_SUFFIXES or config.variant != "roberta":
        return "it is no RoBERTa"
    return inexpressible(config)


def write(
    model: nn.Module, variables: Variables, model_type: str = "roberta"
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' class of the same head and of this `model_type`.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    prefix = "" if type(model) is Bert else PREFIX
    tensors = name_map(type(model), prefix).write(unpadded_arrays(model, variables))
    architecture = CLASS_PREFIXES[model_type] + CLASS_SUFFIXES[type(model)]
    return tensors, {
        safetensors_folder.CONFIG: write_config(model.config, architecture, model_type)
    }
