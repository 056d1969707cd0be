"""BiT as Hugging Face publishes it, in and out, and as Google does, in `.npz` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import BiT, BiTConfig
from jaxformers.pretrained.family import (
    Family,
    HuggingFaceFormat,
    SingleFileFormat,
    Variables,
    image_inputs,
)
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.image_config import (
    RESIDUAL_FINE_TUNING,
    head_classes,
    read_residual,
    shrink_residual,
    write_residual,
)
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, TensorSource
from jaxformers.pretrained.mapping.torch_names import convolution, linear, norm
from jaxformers.pretrained.mapping.transforms import Lead, Shape
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

MODEL_TYPE = "bit"
PREFIX, HEAD = "bit.", "classifier.1"
HUGGING_FACE_EPSILON = 1e-8
FINE_TUNING_SIDE = 480  # of the images on which BiT is fine-tuned, in pixels
# What the network would be with another value, we do not have.
ONLY = {
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
    "width_factor": 1,
}
ROOT = "resnet/root_block/standardized_conv2d/kernel"


def name_map(config: BiTConfig, prefix: str) -> NameMap:
    """Hugging Face's names; `prefix` stands before those of the network without its head."""
    entries = [convolution(f"{prefix}embedder.convolution", "stem/conv")]
    entries += _norm(f"{prefix}norm", "norm")
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs = f"{prefix}encoder.stages.{stage}.layers.{block}"
            ours = f"stages_{stage}/blocks_{block}"
            entries.append(convolution(f"{theirs}.downsample.conv", f"{ours}/shortcut_conv"))
            for i in range(3):
                entries += _norm(f"{theirs}.norm{i + 1}", f"{ours}/units_{i}/norm")
                entries.append(convolution(f"{theirs}.conv{i + 1}", f"{ours}/units_{i}/conv"))
    head = (entry.under("", "params/") for entry in linear(HEAD, "head"))
    return NameMap((*entries, *head))


def _norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    return tuple(entry.under("", "params/") for entry in norm(theirs, ours))


def google_map(config: BiTConfig) -> NameMap:
    """The names of Google's files."""

    def kernel(theirs: str, ours: str) -> Entry:
        return Entry(f"resnet/{theirs}/standardized_conv2d/kernel", f"params/{ours}/kernel")

    def scale(theirs: str, ours: str) -> tuple[Entry, ...]:
        names = (("gamma", "scale"), ("beta", "bias"))
        return tuple(Entry(f"resnet/{theirs}/{a}", f"params/{ours}/{b}") for a, b in names)

    entries = [kernel("root_block", "stem/conv"), *scale("group_norm", "norm")]
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs = f"block{stage + 1}/unit{block + 1:02d}"
            ours = f"stages_{stage}/blocks_{block}"
            entries.append(kernel(f"{theirs}/a/proj", f"{ours}/shortcut_conv"))
            for i, letter in enumerate("abc"):
                entries += scale(f"{theirs}/{letter}/group_norm", f"{ours}/units_{i}/norm")
                entries.append(kernel(f"{theirs}/{letter}", f"{ours}/units_{i}/conv"))
    entries.append(Entry("resnet/head/conv2d/kernel", "params/head/kernel", Lead(2)))
    entries.append(Entry("resnet/head/conv2d/bias", "params/head/bias"))
    return NameMap(tuple(entries))


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[BiT, dict[str, Any]]:
    """The model in a folder of Hugging Face's, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, PREFIX)
    classes = head_classes(tensors, f"{HEAD}.weight")
    model = BiT(read_config(fields, classes), execution)
    return read_model(model, name_map(model.config, prefix), tensors)


def read_config(fields: Fields, classes: int) -> BiTConfig:
    """The configuration of a published folder, whose head has that many classes.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    for name, required in ONLY.items():
        fields.require(name, required)
    if fields.rate("drop_path_rate", 0.0):
        raise fields.refuse("drop_path_rate", "and only 0 is supported")
    shared = read_residual(fields, classes)
    if any(width % 32 for width in shared["widths"]):
        raise fields.refuse("hidden_sizes", "and only multiples of 32 are supported")
    groups, epsilon = fields.size("num_groups", 32), HUGGING_FACE_EPSILON
    config_of_file = fields.make(
        BiTConfig, groups=groups, standardisation_epsilon=epsilon, **shared
    )
    return config_of_file.drop_default_widths()


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's tensors are a BiT's by Google's names."""
    return ROOT in map(_plain, shapes)


def load_file(
    source: TensorSource, execution: Execution = DEFAULT_EXECUTION
) -> tuple[BiT, dict[str, Any]]:
    """The model in one of Google's files, whose shapes tell its size.

    Raises:
        WeightsError: tensors that no BiT has.
    """
    model = BiT(read_file_config(source), execution)
    return read_model(model, google_map(model.config), _Renamed(source))


def read_file_config(source: TensorSource) -> BiTConfig:
    """The configuration that a file's shapes tell.

    Raises:
        WeightsError: tensors that no BiT has.
    """
    try:
        return _from_shapes(_Renamed(source).shapes)
    except (ConfigError, KeyError, IndexError, ValueError):
        raise WeightsError(f"{source.place}: its tensors make no BiT") from None


class _Renamed:
    """A file some of whose convolutions are numbered: `standardized_conv2d_17`."""

    def __init__(self, source: TensorSource):
        self.place, self._source = source.place, source
        self._names = {_plain(name): name for name in source.shapes}
        if len(self._names) != len(source.shapes):
            raise WeightsError(f"{source.place}: two of its tensors stand for the same convolution")
        self.shapes = {plain: source.shapes[name] for plain, name in self._names.items()}

    def read(self, name: str):
        return self._source.read(self._names[name])


def _plain(name: str) -> str:
    return re.sub(r"standardized_conv2d_\d+", "standardized_conv2d", name)


def _from_shapes(shapes: Mapping[str, Shape]) -> BiTConfig:
    kernels = [re.match(r"resnet/block(\d+)/unit(\d+)/c/stand", name) for name in shapes]
    units = {(int(match[1]), int(match[2])) for match in kernels if match}
    stages = range(1, 1 + max(stage for stage, _ in units))
    last = "resnet/block{}/unit01/c/standardized_conv2d/kernel"
    head = shapes.get("resnet/head/conv2d/kernel")
    _, _, channels, width = shapes[ROOT]
    return BiTConfig(
        channels=channels,
        classes=head[3] if head else 0,
        depths=tuple(sum(stage == s for stage, _ in units) for s in stages),
        width=width,
        widths=tuple(shapes[last.format(stage)][3] for stage in stages),
    ).drop_default_widths()


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no Hugging Face form; None when it has."""
    if type(model) is not BiT:
        return "it is no BiT"
    config, epsilon = model.config, HUGGING_FACE_EPSILON
    if config.norm_epsilon != 1e-5:
        return "its norms' epsilon is not 1e-5"
    if config.standardisation_epsilon != epsilon:
        return f"standardisation_epsilon is {config.standardisation_epsilon}, and {epsilon} there"
    if any(width % 32 for width in config.stage_widths):
        return "a stage's width is no multiple of 32"
    return None


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' Bit classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    prefix = PREFIX if model.config.classes else ""
    tensors = name_map(model.config, prefix).write(unpadded_arrays(model, variables))
    return tensors, {safetensors_folder.CONFIG: write_config(model.config)}


def write_config(config: BiTConfig) -> dict[str, Any]:
    """`config.json` of a configuration that Hugging Face's form can express."""
    architecture = "BitForImageClassification" if config.classes else "BitModel"
    return (
        {"model_type": MODEL_TYPE, "architectures": [architecture], "dtype": "float32"}
        | ONLY
        | write_residual(config)
        | {"num_groups": config.groups, "drop_path_rate": 0.0}
    )


BIT = Family(
    "bit",
    BiTConfig,
    {"bit": BiT},
    image_inputs,
    takes_images=True,
    sized_encoder=lambda config: config,
    uses={"classify_images": (BiT,)},
    fine_tuning=RESIDUAL_FINE_TUNING,
    shrink=lambda config: shrink_residual(config, groups=8),
    formats=(
        HuggingFaceFormat(MODEL_TYPE, "BiT", load, unsupported_reason, write),
        SingleFileFormat(
            recognises, read_file_config, load_file, lambda config: Preprocessing(FINE_TUNING_SIDE)
        ),
    ),
)
