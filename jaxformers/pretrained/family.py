"""What a model family declares: its modules, its published formats, what it needs beside weights.

Only types live here. The families' own files make a `Family`, `registry` collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.arrays import height_width
from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.layers import Execution
from jaxformers.pretrained.formats.safetensors_folder import write_tensors
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.timm.timm_args import TimmArgs
from jaxformers.sharding import Row
from jaxformers.text import Tokenizer

Variables = Mapping[str, Any]
LoadedModel = tuple[nn.Module, dict[str, Any]]
InputShapes = tuple[jax.ShapeDtypeStruct, ...]


@dataclass(frozen=True)
class HuggingFaceFormat:
    """A folder of Hugging Face's transformers: `config.json` and safetensors."""

    model_type: str
    """`model_type` in `config.json`, and the `format` of `save_pretrained`."""
    title: str
    """What messages call the format."""
    load: Callable[[Any, Execution], LoadedModel]
    """Reads a folder; raises WeightsError."""
    unsupported_reason: Callable[[nn.Module, Variables], str | None]
    """Why a model cannot be written in this format; None: it can."""
    write: Callable[[nn.Module, Variables], tuple[dict[str, np.ndarray], dict[str, Any]]]
    """Tensors by name and JSON files by name of a model without an `unsupported_reason`."""
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `tokenizer_config.json` that the format's classes need beside the tokenizer's."""
    recognises_untyped: Callable[[Mapping[str, Any]], bool] = lambda config: False
    """Whether a `config.json` without `model_type` is of this format (files of 2018 and 2019)."""
    write_weights: Callable[[epath.Path, Mapping[str, np.ndarray]], None] = write_tensors
    """Writes the tensors into a folder; by default as `model.safetensors`."""


@dataclass(frozen=True)
class FolderFormat:
    """A folder without Hugging Face's `config.json`, recognised by its files."""

    recognises: Callable[[epath.Path], bool]
    load: Callable[[Any, Execution], LoadedModel]
    """Reads a folder; raises WeightsError."""
    load_tokenizer: Callable[[epath.Path], Tokenizer | None] = lambda folder: None
    """The folder's tokenizer, to be saved beside converted weights; None: it has none."""


@dataclass(frozen=True)
class TimmFormat:
    """timm's folders of the architectures that it builds from some of its classes."""

    model_classes: tuple[str, ...]
    """Their names, as in `pretrained/timm/architectures.json`."""
    load: Callable[[epath.Path, TimmArgs, Execution], LoadedModel]
    """Reads a folder with these arguments; raises WeightsError."""


@dataclass(frozen=True)
class SingleFileFormat:
    """One `.npz` or `.safetensors` file, recognised by the names of its tensors."""

    recognises: Callable[[Mapping[str, Shape]], bool]
    read_config: Callable[[TensorSource], Any]
    """The configuration that the shapes imply; raises WeightsError."""
    load: Callable[[TensorSource, Execution], LoadedModel]
    """Reads the file; raises WeightsError."""
    preprocessing: Callable[[Any], Preprocessing | None] = lambda config: None
    """The publisher's preprocessing for a model of this configuration; None: it cannot be told."""


@dataclass(frozen=True)
class FineTuning:
    """Which of a family's pretrained parameters a model with another head takes over."""

    backbone: str = ""
    """Name of the backbone's submodule in modules with a head; empty: backbone and head are one."""
    transferable_heads: tuple[type[nn.Module], ...] = ()
    """Modules whose head means the same on all data, so that it is taken over too."""
    head_pattern: str = "(?!)"
    """Regular expression of variable paths that always start afresh (matches none by default)."""
    free_fields: tuple[str, ...] = ()
    """Configuration fields that may differ between the weights and the model to be trained."""


@dataclass(frozen=True)
class Family:
    """One paper's models, as the library's loading, saving, fine-tuning and verbs see them."""

    name: str
    config: type
    """The frozen dataclass of its configuration."""
    modules: Mapping[str, type[nn.Module]]
    """Modules `Module(config, execution)` by the name under which the native format saves them;
    the first is the backbone, or the only one."""
    inputs: Callable[[Any], InputShapes]
    """Smallest inputs of a module with this configuration, from which `init` makes variables."""
    tokenizers: tuple[type, ...] = ()
    """Classes of tokenizers that suit it; empty: it takes no text."""
    special_ids: Callable[[Any], Mapping[str, int]] = lambda config: {}
    """Ids of special tokens that a configuration states, by the tokenizer's attribute: the weights
    go with no tokenizer that has others."""
    exact_tokenizers: tuple[type, ...] = ()
    """Those of `tokenizers` with which the weights have no more rows than the tokenizer tokens."""
    takes_images: bool = False
    """Whether it needs image preprocessing; its configuration then has `image_size`."""
    sized_encoder: Callable[[Any], Any] | None = None
    """The configuration, or the part of it, whose `image_size` may be changed for weights that are
    there (`at_image_size`); None: the weights are of one size."""
    uses: Mapping[str, tuple[type[nn.Module], ...]] = field(default_factory=dict)
    """Modules by the function or verb (`classify`, `embed`, ...) that they can serve."""
    fine_tuning: FineTuning = FineTuning()
    shrink: Callable[[Any], Any] = lambda config: config
    """The same network with few and narrow layers, for rehearsals on images of 24 pixels."""
    sharding_rows: tuple[Row, ...] = ()
    """Rows for parameters that the library's sharding table does not name."""
    formats: tuple[HuggingFaceFormat | FolderFormat | TimmFormat | SingleFileFormat, ...] = ()
    """Published formats, in the order in which they are tried; the native one needs no entry."""


def token_inputs(_: Any) -> InputShapes:
    """A row of one token, to initialise a model with."""
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),)


def token_pair_inputs(_: Any) -> InputShapes:
    """One source row and one target row of one token each."""
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),) * 2


def image_inputs(config: Any) -> InputShapes:
    """One image `[1, H, W, C]` of the configuration's size."""
    shape = (1, *height_width(config.image_size), config.channels)
    return (jax.ShapeDtypeStruct(shape, jnp.float32),)
