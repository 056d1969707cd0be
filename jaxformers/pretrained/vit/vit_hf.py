"""Hugging Face's ViT folders: `ViTModel` and `ViTForImageClassification`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution
from jaxformers.models import ViT
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.image_config import head_classes
from jaxformers.pretrained.mapping.config_fields import class_names, problem_type
from jaxformers.pretrained.mapping.name_map import NameMap
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)
from jaxformers.pretrained.vit import vit_config
from jaxformers.pretrained.vit.vit_names import ENCODER, HEAD

MODEL_TYPE = vit_config.VIT
PREFIX = "vit."
UNSUPPORTED_HEADS = ("ViTForMaskedImageModeling",)


def name_map(prefix: str) -> NameMap:
    """Names of the tensors; `prefix` stands before those of the encoder."""
    entries = (entry.under(prefix, "params/") for entry in ENCODER)
    # A pooler under a classifier is in some files, and nothing reads it.
    pooler = (r"vit\.pooler\..*",) if prefix else ()
    return NameMap(
        (*entries, *(entry.under("", "params/") for entry in HEAD)),
        ignored=(r"(vit\.)?embeddings\.mask_token", *pooler),
    )


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[ViT, dict[str, Any]]:
    """The model in a folder, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, PREFIX)
    fields.architecture(UNSUPPORTED_HEADS)
    classes = head_classes(tensors, "classifier.weight")
    pooler = None if prefix else tensors.shapes.get("pooler.dense.weight")
    config = vit_config.read_encoder(
        fields,
        classes=classes,
        class_names=class_names(fields.content, classes),
        problem_type=problem_type(fields) if classes else None,
        pre_logits=pooler[0] if pooler else None,
    )
    return read_model(ViT(config, execution), name_map(prefix), tensors)


def unsupported_reason(model: Any, variables: Variables) -> str | None:
    """Why the model has no form of Hugging Face's ViT; None: it has one."""
    if type(model) is not ViT:
        return "it is no ViT"
    if model.config.positions != "learned":
        return f"its positions are {model.config.positions!r}"
    return vit_config.inexpressible(model.config)


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' ViT classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    headed = bool(model.config.classes)
    tensors = name_map(PREFIX if headed else "").write(unpadded_arrays(model, variables))
    kind = "ViTForImageClassification" if headed else "ViTModel"
    return tensors, {
        safetensors_folder.CONFIG: vit_config.write_encoder(model.config, MODEL_TYPE, kind)
    }
