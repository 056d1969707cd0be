"""ResNets by the names of torchvision, which timm shares: timm's folders and single files.

A single file says nothing but names and shapes; it is taken for torchvision's network: ReLU,
average pooling, and the stride in a bottleneck's 3x3 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import ResNet, ResNetConfig
from jaxformers.pretrained.formats.safetensors_folder import Tensors
from jaxformers.pretrained.image_config import head_classes
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, TensorSource
from jaxformers.pretrained.mapping.torch_names import linear, normed_convolution
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, read_model
from jaxformers.pretrained.timm.timm_args import TimmArgs

CLASSES = ("ResNet",)
STEM_TYPES = ("", "deep", "deep_tiered")
BLOCKS = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}
# Arguments with one supported value, timm's default.
ONLY: dict[str, Any] = {
    "aa_layer": None,
    "base_width": 64,
    "block_args": None,
    "block_reduce_first": 1,
    "cardinality": 1,
    "down_kernel_size": 1,
    "norm_layer": "BatchNorm2d",
    "output_stride": 32,
    "replace_stem_pool": False,
}
UNDERSTOOD = {
    *ONLY,
    "act_layer",
    "avg_down",
    "block",
    "channels",
    "global_pool",
    "in_chans",
    "layers",
    "num_classes",
    "stem_type",
    "stem_width",
}
STEM_WIDTH = 64  # of timm's plain stem, whatever its `stem_width`


def torchvision_map(config: ResNetConfig) -> NameMap:
    """The names of torchvision, which timm shares."""
    entries = list(_stem(config))
    # timm's first module in an averaging shortcut is the pooling.
    convolution, norm = (1, 2) if config.average_down else (0, 1)
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            theirs, ours = f"layer{stage + 1}.{block}", f"stages_{stage}/blocks_{block}"
            for i in range(2 if config.block == "basic" else 3):
                names = f"{theirs}.conv{i + 1}", f"{theirs}.bn{i + 1}"
                entries += normed_convolution(*names, f"{ours}/units_{i}")
            names = f"{theirs}.downsample.{convolution}", f"{theirs}.downsample.{norm}"
            entries += normed_convolution(*names, f"{ours}/shortcut")
    head = (entry.under("", "params/") for entry in linear("fc", "head"))
    return NameMap((*entries, *head), ignored=(r".*\.num_batches_tracked",))


def _stem(config: ResNetConfig) -> tuple[Entry, ...]:
    if config.stem != "deep":
        return normed_convolution("conv1", "bn1", "stem")
    units = ("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")
    return tuple(
        entry
        for i, names in enumerate(units)
        for entry in normed_convolution(*names, f"stem/units_{i}")
    )


def load_folder(
    folder: epath.Path, args: TimmArgs, execution: Execution = DEFAULT_EXECUTION
) -> tuple[ResNet, dict[str, Any]]:
    """The model in a folder of timm's, as its architecture and arguments say.

    Raises:
        WeightsError: an argument that is not supported, or tensors that do not fit; one line.
    """
    source = Tensors(folder)
    try:
        config = config_from_args(args, source)
    except ConfigError as error:
        raise WeightsError(f"{args.place}: {error}") from None
    return read_model(ResNet(config, execution), torchvision_map(config), source)


def config_from_args(args: TimmArgs, source: TensorSource) -> ResNetConfig:
    """The configuration of timm's model with these arguments.

    Raises:
        ConfigError, WeightsError: arguments that are not supported, or do not suit each other.
    """
    args.check_names(UNDERSTOOD)
    for name, value in ONLY.items():
        args.only(name, value)
    block = args.choice("block", "", tuple(BLOCKS))
    classes = head_classes(source, "fc.weight")
    expansion = 4 if block == "Bottleneck" else 1
    stem_type = args.choice("stem_type", "", STEM_TYPES)
    stem_width = args.size("stem_width", STEM_WIDTH)
    first_width = 3 * (stem_width // 4) if stem_type == "deep_tiered" else stem_width
    return ResNetConfig(
        image_size=args.input_side(),
        channels=args.size("in_chans", args.input_channels()),
        classes=classes,
        class_names=args.class_names(classes),
        block=BLOCKS[block],
        depths=args.sizes("layers"),
        stem="deep" if stem_type else "imagenet",
        stem_widths=(first_width, stem_width) if stem_type else (32, 32),
        width=2 * stem_width if stem_type else STEM_WIDTH,
        average_down=args.flag("avg_down", False),
        widths=tuple(expansion * n for n in args.sizes("channels", (64, 128, 256, 512))),
        activation=args.activation("relu"),
        pooling=args.pooling("avg", ("avg", "max", "avgmax")),
    ).drop_default_widths()


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's tensors are a ResNet's by torchvision's or timm's names."""
    return {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"} <= shapes.keys()


def load_file(
    source: TensorSource, execution: Execution = DEFAULT_EXECUTION
) -> tuple[ResNet, dict[str, Any]]:
    """The model in a file of torchvision's or timm's names, whose shapes tell its size.

    Raises:
        WeightsError: tensors that no ResNet of ours has.
    """
    model = ResNet(read_file_config(source), execution)
    return read_model(model, torchvision_map(model.config), source)


def read_file_config(source: TensorSource) -> ResNetConfig:
    """The configuration that a file's shapes tell.

    Raises:
        WeightsError: tensors that no ResNet of ours has.
    """
    try:
        return _from_shapes(source.shapes)
    except (ConfigError, KeyError, IndexError, ValueError):
        raise WeightsError(f"{source.place}: its tensors make no ResNet") from None


def _from_shapes(shapes: Mapping[str, Shape]) -> ResNetConfig:
    blocks = [re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name) for name in shapes]
    units = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = tuple(
        sum(stage == s for stage, _ in units) for s in range(1, 1 + max(s for s, _ in units))
    )
    block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    width, channels, _, _ = shapes["conv1.weight"]
    return ResNetConfig(
        channels=channels,
        classes=shapes["fc.weight"][0] if "fc.weight" in shapes else 0,
        block=block,
        depths=depths,
        width=width,
        widths=tuple(shapes[f"layer{s + 1}.0.{last}.weight"][0] for s in range(len(depths))),
    ).drop_default_widths()
