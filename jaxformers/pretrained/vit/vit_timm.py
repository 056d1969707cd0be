"""ViT and MAE in single files by timm's names, which those of MAE's and DeiT's authors are too.

Fixed tables of positions, which MAE's files hold, are known by their numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import MAE, MAEConfig, ViT, ViTConfig
from jaxformers.pretrained.mapping.name_map import NameMap, TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
)
from jaxformers.pretrained.vit.vit_mae import FIXED, is_fixed
from jaxformers.pretrained.vit.vit_names import TIMM

KERNEL, TABLE, DECODER_TABLE = "patch_embed.proj.weight", "pos_embed", "decoder_pos_embed"
# A width does not tell its heads: timm's and MAE's models have heads of 64 but for the largest.
HEAD_WIDTH, HEADS = 64, {1152: 16, 1280: 16, 1408: 16, 1664: 16}
DECODER_HEAD_WIDTH = 32


def name_map(fixed: bool) -> NameMap:
    """The names; `fixed`: whether the tables are MAE's sines, which we do not keep."""
    entries = tuple(entry.under("", "params/") for entry in TIMM)
    return NameMap(entries, ignored=(TABLE, DECODER_TABLE) if fixed else ())


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's tensors are a ViT's or an MAE's by timm's names."""
    return {KERNEL, "blocks.0.attn.qkv.weight"} <= shapes.keys()


def load_file(
    source: TensorSource, execution: Execution = DEFAULT_EXECUTION
) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a file, an `MAE` if it has a decoder; GELU is exact, epsilon 1e-6.

    Raises:
        WeightsError: tensors that no ViT of ours has; one line.
    """
    config = read_file_config(source)
    has_decoder = isinstance(config, MAEConfig)
    model = MAE(config, execution) if has_decoder else ViT(config, execution)
    fixed = (config.encoder if has_decoder else config).positions == FIXED
    return read_model(model, name_map(fixed), source)


def read_file_config(source: TensorSource) -> ViTConfig | MAEConfig:
    """The configuration that a file's shapes and tables of positions tell.

    Raises:
        WeightsError: tensors that no ViT of ours has; one line.
    """
    try:
        encoder = _encoder(source)
        return _whole(encoder, source.shapes) if "mask_token" in source.shapes else encoder
    except ConfigError as error:
        raise WeightsError(f"{source.place}: {error}") from None
    except (KeyError, IndexError, ValueError):
        raise WeightsError(f"{source.place}: its tensors make no ViT") from None


def _encoder(source: TensorSource) -> ViTConfig:
    shapes = source.shapes
    width, channels, patch, _ = shapes[KERNEL]
    if width % HEAD_WIDTH:
        raise ConfigError(f"a width of {width} does not tell how many heads it has")
    token, head = "cls_token" in shapes, "head.weight" in shapes
    grid = math.isqrt(shapes[TABLE][1] - token)
    averages = "fc_norm.weight" in shapes
    fields = dict(
        image_size=grid * patch,
        patch_size=patch,
        channels=channels,
        width=width,
        heads=HEADS.get(width, width // HEAD_WIDTH),
        feed_forward=shapes["blocks.0.mlp.fc1.weight"][0],
        layers=_count(shapes, "blocks"),
        class_token=token,
        pooling="average" if averages or not token else "class",
        head_norm=averages,
        pre_logits=shapes["pre_logits.fc.bias"][0] if "pre_logits.fc.bias" in shapes else None,
        classes=shapes["head.weight"][0] if head else 0,
        activation="gelu",
    )
    fixed = not head and is_fixed(source, TABLE, ViTConfig(**fields), width)
    return ViTConfig(**fields, positions=FIXED if fixed else "learned")


def _whole(encoder: ViTConfig, shapes: Mapping[str, Shape]) -> MAEConfig:
    width = shapes["mask_token"][-1]
    if width % DECODER_HEAD_WIDTH:
        raise ConfigError(f"a decoder's width of {width} does not tell how many heads it has")
    return MAEConfig(
        encoder,
        decoder_width=width,
        decoder_heads=width // DECODER_HEAD_WIDTH,
        decoder_feed_forward=shapes["decoder_blocks.0.mlp.fc1.weight"][0],
        decoder_layers=_count(shapes, "decoder_blocks"),
    )


def _count(shapes: Mapping[str, Shape], stack: str) -> int:
    matches = (re.match(rf"{stack}\.(\d+)\.", name) for name in shapes)
    return len({match[1] for match in matches if match})
