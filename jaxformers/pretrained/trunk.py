"""The encoder of a published or trained model, under another head: where fine-tuning starts."""

from __future__ import annotations

from dataclasses import fields
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.models import Bert, BertConfig
from jaxformers.pretrained import bert, bert_config, bert_google, families, folder, own
from jaxformers.pretrained.hub import resolve

# What a head or a run may choose for itself.
FREE = (
    "dropout",
    "attention_dropout",
    "classifier_dropout",
    "pooler",
    "next_sentence",
    "labels",
    "label_names",
    "pad_id",
)


def trunk(path: Any, model: nn.Module) -> dict[str, Any]:
    """The encoder's parameters in a BERT folder or run, as nested NumPy arrays for `model`.

    A pooler that the file lacks is left out, and starts anew.

    Args:
        path: a folder of published weights, of ours, a finished run, or a hub's name.
        model: a BERT with a head, or `Bert` itself.

    Raises:
        WeightsError: no such weights, no BERT, or one of another shape: with the fields to set.
    """
    place = resolve(path)
    loaded, variables = _reader(place).load(place, model.execution)
    if type(loaded) not in bert.MODULES:
        raise WeightsError(f"{place} holds a {type(loaded).__name__}, no BERT to start from")
    names = (field.name for field in fields(BertConfig) if field.name not in FREE)
    families.require_same(loaded.config, model.config, names, path)
    params = variables["params"]
    params = params if type(loaded) is Bert else params["bert"]
    wanted = families.variable_shapes(model, model.execution)
    inner = "params/" if type(model) is Bert else "params/bert/"
    kept = {p: leaf for p, leaf in families.flatten(params).items() if inner + p in wanted}
    kept = families.unflatten({p: np.asarray(leaf) for p, leaf in kept.items()})
    return kept if type(model) is Bert else {"bert": kept}


def _reader(place: epath.Path) -> ModuleType:
    """The module that reads the folder's format."""
    if bert_google.recognises(place):
        return bert_google
    config = folder.read_json(place / folder.CONFIG)
    if config.get("format") == own.FORMAT:
        return own
    if config.get("model_type") == bert_config.MODEL_TYPE:
        return bert
    raise WeightsError(f"{place} holds no BERT to start from")
