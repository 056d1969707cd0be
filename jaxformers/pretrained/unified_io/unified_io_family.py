"""Unified-IO as a family: the published msgpack files, and folders of one with a `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models.unified_io import UnifiedIO, UnifiedIOConfig
from jaxformers.models.vqgan import VQGANConfig
from jaxformers.pretrained.family import (
    Family,
    HuggingFaceFormat,
    InputShapes,
    LoadedModel,
    SingleFileFormat,
    Variables,
)
from jaxformers.pretrained.formats import flax_msgpack, safetensors_folder
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, read_model, unpadded_arrays
from jaxformers.pretrained.unified_io.unified_io_config import (
    MODEL_TYPE,
    read_config,
    write_config,
)
from jaxformers.pretrained.unified_io.unified_io_names import unified_io_map
from jaxformers.pretrained.vqgan.vqgan_family import other_norms
from jaxformers.pretrained.vqgan.vqgan_family import shrink as shrink_vqgan
from jaxformers.text.unified_io import UnifiedIOTokenizer

WEIGHTS = "unified_io.bin"
TABLE = "token_embedder/embedding"
PUBLISHED = {
    512: UnifiedIOConfig.small,
    768: UnifiedIOConfig.base,
    1024: UnifiedIOConfig.large,
    2048: UnifiedIOConfig.xl,
}
"""The published sizes by the width of the table of tokens."""


def load_folder(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a folder of `config.json` and one msgpack file, `*.bin`.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    folder = epath.Path(path)
    config_path = folder / safetensors_folder.CONFIG
    fields = Fields(safetensors_folder.read_json(config_path), str(config_path))
    files = sorted(folder.glob(f"*{flax_msgpack.SUFFIX}"))
    if len(files) != 1:
        raise WeightsError(
            f"{folder} holds {len(files)} files *{flax_msgpack.SUFFIX}: put the one file of "
            "weights beside its config.json"
        )
    config = read_config(fields)
    source = flax_msgpack.FlaxFile(files[0])
    return read_model(UnifiedIO(config, execution), unified_io_map(config), source)


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a file's arrays have the names of the release."""
    return {TABLE, "encoder/relpos_bias/image_rel_embedding"} <= shapes.keys()


def read_file_config(source: TensorSource) -> UnifiedIOConfig:
    """The published size that a file without a `config.json` is of.

    Raises:
        WeightsError: a table of tokens of another size.
    """
    shape = tuple(source.shapes[TABLE])
    for width, size in PUBLISHED.items():
        config = size(image_tokenizer=VQGANConfig(codebook_init="normal"))
        if shape == (config.vocab_size + config.image_vocab_size, width):
            return config
    raise WeightsError(
        f"{source.place}: {TABLE} {list(shape)} is of no published size (small, base, large, xl): "
        "put the file into a folder, beside a config.json with its sizes"
    )


def load_file(source: TensorSource, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a published file, such as `small_1000k.bin`.

    Raises:
        WeightsError: tensors that do not fit a published size; one line.
    """
    config = read_file_config(source)
    return read_model(UnifiedIO(config, execution), unified_io_map(config), source)


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why the authors' code cannot have the model; None when it can."""
    if not isinstance(model, UnifiedIO):
        return f"{type(model).__name__} is no Unified-IO"
    c, published = model.config, UnifiedIOConfig()
    if c.image_tokenizer is None:
        return "it has no image tokenizer"
    if c.channels != published.channels or c.norm_epsilon != published.norm_epsilon:
        return "its channels or norm_epsilon are not the authors'"
    if c.image_tokenizer.embed_dim != c.image_tokenizer.z_channels:
        return "its image tokenizer has an embed_dim other than z_channels"
    return other_norms(c.image_tokenizer)


def write(model: UnifiedIO, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by the authors' names, and `config.json`.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    tensors = unified_io_map(model.config).write(unpadded_arrays(model, variables))
    return tensors, {safetensors_folder.CONFIG: write_config(model.config)}


def write_weights(folder: epath.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays as Flax's msgpack file."""
    flax_msgpack.write_file(folder / WEIGHTS, tensors)


def inputs(config: UnifiedIOConfig) -> InputShapes:
    """One token of input and target text, a few patches and one code, with their masks."""
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    count = min(7, config.encoder_image_length)
    patches = jax.ShapeDtypeStruct((1, count, config.numbers_per_patch), jnp.float32)
    patch_mask = jax.ShapeDtypeStruct((1, count), jnp.int32)
    return token, token, patches, patch_mask, token, token, token


def shrink(config: UnifiedIOConfig) -> UnifiedIOConfig:
    """Two narrow layers, for images of 24 pixels; the vocabularies stay."""
    tokenizer = config.image_tokenizer
    return replace(
        config,
        width=16,
        heads=4,
        head_width=4,
        feed_forward=32,
        encoder_layers=2,
        decoder_layers=2,
        patch_size=8,
        image_rows=24,
        image_columns=24,
        encoder_image_length=9,
        image_tokenizer=None if tokenizer is None else shrink_vqgan(tokenizer),
    )


UNIFIED_IO = Family(
    "unified_io",
    UnifiedIOConfig,
    {"unified_io": UnifiedIO},
    inputs,
    tokenizers=(UnifiedIOTokenizer,),
    uses={"ask": (UnifiedIO,)},
    shrink=shrink,
    formats=(
        HuggingFaceFormat(
            MODEL_TYPE,
            "the authors' Unified-IO",
            load_folder,
            unsupported_reason,
            write,
            write_weights=write_weights,
        ),
        SingleFileFormat(recognises, read_file_config, load_file),
    ),
)
