"""A published or trained image model under a new head: where fine-tuning starts."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Literal

import flax.linen as nn
import numpy as np

from jaxformers.errors import WeightsError
from jaxformers.models import ViTConfig
from jaxformers.models.vit import fixed_positions
from jaxformers.pretrained import registry
from jaxformers.pretrained.mapping.name_map import compare
from jaxformers.pretrained.mapping.position_resize import resize_positions

HEAD = r"\w+/(head|pre_logits|head_norm|head_batch_norm)/.*"
TABLE = "params/position_embedding/table"
# What neither changes the weights below the head nor what they compute without training.
FREE = (
    "attention_dropout",
    "class_names",
    "classes",
    "drop_path",
    "dropout",
    "head_batch_norm",
    "head_bias",
    "head_norm",
    "image_size",
    "norm_momentum",
    "pooling",
    "pre_logits",
    "zero_init",
)


def load_image_backbone(
    loaded: tuple[nn.Module, dict[str, Any]],
    model: nn.Module,
    place: str,
    method: Literal["zoom", "bicubic"] = "zoom",
) -> dict[str, Any]:
    """Everything below the head of a loaded model, as nested NumPy variables for `model`.

    The head is never taken over ("ViT", section 3.2). A table of positions for another image size
    is resized. Fixed sines become the start of a learned table, as in MAE's fine-tuning.

    Args:
        loaded: a model and its variables: a ViT, an MAE, a ResNet or a BiT.
        model: what is to be trained, with the same layers.
        place: where the weights come from, for messages.
        method: how positions are resized: Google's way or PyTorch's.

    Raises:
        WeightsError: another kind of network, with the fields to set.
    """
    source, variables = loaded
    _check_shape(source, model, place)
    found = {p: np.asarray(x) for p, x in registry.flatten(variables).items()}
    wanted = registry.variable_shapes(model, model.execution)
    if TABLE in wanted and TABLE not in found:
        found[TABLE] = _sines(source)
    kept = {}
    for path, shape in wanted.items():
        if re.fullmatch(HEAD, path) or (path not in found and _new(path, model)):
            continue
        if path not in found:
            raise WeightsError(f"the weights in {place} have no {path}, which the model needs")
        leaf = found[path]
        if path == TABLE and leaf.shape != shape:
            token = bool(model.config.class_token)
            grids = (_side(len(leaf) - token, place), model.config.grid)
            leaf = resize_positions(leaf, *grids, method)
        if leaf.shape != shape:
            raise WeightsError(f"{path} in {place} has shape {leaf.shape}, the model's {shape}")
        kept[path] = leaf
    return registry.unflatten(kept)


def whole(loaded: tuple[nn.Module, dict[str, Any]], model: nn.Module, place: str) -> dict[str, Any]:
    """All variables of a loaded model, as nested NumPy arrays for the same `model`.

    Raises:
        WeightsError: another network.
    """
    source, variables = loaded
    if type(source) is not type(model):
        raise WeightsError(f"{place} holds a {type(source).__name__}, no {type(model).__name__}")
    found = registry.flatten(variables)
    wanted = registry.variable_shapes(model, model.execution)
    compare(place, wanted, {path: np.shape(leaf) for path, leaf in found.items()})
    return registry.unflatten({path: np.asarray(leaf) for path, leaf in found.items()})


def _new(path: str, model: nn.Module) -> bool:
    """A norm of the encoder's end that the source had elsewhere starts afresh."""
    return path.startswith("params/encoder/norm/") and not model.config.head_norm


def _become_a_table(theirs: str, ours: str) -> bool:
    return ours == "learned" and theirs.startswith("sincos2d")


def _sines(source: nn.Module) -> np.ndarray:
    """What a source of fixed positions adds, as a table for its own grid."""
    c = _encoder(source)
    return np.asarray(fixed_positions(c.grid, c.grid, c.width, c.positions, c.class_token))


def _encoder(source: nn.Module) -> Any:
    """An MAE's encoder is a ViT."""
    return getattr(source.config, "encoder", source.config)


def _side(patches: int, place: str) -> int:
    side = round(patches**0.5)
    if side * side != patches:
        raise WeightsError(f"the positions in {place} are {patches} patches, which make no square")
    return side


def _check_shape(source: nn.Module, model: nn.Module, place: str) -> None:
    """The two networks are the same below the head."""
    theirs, ours = _encoder(source), model.config
    if type(theirs) is not type(ours):
        raise WeightsError(f"{place} holds a {type(source).__name__}, no {type(model).__name__}")
    free = set(FREE)
    if isinstance(ours, ViTConfig) and _become_a_table(theirs.positions, ours.positions):
        free.add("positions")
    names = (field.name for field in fields(ours) if field.name not in free)
    registry.require_same(theirs, ours, names, place)
