"""Hugging Face's DeiT folders: `DeiTModel`, `DeiTForImageClassification`, and `...WithTeacher`.

Each has the distillation token; only the class with a teacher has a head on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution
from jaxformers.models import ViT, ViTConfig
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.image_config import head_classes
from jaxformers.pretrained.mapping.config_fields import class_names, problem_type
from jaxformers.pretrained.mapping.name_map import NameMap
from jaxformers.pretrained.mapping.torch_names import linear
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)
from jaxformers.pretrained.vit import vit_config
from jaxformers.pretrained.vit.vit_names import ENCODER, HEAD, token

MODEL_TYPE, PREFIX = "deit", "deit."
CLASS_HEAD, DISTILLATION_HEAD = "cls_classifier", "distillation_classifier"
UNSUPPORTED_HEADS = ("DeiTForMaskedImageModeling",)


def name_map(prefix: str, two_heads: bool) -> NameMap:
    """Names of the tensors; `prefix` stands before those of the encoder."""
    encoder = (*ENCODER, token("embeddings.distillation_token", "distillation_token"))
    heads = (
        (*linear(CLASS_HEAD, "head"), *linear(DISTILLATION_HEAD, "distillation_head"))
        if two_heads
        else HEAD
    )
    # A pooler under a classifier is in some files, and nothing reads it.
    pooler = (r"deit\.pooler\..*",) if prefix else ()
    return NameMap(
        (
            *(entry.under(prefix, "params/") for entry in encoder),
            *(entry.under("", "params/") for entry in heads),
        ),
        ignored=(r"(deit\.)?embeddings\.mask_token", *pooler),
    )


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[ViT, dict[str, Any]]:
    """The model in a folder, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, PREFIX)
    fields.architecture(UNSUPPORTED_HEADS)
    two_heads = f"{DISTILLATION_HEAD}.weight" in tensors.shapes
    classes = head_classes(tensors, f"{CLASS_HEAD if two_heads else 'classifier'}.weight")
    pooler = None if prefix else tensors.shapes.get("pooler.dense.weight")
    config = vit_config.read_encoder(
        fields,
        classes=classes,
        class_names=class_names(fields.content, classes),
        problem_type=problem_type(fields) if classes else None,
        pre_logits=pooler[0] if pooler else None,
        distillation_token=True,
        distillation_head=two_heads,
    )
    return read_model(ViT(config, execution), name_map(prefix, two_heads), tensors)


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no form of Hugging Face's DeiT; None: it has one."""
    if type(model) is not ViT or not model.config.distillation_token:
        return "it is no ViT with a distillation token"
    config = model.config
    if config.positions != "learned":
        return f"its positions are {config.positions!r}"
    if config.prefix_positions != "all":
        return f"its prefix_positions are {config.prefix_positions!r}"
    if config.distillation_head and not config.classes:
        return "its output is the mean of class and distillation token"
    return vit_config.inexpressible(
        replace(config, distillation_token=False, distillation_head=False)
    )


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' DeiT classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    config: ViTConfig = model.config
    two_heads = config.distillation_head
    names = name_map(PREFIX if config.classes else "", two_heads)
    kind = "DeiTForImageClassification" if config.classes else "DeiTModel"
    kind += "WithTeacher" if two_heads else ""
    return names.write(unpadded_arrays(model, variables)), {
        safetensors_folder.CONFIG: vit_config.write_encoder(config, MODEL_TYPE, kind)
    }
