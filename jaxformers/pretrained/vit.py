"""ViT as Hugging Face publishes it, in and out: `ViTModel` and `ViTForImageClassification`."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import ViT
from jaxformers.pretrained import families, folder, vit_config
from jaxformers.pretrained.config_fields import Fields
from jaxformers.pretrained.image_config import class_names, head_classes
from jaxformers.pretrained.names import NameMap
from jaxformers.pretrained.vit_names import ENCODER, HEAD

MODEL_TYPE = vit_config.VIT
PREFIX = "vit."
# Heads that are not supported.
OTHERS = ("ViTForMaskedImageModeling",)


def name_map(prefix: str) -> NameMap:
    """The names of a file; `prefix` stands before those of the encoder."""
    entries = (entry.under(prefix, "params/") for entry in ENCODER)
    # Nothing trains the pooler under a classifier, but some files have one.
    pooler = (r"vit\.pooler\..*",) if prefix else ()
    return NameMap(
        (*entries, *(entry.under("", "params/") for entry in HEAD)),
        ignored=(r"(vit\.)?embeddings\.mask_token", *pooler),
    )


def load(path: Any, execution: Execution = families.PLAIN) -> tuple[ViT, dict[str, Any]]:
    """The model in a folder of Hugging Face's, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    path = epath.Path(path)
    config, place = folder.read_json(path / folder.CONFIG), str(path / folder.CONFIG)
    architecture = (config.get("architectures") or [None])[0]
    if architecture in OTHERS:
        raise WeightsError(f"{place}: the head of {architecture} is not supported")
    tensors = folder.Tensors(path)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in tensors.shapes) else ""
    classes = head_classes(tensors.shapes, "classifier.weight", tensors.place)
    pooler = None if prefix else tensors.shapes.get("pooler.dense.weight")
    made = vit_config.read_encoder(
        Fields(config, place),
        classes=classes,
        class_names=class_names(config, classes),
        pre_logits=pooler[0] if pooler else None,
    )
    model = ViT(made, execution)
    leaves = name_map(prefix).read(tensors, families.variable_shapes(model))
    return model, families.loaded(model, leaves)


def why_not(model: Any, variables: families.Variables) -> str | None:
    """Why the model has no Hugging Face form; None when it has."""
    if type(model) is not ViT:
        return "it is no ViT"
    if model.config.positions != "learned":
        return f"its positions are {model.config.positions!r}"
    return vit_config.inexpressible(model.config)


def save(model: ViT, variables: families.Variables, path: Any, tokenizer: Any = None) -> None:
    """Writes a folder that transformers' ViT classes load.

    Raises:
        WeightsError: a model that has no form there, or variables that do not fit it.
    """
    if reason := why_not(model, variables):
        raise WeightsError(
            f"cannot save as ViT: {reason}; the format 'jaxformers' keeps everything"
        )
    prefix, kind = (
        (PREFIX, "ViTForImageClassification") if model.config.classes else ("", "ViTModel")
    )
    tensors = name_map(prefix).write(families.published(model, variables))
    files = {
        folder.WEIGHTS: folder.to_bytes(tensors),
        folder.CONFIG: folder.json_bytes(vit_config.write_encoder(model.config, MODEL_TYPE, kind)),
    }
    folder.write_folder(path, files, tokenizer)
