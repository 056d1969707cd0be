"""Loading and saving models in every format of the registered families."""

from __future__ import annotations

import os
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from etils import epath

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.errors import WeightsError, did_you_mean, printable
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.pretrained.family import FolderFormat, LoadedModel, TimmFormat, Variables
from jaxformers.pretrained.formats import native_format, safetensors_folder, single_file
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.mapping.position_resize import at_image_size
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, flatten, unflatten
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.pretrained.text_folder import use_files
from jaxformers.pretrained.timm.timm_args import (
    folder_of_timm_weights,
    is_timm_config,
    read_timm_args,
)
from jaxformers.text import Tokenizer

AUTO = "auto"


def load_pretrained(
    path_or_name: Any,
    execution: Execution = DEFAULT_EXECUTION,
    *,
    image_size: int | tuple[int, int] | None = None,
    weights: str | None = None,
) -> LoadedModel:
    """The model in published weights and its variables `{"params": ...}`, float32 `jax.Array`s.

    Args:
        path_or_name: a folder (local or gs://) whose `config.json` says MarianMT, BERT, RoBERTa,
            XLM-RoBERTa, CamemBERT, DistilBERT, BiT, ResNet, ViT, DeiT, DINOv2, ViTMAE, another
            registered family or our own format; one of Google's TensorFlow checkpoints of BERT
            with its `bert_config.json`; a `.npz` or `.safetensors` file of image weights by the
            names of Google, torchvision or timm; one of Unified-IO's `.bin` files; timm's folder;
            or a model's name on Hugging Face's hub: "org/name" or "org/name@revision".
        execution: how the model computes; its padded vocabulary is put in.
        image_size: side, or height and width, of the images that a model is to take, its positions
            resized as their publisher does; None: that of the weights.
        weights: which of several sets of weights in a file of a training run, such as "model_ema";
            None: the file holds one.

    Raises:
        WeightsError: no such model, one that is not supported, damaged files, tensors that do not
            fit. One line that names them; nothing is loaded in part.
    """
    if weights is None and (timm_folder := folder_of_timm_weights(path_or_name)):
        path_or_name = timm_folder
    if single_file.is_single_file(path_or_name):
        model, variables = single_file.load(path_or_name, execution, weights)
    elif weights is not None:
        raise WeightsError(
            f"{path_or_name} is a folder, which holds one set of weights: weights={weights!r} "
            "chooses in a file"
        )
    else:
        model, variables = load_folder(resolve(path_or_name), execution)
    if image_size is not None:
        model, variables = at_image_size(model, variables, image_size)
    return model, _as_jax_arrays(variables)


def _as_jax_arrays(variables: dict[str, Any]) -> dict[str, Any]:
    """The same tree of `jax.Array`s; each NumPy array is released as soon as it is converted."""
    leaves = flatten(variables)
    variables.clear()
    return unflatten({path: jnp.asarray(leaves.pop(path)) for path in list(leaves)})


def load_folder(folder: epath.Path, execution: Execution) -> LoadedModel:
    """The model in a local folder, and its variables as NumPy arrays.

    Raises:
        WeightsError: as for `load_pretrained`.
    """
    if folder_format := _folder_format(folder):
        return folder_format.load(folder, execution)
    config = safetensors_folder.read_json(folder / safetensors_folder.CONFIG)
    if is_timm_config(config):
        args = read_timm_args(folder)
        timm_formats = registry.formats(TimmFormat)
        timm_format = next(f for f in timm_formats if args.model_class in f.model_classes)
        return timm_format.load(folder, args, execution)
    if config.get("format") == native_format.FORMAT:
        return native_format.load(folder, execution)
    formats = registry.huggingface_formats()
    model_type = config.get("model_type")
    if model_type is None:
        untyped = (name for name, entry in formats.items() if entry.recognises_untyped(config))
        model_type = next(untyped, None)
    if not isinstance(model_type, str) or model_type not in formats:
        raise WeightsError(_unsupported(model_type, folder / safetensors_folder.CONFIG))
    return formats[model_type].load(folder, execution)


def tokenizer_source(folder: epath.Path) -> Any:
    """What `save_pretrained` takes as the tokenizer of a published folder.

    The folder, whose files are copied; in a format with tokenizer rules that the copied files
    would not state, the loaded tokenizer; None: it has none.
    """
    folder_format = _folder_format(folder)
    return folder_format.load_tokenizer(folder) if folder_format else folder


def save_pretrained(
    model: nn.Module,
    variables: Variables,
    path: Any,
    format: str = AUTO,
    *,
    tokenizer: Any = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Writes a folder that `load_pretrained` reads.

    Args:
        model: a model of a registered family.
        variables: its variables; float32 is written, on one host.
        path: the folder; files in it of other names stay.
        format: a `model_type` of Hugging Face's ("marian", "bert", "roberta", "xlm-roberta",
            "camembert", "distilbert", "bit", "resnet", "vit", "deit", "dinov2",
            "dinov2_with_registers", "vit_mae", "clip", "siglip", towers such as "clip_text_model",
            registered plug-ins); "open_clip", "vqgan" or "unified_io" for those publishers' files;
            "jaxformers" for our own; "auto" for Hugging Face's where that is exact, else our own.
        tokenizer: a `text.Tokenizer`, or a folder whose tokenizer files are copied in, with those
            that state its sentence embeddings. Files of an earlier tokenizer are removed.
        preprocessing: of an image model, as `load_images` gives it; None: none is written.

    Raises:
        WeightsError: no such format, a model that it cannot express, variables that do not fit the
            model, or a folder that cannot be written.

    Example:
        >>> model, variables = jf.from_pretrained("google/vit-base-patch16-224")
        >>> jf.save_pretrained(model, variables, "my-vit")
        >>> same_model, same_variables = jf.from_pretrained("my-vit")
    """
    if isinstance(tokenizer, Tokenizer):
        registry.check_tokenizer(model, tokenizer, "the model to be saved")
    elif isinstance(tokenizer, str | os.PathLike):
        tokenizer = use_files(tokenizer)
    formats = registry.huggingface_formats()
    if format not in (choices := (AUTO, *formats, native_format.FORMAT)):
        raise WeightsError(registry.no_such("format", format, choices))
    if format == AUTO:
        exact = (
            n for n, entry in formats.items() if not entry.unsupported_reason(model, variables)
        )
        format = next(exact, native_format.FORMAT)
    if format == native_format.FORMAT:
        native_format.save(model, variables, path, tokenizer)
    elif reason := formats[format].unsupported_reason(model, variables):
        raise WeightsError(
            f"cannot save as {formats[format].title}: {reason}; "
            f"the format {native_format.FORMAT!r} keeps everything"
        )
    else:
        tensors, files = formats[format].write(model, variables)
        write_weights = formats[format].write_weights
        safetensors_folder.write_folder(
            path, tensors, files, tokenizer, write_weights, formats[format].tokenizer_settings
        )
    if preprocessing is not None:
        write_preprocessing(preprocessing, epath.Path(path).expanduser())


def _folder_format(folder: epath.Path) -> FolderFormat | None:
    entries = registry.formats(FolderFormat)
    return next((entry for entry in entries if entry.recognises(folder)), None)


def _unsupported(model_type: Any, path: epath.Path) -> str:
    names = list(registry.huggingface_formats())
    listed = ", ".join(map(repr, names))
    if not isinstance(model_type, str):
        return f"{path} has no model_type, so it is no published model ({listed} is supported)"
    hint = did_you_mean(model_type, names)
    return f"{path}: model_type {printable(repr(model_type))} is not supported, {listed} is{hint}"
