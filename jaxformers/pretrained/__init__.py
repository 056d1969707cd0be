"""Published weights in and out: Hugging Face's folders and hub, and our own format."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import bit, resnet
from jaxformers.pretrained.backbone import load_backbone
from jaxformers.pretrained.bert import bert_config, bert_google, bert_hf
from jaxformers.pretrained.formats import native_format, safetensors_folder, single_file
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.formats.torch_file import torch_to_safetensors
from jaxformers.pretrained.mapping.position_resize import at_image_size, resize_positions
from jaxformers.pretrained.marian import marian_config, marian_hf
from jaxformers.pretrained.registry import PLAIN, Variables
from jaxformers.pretrained.vit import vit_hf, vit_mae

__all__ = [
    "at_image_size",
    "load_backbone",
    "load_pretrained",
    "resize_positions",
    "save_pretrained",
    "torch_to_safetensors",
]

Format = Literal["auto", "marian", "bert", "bit", "resnet", "vit", "vit_mae", "jaxformers"]
# Modules with `load`, `why_not` (the reason, or None), `write` and a title for messages.
PUBLISHED = {
    marian_config.MODEL_TYPE: marian_hf,
    bert_config.MODEL_TYPE: bert_hf,
    bit.MODEL_TYPE: bit,
    resnet.MODEL_TYPE: resnet,
    vit_hf.MODEL_TYPE: vit_hf,
    vit_mae.MODEL_TYPE: vit_mae,
}


def load_pretrained(
    path_or_name: Any, execution: Execution = PLAIN, *, image_size: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a published folder and its variables `{"params": ...}`, float32 `jax.Array`s.

    Args:
        path_or_name: a folder (local or gs://) whose `config.json` says MarianMT, BERT, BiT,
            ResNet, ViT, ViTMAE or our own format; one of Google's TensorFlow checkpoints of BERT
            with its `bert_config.json`; a `.npz` or `.safetensors` file of image weights
            by the names of Google, torchvision or timm (or timm's folder); or a model's name on
            Hugging Face's hub: "org/name" or "org/name@revision".
        execution: how the model computes; its padded vocabulary is put in.
        image_size: side of the square images that an image model is to take, its positions
            resized as their publisher does; None: that of the weights.

    Raises:
        WeightsError: no such model, one that is not supported, damaged files, tensors that do not
            fit. One line that names them; nothing is loaded in part.
    """
    model, variables = _load(path_or_name, execution)
    if image_size is not None:
        model, variables = at_image_size(model, variables, image_size)
    return model, jax.tree.map(jnp.asarray, variables)


def _load(path_or_name: Any, execution: Execution) -> tuple[nn.Module, dict[str, Any]]:
    if single_file.is_single_file(path_or_name):
        return single_file.load(path_or_name, execution)
    path = resolve(path_or_name)
    if bert_google.recognises(path):
        return bert_google.load(path, execution)
    config = safetensors_folder.read_json(path / safetensors_folder.CONFIG)
    if {"architecture", "pretrained_cfg"} <= config.keys():  # timm's, whose shapes tell the rest
        return single_file.load(path / safetensors_folder.WEIGHTS, execution)
    if config.get("format") == native_format.FORMAT:
        load = native_format.load
    elif (kind := bert_config.model_type(config)) in PUBLISHED:
        load = PUBLISHED[kind].load
    else:
        raise WeightsError(_unsupported(kind, path / safetensors_folder.CONFIG))
    return load(path, execution)


def save_pretrained(
    model: nn.Module,
    variables: Variables,
    path: Any,
    format: Format = "auto",
    *,
    tokenizer: Any = None,
) -> None:
    """Writes a folder that `load_pretrained` reads.

    Args:
        model: a model of the library.
        variables: its variables; float32 is written, on one host.
        path: the folder; files in it of other names stay.
        format: "marian", "bert", "bit" and "resnet" for what Hugging Face's classes load;
            "jaxformers" for our own, which keeps everything; "auto" for Hugging Face's where that
            is exact.
        tokenizer: a `text.Tokenizer`, or a folder whose tokenizer files are copied in.

    Raises:
        WeightsError: a model that the format cannot express, variables that do not fit the model,
            or a folder that cannot be written.
    """
    if format not in ("auto", *PUBLISHED, native_format.FORMAT):
        known = ", ".join(("auto", *PUBLISHED))
        raise WeightsError(f"no format {format!r}: choose {known} or {native_format.FORMAT}")
    if format == "auto":
        exact = (name for name, each in PUBLISHED.items() if not each.why_not(model, variables))
        format = next(exact, native_format.FORMAT)
    if format == native_format.FORMAT:
        return native_format.save(model, variables, path, tokenizer)
    kind = PUBLISHED[format]
    if reason := kind.why_not(model, variables):
        raise WeightsError(
            f"cannot save as {kind.TITLE}: {reason}; "
            f"the format {native_format.FORMAT!r} keeps everything"
        )
    safetensors_folder.write_folder(path, *kind.write(model, variables), tokenizer)


def _unsupported(kind: Any, place: epath.Path) -> str:
    known = ", ".join(repr(name) for name in PUBLISHED)
    if not isinstance(kind, str):
        return f"{place} has no model_type, so it is no published model ({known} is supported)"
    close = difflib.get_close_matches(kind, PUBLISHED, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{place}: model_type {kind!r} is not supported, {known} is{hint}"
