"""The encoder of a published or trained model, under another head: where fine-tuning starts.

Masked words, the next sentence and spans mean the same in all data, so heads for them are kept
where the model has the same: pre-training goes on, and SQuAD follows TriviaQA. A classifier is of
its data's classes, and begins anew.
"""

from __future__ import annotations

from dataclasses import fields
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.models import Bert, BertConfig, BertForPreTraining, BertForSpanExtraction
from jaxformers.pretrained import registry
from jaxformers.pretrained.bert import bert_config, bert_google, bert_hf
from jaxformers.pretrained.formats import native_format, safetensors_folder
from jaxformers.pretrained.formats.hub import resolve

# What a head or a run may choose for itself.
FREE = (
    "dropout",
    "attention_dropout",
    "classifier_dropout",
    "pooler",
    "next_sentence",
    "masked_words",
    "labels",
    "label_names",
    "pad_id",
)
KEPT_HEADS = (BertForPreTraining, BertForSpanExtraction)


def load_backbone(path: Any, model: nn.Module) -> dict[str, Any]:
    """The encoder's parameters in a BERT folder or run, as nested NumPy arrays for `model`.

    With them the heads for words, sentences or spans where both have them. What the file lacks,
    such as a pooler, is left out, and starts anew.

    Args:
        path: a folder of published weights, of ours, a finished run, or a hub's name.
        model: a BERT with a head, or `Bert` itself.

    Raises:
        WeightsError: no such weights, no BERT, or one of another shape: with the fields to set.
    """
    place = resolve(path)
    loaded, variables = _reader(place).load(place, model.execution)
    if type(loaded) not in bert_hf.MODULES:
        raise WeightsError(f"{place} holds a {type(loaded).__name__}, no BERT to start from")
    names = (field.name for field in fields(BertConfig) if field.name not in FREE)
    registry.require_same(loaded.config, model.config, names, path)
    params = _under(type(model), type(loaded), variables["params"])
    wanted = registry.variable_shapes(model, model.execution)
    found = registry.flatten(params).items()
    return registry.unflatten({p: np.asarray(x) for p, x in found if f"params/{p}" in wanted})


def _under(head: type, loaded: type, params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a model with the head `loaded` as one with the other `head` has them."""
    if head is loaded and head in KEPT_HEADS:
        return params
    encoder = params if loaded is Bert else params["bert"]
    return encoder if head is Bert else {"bert": encoder}


def _reader(place: epath.Path) -> ModuleType:
    """The module that reads the folder's format."""
    if bert_google.recognises(place):
        return bert_google
    config = safetensors_folder.read_json(place / safetensors_folder.CONFIG)
    if config.get("format") == native_format.FORMAT:
        return native_format
    if bert_config.model_type(config) == bert_config.MODEL_TYPE:
        return bert_hf
    raise WeightsError(f"{place} holds no BERT to start from")
