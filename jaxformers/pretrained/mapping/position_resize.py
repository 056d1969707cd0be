"""Learned position tables for images of another size, as each publisher resizes them.

Both ways are one small matrix for each side of the grid. `jax.image.resize` gives neither.
"""

from __future__ import annotations

import numbers
from dataclasses import replace
from typing import Any, Literal

import flax.linen as nn
import numpy as np
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, WeightsError

Method = Literal["zoom", "bicubic"]


TABLES = ("position_embedding", "decoder_position_embedding")


def at_image_size(
    model: nn.Module, variables: dict[str, Any], size: int, method: Method | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model and its variables for square images of `size` pixels.

    Args:
        model: an image model; learned positions are resized.
        variables: its variables.
        size: a multiple of the patches' side.
        method: as for `resize_positions`; None: the publisher's, which the activation tells
            (Google's models have GELU's tanh estimate).

    Raises:
        WeightsError: a model without images, or a size that its patches do not divide.
    """
    config = model.config
    encoder = getattr(config, "encoder", config)  # an MAE's encoder is a ViT
    if not hasattr(encoder, "image_size"):
        raise WeightsError(f"a {type(model).__name__} has no image size to change")
    if not isinstance(size, numbers.Integral):
        raise WeightsError(f"image size {size!r} is not a whole number")
    try:
        changed = replace(encoder, image_size=size)
        resized = changed if encoder is config else replace(config, encoder=changed)
    except ConfigError as error:
        raise WeightsError(f"image size {size}: {error}") from None
    activation = getattr(encoder, "activation", None)
    method = method or ("zoom" if activation == "gelu_tanh" else "bicubic")
    params = dict(variables["params"])
    for name in TABLES:
        if name in params:
            table = resize_positions(params[name]["table"], encoder.grid, changed.grid, method)
            params[name] = {"table": table}
    return model.clone(config=resized), {**variables, "params": params}


def resize_positions(
    table: Float[Array, "rows D"], grid_from: int, grid_to: int, method: Method = "zoom"
) -> Float[np.ndarray, "new_rows D"]:
    """The table of a square grid of `grid_to` patches a side, from one of `grid_from`.

    Rows before the grid's, such as the class token's, stay as they are.

    Args:
        table: positions, row after row of the grid.
        grid_from: patches along a side there.
        grid_to: patches along a side in the result.
        method: "zoom" is Google's, linear with both grids' corners on each other
            (`scipy.ndimage.zoom(order=1)`); "bicubic" is that of Hugging Face, MAE and timm
            (`torch.nn.functional.interpolate`, corners not aligned).

    Raises:
        WeightsError: fewer rows than the grid has places.
    """
    table = np.asarray(table, np.float32)
    first = len(table) - grid_from**2
    if first < 0:
        raise WeightsError(
            f"a position table of {len(table)} rows holds no grid of {grid_from} x {grid_from}"
        )
    if grid_from == grid_to:
        return table
    weights = {"zoom": _linear, "bicubic": _bicubic}[method](grid_from, grid_to)
    grid = table[first:].reshape(grid_from, grid_from, -1).astype(np.float64)
    grid = np.einsum("ay,bx,yxD->abD", weights, weights, grid, optimize=True)
    resized = grid.reshape(grid_to**2, -1).astype(np.float32)
    return np.concatenate([table[:first], resized])


def _linear(inputs: int, outputs: int) -> np.ndarray:
    """`[outputs, inputs]`: linear interpolation, first on first and last on last."""
    positions = np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1))
    return np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(inputs)))


def _bicubic(inputs: int, outputs: int) -> np.ndarray:
    """`[outputs, inputs]`: Keys' cubic convolution with a = -0.75, edges repeated."""
    positions = (np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5
    weights = np.zeros((outputs, inputs))
    for tap in range(-1, 3):
        near = np.floor(positions).astype(int) + tap
        columns = np.clip(near, 0, inputs - 1)
        np.add.at(weights, (np.arange(outputs), columns), _keys(np.abs(positions - near)))
    return weights


def _keys(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys 1981, equation 4 with its parameter free."""
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
