"""A published or trained image model under a new head: where fine-tuning starts."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.errors import WeightsError
from jaxformers.layers.position_resize import PositionResize
from jaxformers.models import ViTConfig
from jaxformers.models.patches import fixed_positions
from jaxformers.pretrained.family import LoadedModel
from jaxformers.pretrained.mapping.name_map import compare
from jaxformers.pretrained.mapping.position_resize import resize_positions
from jaxformers.pretrained.model_variables import (
    flatten,
    require_equal_fields,
    unflatten,
    variable_shapes,
)
from jaxformers.pretrained.registry import family_of

POSITIONS = "params/position_embedding/table"


def image_backbone_variables(
    loaded: LoadedModel,
    model: nn.Module,
    weights_path: str,
    method: PositionResize = "zoom",
) -> dict[str, Any]:
    """Everything below the head of a loaded model, as nested NumPy variables for `model`.

    The head is never taken over ("ViT", section 3.2). A table of positions for another image size
    is resized. Fixed sines become the start of a learned table, as in MAE's fine-tuning.

    Args:
        loaded: a model and its variables: a ViT, an MAE, a ResNet or a BiT.
        model: what is to be trained, with the same layers.
        weights_path: where the weights come from, for messages.
        method: how positions are resized: Google's way or PyTorch's.

    Raises:
        WeightsError: another kind of network, with the fields to set.
    """
    source, variables = loaded
    _require_same_backbone(source, model, weights_path)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    shapes = variable_shapes(model, model.execution)
    if POSITIONS in shapes and POSITIONS not in leaves:
        leaves[POSITIONS] = _sines(source)
    head_pattern = family_of(model).fine_tuning.head_pattern
    backbone = {}
    for path, shape in shapes.items():
        if re.fullmatch(head_pattern, path) or (path not in leaves and _is_new_norm(path, model)):
            continue
        if path not in leaves:
            raise WeightsError(
                f"the weights in {weights_path} have no {path}, which the model needs"
            )
        leaf = leaves[path]
        if path == POSITIONS:
            leaf = resize_positions(leaf, _encoder_config(source).grid, model.config.grid, method)
        if leaf.shape != shape:
            raise WeightsError(
                f"{path} in {weights_path} has shape {leaf.shape}, the model's {shape}"
            )
        backbone[path] = leaf
    return unflatten(backbone)


def all_variables(loaded: LoadedModel, model: nn.Module, weights_path: str) -> dict[str, Any]:
    """All variables of a loaded model, as nested NumPy arrays for the same `model`.

    Raises:
        WeightsError: another network.
    """
    source, variables = loaded
    if type(source) is not type(model):
        raise WeightsError(
            f"{weights_path} holds a {type(source).__name__}, no {type(model).__name__}"
        )
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    shapes = variable_shapes(model, model.execution)
    compare(weights_path, shapes, {path: leaf.shape for path, leaf in leaves.items()})
    return unflatten(leaves)


def _is_new_norm(path: str, model: nn.Module) -> bool:
    """Whether it is the norm after the encoder, in a model whose source norms after pooling."""
    return path.startswith("params/encoder/norm/") and not model.config.head_norm


def _sines(source: nn.Module) -> np.ndarray:
    """What a source of fixed positions adds, as a table for its own grid."""
    config = _encoder_config(source)
    table = fixed_positions(config.grid, config.width, config.positions, config.prefix_rows)
    return np.asarray(table)


def _encoder_config(source: nn.Module) -> Any:
    """The configuration of the image encoder; an MAE's is a ViT inside it."""
    return getattr(source.config, "encoder", source.config)


def _require_same_backbone(source: nn.Module, model: nn.Module, weights_path: str) -> None:
    """Raises WeightsError unless the two networks are the same below the head."""
    config, expected = _encoder_config(source), model.config
    if type(config) is not type(expected):
        raise WeightsError(
            f"{weights_path} holds a {type(source).__name__}, no {type(model).__name__}"
        )
    free_fields = set(family_of(model).fine_tuning.free_fields)
    # Fixed sines may become the start of a learned table.
    learned = isinstance(expected, ViTConfig) and expected.positions == "learned"
    if learned and config.positions.startswith("sincos2d"):
        free_fields.add("positions")
    names = (field.name for field in fields(expected) if field.name not in free_fields)
    require_equal_fields(config, expected, names, weights_path)
