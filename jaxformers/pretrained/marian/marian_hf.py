"""Reads and writes MarianMT (Junczys-Dowmunt et al. 2018) in Hugging Face's folders.

A loaded model has the logits of `MarianMTModel`, which loads a saved one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution, sinusoids
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_tensors
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, TensorSource, each
from jaxformers.pretrained.mapping.torch_names import attention, linear, norm
from jaxformers.pretrained.mapping.transforms import Flat
from jaxformers.pretrained.marian.marian_config import inexpressible, read_config, write_config
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    flatten,
    padded_variables,
    unpadded_arrays,
    variable_shapes,
)

GENERATION = "generation_config.json"
TABLE = "params/token_embedding/table"
POSITIONS = tuple(f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder"))
ROUNDED = 2e-3  # of a sinusoid kept in bfloat16 or float16


def _layer(theirs: str, ours: str, **attentions: str) -> tuple[Entry, ...]:
    """The entries of a stack's layers."""
    theirs, ours = f"{theirs}.layers.{{layer}}.", f"{ours}/blocks/"
    norms = {
        f"{name}_norm": f"{theirs_name}_layer_norm" for name, theirs_name in attentions.items()
    }
    sublayers = (
        *each(attention, **attentions),
        *each(norm, **norms, feed_forward_norm="final_layer_norm"),
        *linear("fc1", "feed_forward/up"),
        *linear("fc2", "feed_forward/down"),
    )
    return tuple(sublayer.under(theirs, ours) for sublayer in sublayers)


MARIAN = NameMap(
    (
        Entry(
            (
                "model.shared.weight",
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
                "lm_head.weight",
            ),
            TABLE,
        ),
        Entry("final_logits_bias", "params/logits_bias", Flat(lead=1), default=0.0),
        *_layer("model.encoder", "params/encoder", self_attention="self_attn"),
        *_layer(
            "model.decoder",
            "params/decoder",
            self_attention="self_attn",
            cross_attention="encoder_attn",
        ),
    ),
    ignored=tuple(map(re.escape, POSITIONS)),
)


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[Transformer, dict[str, Any]]:
    """The model in a published folder, and its variables as `execution` stores them.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    path = epath.Path(path)
    config = safetensors_folder.read_json(path / safetensors_folder.CONFIG)
    generation = path / GENERATION
    generation_config = safetensors_folder.read_json(generation) if generation.exists() else None
    model = Transformer(
        read_config(config, generation_config, str(path / safetensors_folder.CONFIG)), execution
    )
    tensors = open_tensors(path)
    leaves = MARIAN.read(tensors, variable_shapes(model))
    _check_positions(tensors, model.config)
    return model, padded_variables(model, leaves)


def _check_positions(tensors: TensorSource, config: TransformerConfig) -> None:
    """Raises WeightsError unless a stored table of positions equals the computed sinusoids."""
    for name in (name for name in POSITIONS if name in tensors.shapes):
        table = tensors.read(name)
        expected = sinusoids(config.max_length, config.width, "marian")
        if table.shape != expected.shape or np.abs(table - expected).max() > ROUNDED:
            raise WeightsError(f"{tensors.place}: {name} does not hold Marian's sinusoids")


def unsupported_reason(model: Transformer, variables: Variables) -> str | None:
    """Why the model cannot be written as a MarianMT with the same outputs; None: it can."""
    config = getattr(model, "config", None)
    if not isinstance(config, TransformerConfig):
        return "it is no translation Transformer"
    if reason := inexpressible(config):
        return reason
    table = flatten(variables).get(TABLE)
    if config.zero_pad and table is not None and np.any(np.asarray(table[config.pad_id])):
        return "zero_pad hides a padding row that is not zero, and MarianMT would use it"
    return None


def write(model: Transformer, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for `MarianMTModel`; biases that the model lacks are zeros.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    leaves = unpadded_arrays(model, variables)
    full = Transformer(replace(model.config, attention_bias=True, logits_bias=True))
    shapes = variable_shapes(full)
    leaves = {
        p: leaves[p] if p in leaves else np.zeros(shape, np.float32) for p, shape in shapes.items()
    }
    config, generation = write_config(model.config)
    return MARIAN.write(leaves), {GENERATION: generation, safetensors_folder.CONFIG: config}
