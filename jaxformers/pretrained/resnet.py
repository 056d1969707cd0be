"""ResNets as Hugging Face publishes them, in and out, and the family of all their formats."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution
from jaxformers.models import ResNet, ResNetConfig
from jaxformers.pretrained import resnet_timm
from jaxformers.pretrained.family import (
    Family,
    HuggingFaceFormat,
    SingleFileFormat,
    TimmFormat,
    Variables,
    image_inputs,
)
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.image_config import (
    RESIDUAL_FINE_TUNING,
    head_classes,
    imagenet_preprocessing,
    read_residual,
    shrink_residual,
    write_residual,
)
from jaxformers.pretrained.mapping.config_fields import Fields, activation_name
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear, normed_convolution
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

MODEL_TYPE = "resnet"
PREFIX, HEAD = "resnet.", "classifier.1"
TRACKED = "num_batches_tracked"
STRIDE_FIRST, HALVE_FIRST = "downsample_in_bottleneck", "downsample_in_first_stage"


def name_map(config: ResNetConfig, prefix: str) -> NameMap:
    """Hugging Face's names; `prefix` stands before those of the network without its head."""

    def unit(theirs: str, ours: str) -> tuple[Entry, ...]:
        return normed_convolution(f"{theirs}.convolution", f"{theirs}.normalization", ours)

    entries = [*unit(f"{prefix}embedder.embedder", "stem")]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs = f"{prefix}encoder.stages.{stage}.layers.{block}"
            ours = f"stages_{stage}/blocks_{block}"
            for i in range(2 if config.block == "basic" else 3):
                entries += unit(f"{theirs}.layer.{i}", f"{ours}/units_{i}")
            entries += unit(f"{theirs}.shortcut", f"{ours}/shortcut")
    head = (entry.under("", "params/") for entry in linear(HEAD, "head"))
    return NameMap((*entries, *head), ignored=(rf".*\.{TRACKED}",))


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[ResNet, dict[str, Any]]:
    """The model in a folder of Hugging Face's, and its variables, running statistics included.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, PREFIX)
    classes = head_classes(tensors, f"{HEAD}.weight")
    model = ResNet(read_config(fields, classes), execution)
    return read_model(model, name_map(model.config, prefix), tensors)


def read_config(fields: Fields, classes: int) -> ResNetConfig:
    """The configuration of a published folder, whose head has that many classes.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    if (block := fields.content.get("layer_type", "bottleneck")) not in ("basic", "bottleneck"):
        raise fields.refuse("layer_type", "neither 'basic' nor 'bottleneck'")
    shared = read_residual(fields, classes)
    # Basic blocks have no such choice, whatever the file says.
    first = fields.flag(STRIDE_FIRST) and block == "bottleneck"
    stem = "imagenet_halved" if fields.flag(HALVE_FIRST) else "imagenet"
    shared |= dict(activation=fields.activation("hidden_act", "relu"))
    config_of_file = fields.make(ResNetConfig, block=block, stem=stem, stride_first=first, **shared)
    return config_of_file.drop_default_widths()


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no Hugging Face form; None when it has."""
    if type(model) is not ResNet:
        return "it is no ResNet"
    config = model.config
    if config.stem in ("small", "deep"):
        return f"the stem {config.stem!r} has no name there"
    if config.average_down:
        return "its shortcuts average before they project"
    if config.pooling != "average":
        return f"its pooling {config.pooling!r} has no name there"
    if config.norm_epsilon != 1e-5:
        return "its norms' epsilon is not 1e-5"
    return None


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' ResNet classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    prefix = PREFIX if model.config.classes else ""
    tensors = name_map(model.config, prefix).write(unpadded_arrays(model, variables))
    means = [name for name in tensors if name.endswith(".running_mean")]
    counts = {name.replace("running_mean", TRACKED): np.zeros((), np.int64) for name in means}
    return tensors | counts, {safetensors_folder.CONFIG: write_config(model.config)}


def write_config(config: ResNetConfig) -> dict[str, Any]:
    """`config.json` of a configuration that Hugging Face's form can express."""
    architecture = "ResNetForImageClassification" if config.classes else "ResNetModel"
    return (
        {"model_type": MODEL_TYPE, "architectures": [architecture], "dtype": "float32"}
        | write_residual(config)
        | {"layer_type": config.block, "hidden_act": activation_name(config.activation)}
        | {STRIDE_FIRST: config.stride_first, HALVE_FIRST: config.stem == "imagenet_halved"}
    )


RESNET = Family(
    "resnet",
    ResNetConfig,
    {"resnet": ResNet},
    image_inputs,
    takes_images=True,
    sized_encoder=lambda config: config,
    uses={"classify_images": (ResNet,)},
    fine_tuning=RESIDUAL_FINE_TUNING,
    shrink=shrink_residual,
    formats=(
        HuggingFaceFormat(MODEL_TYPE, "ResNet", load, unsupported_reason, write),
        TimmFormat(resnet_timm.CLASSES, resnet_timm.load_folder),
        SingleFileFormat(
            resnet_timm.recognises,
            resnet_timm.read_file_config,
            resnet_timm.load_file,
            lambda config: imagenet_preprocessing(config.image_size),
        ),
    ),
)
