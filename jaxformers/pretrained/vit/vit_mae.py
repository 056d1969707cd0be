"""MAE as Hugging Face publishes it, in and out: `ViTMAEForPreTraining` and `ViTMAEModel`.

Their files hold the tables of positions, which are fixed. A table that holds other numbers than
MAE's sines is read as a learned one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution, grid_sinusoids
from jaxformers.models import MAE, ViT, ViTConfig
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.mapping.name_map import NameMap, TensorSource
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)
from jaxformers.pretrained.vit import vit_config
from jaxformers.pretrained.vit.vit_names import DECODER, ENCODER

MODEL_TYPE = vit_config.MAE
PREFIX = "vit."
FIXED = vit_config.MAE_TABLE
CLOSE = 1e-4  # what float32 arithmetic elsewhere may make of the sines


def sines(config: ViTConfig, width: int) -> np.ndarray:
    """MAE's table `[1, L, width]` as files hold it; the class token's row, if any, is zero."""
    table = grid_sinusoids(*config.grid, width, "mae")
    return np.pad(table, ((config.prefix_rows, 0), (0, 0)))[None]


def is_fixed(source: TensorSource, name: str, config: ViTConfig, width: int) -> bool:
    """Whether the table of that name holds MAE's sines."""
    rows = config.prefix_rows + config.num_patches
    if source.shapes.get(name) != (1, rows, width) or width % 4:
        return False
    return bool(np.abs(source.read(name) - sines(config, width)).max() < CLOSE)


def name_map(prefix: str, fixed: bool) -> NameMap:
    """The names of a file; `fixed`: whether its tables are the sines, which we do not keep."""
    entries = (
        *(entry.under(prefix, "params/") for entry in ENCODER),
        *(entry.under("", "params/") for entry in DECODER),
    )
    tables = (rf"({PREFIX})?embeddings\.position_embeddings", r"decoder\.decoder_pos_embed")
    return NameMap(entries, ignored=tables if fixed else ())


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The MAE in a folder, or of an encoder alone the `ViT` without head, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, PREFIX)
    encoder = vit_config.read_encoder(fields, classes=0)
    has_decoder = "decoder.mask_token" in tensors.shapes
    fixed = is_fixed(tensors, f"{prefix}embeddings.position_embeddings", encoder, encoder.width)
    if has_decoder:
        width = fields.size(*vit_config.DECODER["decoder_width"])
        fixed = fixed and is_fixed(tensors, "decoder.decoder_pos_embed", encoder, width)
    if fixed:
        encoder = replace(encoder, positions=FIXED)
    model = (
        MAE(vit_config.read_mae(fields, encoder), execution)
        if has_decoder
        else ViT(encoder, execution)
    )
    return read_model(model, name_map(prefix, fixed), tensors)


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the model has no Hugging Face form; None when it has."""
    if type(model) is MAE:
        return vit_config.inexpressible(model.config.encoder)
    if type(model) is not ViT or model.config.classes or model.config.positions != FIXED:
        return "it is no MAE, nor an MAE's encoder without a head"
    if model.config.pre_logits:
        return "it has a layer after its encoder"
    return vit_config.inexpressible(model.config)


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' ViTMAE classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    has_decoder = type(model) is MAE
    encoder = model.config.encoder if has_decoder else model.config
    prefix, fixed = PREFIX if has_decoder else "", encoder.positions == FIXED
    tensors = name_map(prefix, fixed).write(unpadded_arrays(model, variables))
    if fixed:
        tensors[f"{prefix}embeddings.position_embeddings"] = sines(encoder, encoder.width)
        if has_decoder:
            tensors["decoder.decoder_pos_embed"] = sines(encoder, model.config.decoder_width)
    config = (
        vit_config.write_mae(model.config)
        if has_decoder
        else vit_config.write_encoder(encoder, MODEL_TYPE, "ViTMAEModel")
    )
    return tensors, {safetensors_folder.CONFIG: config}
