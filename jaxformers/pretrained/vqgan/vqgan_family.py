"""VQGAN as a family: folders with the fields of the published configurations, and single files.

Tensors have taming-transformers' names in both. A file alone does not state the resolution that
attention stands at: it is taken to be 256, that of the published models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import VQGAN, VQGANConfig
from jaxformers.pretrained.family import (
    Family,
    HuggingFaceFormat,
    InputShapes,
    LoadedModel,
    SingleFileFormat,
    Variables,
)
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, read_model, unpadded_arrays
from jaxformers.pretrained.vqgan.vqgan_names import taming_map

MODEL_TYPE = "vqgan"
RESOLUTION = 256
LEVELS, BLOCKS = 16, 64
"""Levels, and residual blocks of each, beyond which a damaged file would only fill the memory."""
SIZES = (
    "embed_dim",
    "n_embed",
    "z_channels",
    "resolution",
    "in_channels",
    "out_ch",
    "ch",
    "num_res_blocks",
)


def load_folder(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a folder of `config.json` and safetensors.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, _ = open_folder(path, "")
    fields.require("double_z", False)
    model = VQGAN(read_config(fields), execution)
    return read_model(model, taming_map(model.config), tensors)


def read_config(fields: Fields) -> VQGANConfig:
    """The configuration of the published fields; `double_z`, which no VQGAN uses, is not read.

    Raises:
        WeightsError: a field that is malformed or out of range.
    """
    default = VQGANConfig.f16_1024()
    values: dict[str, Any] = {name: fields.size(name, getattr(default, name)) for name in SIZES}
    for name, most in (("ch_mult", LEVELS), ("attn_resolutions", LEVELS)):
        values[name] = _sizes(fields, name, getattr(default, name), most)
    if values["num_res_blocks"] > BLOCKS:
        raise fields.refuse("num_res_blocks", "larger than any model's")
    return fields.make(VQGANConfig, dropout=fields.rate("dropout", 0.0), **values)


def _sizes(fields: Fields, name: str, default: tuple[int, ...], most: int) -> tuple[int, ...]:
    sizes = fields.content.get(name, default)
    is_list = isinstance(sizes, list | tuple) and len(sizes) <= most
    if not is_list or not all(type(size) is int and 0 < size <= 1 << 16 for size in sizes):
        raise fields.refuse(name, f"not a list of at most {most} whole numbers above 0")
    return tuple(sizes)


def config_fields(config: VQGANConfig) -> dict[str, Any]:
    """The published fields of a configuration."""
    fields = {name: getattr(config, name) for name in (*SIZES, "dropout")}
    lists = {name: list(getattr(config, name)) for name in ("ch_mult", "attn_resolutions")}
    return {"double_z": False, **fields, **lists}


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why a model cannot be written with taming's names; None when it can."""
    if not isinstance(model, VQGAN):
        return f"{type(model).__name__} is no VQGAN"
    return other_norms(model.config)


def other_norms(config: VQGANConfig) -> str | None:
    """Why the published code, whose norms have 32 groups, cannot have the model; None: it can."""
    groups, published = config.norm_groups, VQGANConfig().norm_groups
    if groups == published:
        return None
    return f"its group norms have norm_groups={groups}, the published code's {published}"


def write(model: VQGAN, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors with taming's names, and `config.json`.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    tensors = taming_map(model.config).write(unpadded_arrays(model, variables))
    content = {"model_type": MODEL_TYPE, **config_fields(model.config)}
    return tensors, {safetensors_folder.CONFIG: content}


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's tensors are a VQGAN's by taming's names."""
    names = {"encoder.conv_in.weight", "quantize.embedding.weight", "post_quant_conv.weight"}
    return names <= shapes.keys()


def load_file(source: TensorSource, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a file of taming's names, whose shapes tell its size.

    Raises:
        WeightsError: tensors that no VQGAN of ours has.
    """
    model = VQGAN(read_file_config(source), execution)
    return read_model(model, taming_map(model.config), source)


def read_file_config(source: TensorSource) -> VQGANConfig:
    """The configuration that a file's shapes tell.

    Raises:
        WeightsError: tensors that no VQGAN of ours has.
    """
    try:
        return _from_shapes(source.shapes)
    except (ConfigError, KeyError, IndexError, ValueError, ZeroDivisionError):
        raise WeightsError(f"{source.place}: its tensors make no VQGAN") from None


def _from_shapes(shapes: Mapping[str, Shape]) -> VQGANConfig:
    blocks = [re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight$", n) for n in shapes]
    indices = [(int(match[1]), int(match[2])) for match in blocks if match]
    levels, depth = (1 + max(column) for column in zip(*indices, strict=True))
    if levels > LEVELS or depth > BLOCKS:
        raise ValueError("more levels or blocks than a model has")
    ch, in_channels, _, _ = shapes["encoder.conv_in.weight"]
    widths = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    resolution = max(RESOLUTION, 2 ** (levels - 1))
    attention = [i for i in range(levels) if f"encoder.down.{i}.attn.0.norm.weight" in shapes]
    n_embed, embed_dim = shapes["quantize.embedding.weight"]
    return VQGANConfig(
        embed_dim=embed_dim,
        n_embed=n_embed,
        z_channels=shapes["decoder.conv_in.weight"][1],
        resolution=resolution,
        in_channels=in_channels,
        out_ch=shapes["decoder.conv_out.weight"][0],
        ch=ch,
        ch_mult=tuple(width // ch for width in widths),
        num_res_blocks=depth,
        attn_resolutions=tuple(resolution // 2**i for i in attention),
    )


def inputs(config: VQGANConfig) -> InputShapes:
    """One image of as many pixels as one code stands for."""
    side = config.downsampling
    return (jax.ShapeDtypeStruct((1, side, side, config.in_channels), jnp.float32),)


def shrink(config: VQGANConfig) -> VQGANConfig:
    """Two levels of one block and 16 codes, for images of 24 pixels."""
    size = dict(embed_dim=8, n_embed=16, z_channels=8, resolution=24, ch=32, ch_mult=(1, 1))
    return replace(config, num_res_blocks=1, attn_resolutions=(), **size)


VQGAN_FAMILY = Family(
    "vqgan",
    VQGANConfig,
    {"vqgan": VQGAN},
    inputs,
    shrink=shrink,
    formats=(
        HuggingFaceFormat(
            MODEL_TYPE, "a VQGAN of taming-transformers", load_folder, unsupported_reason, write
        ),
        SingleFileFormat(recognises, read_file_config, load_file),
    ),
)
