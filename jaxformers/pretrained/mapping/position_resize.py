"""Models and position tables for images of another size, as each publisher resizes them."""

from __future__ import annotations

import numbers
from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers.position_resize import Grid, PositionResize, resize_matrices
from jaxformers.models.patches import fixed_positions
from jaxformers.models.vit import ViTConfig
from jaxformers.pretrained.registry import family_of

ENCODER_TABLE, DECODER_TABLE = "position_embedding", "decoder_position_embedding"


def at_image_size(
    model: nn.Module,
    variables: dict[str, Any],
    size: int | tuple[int, int],
    method: PositionResize | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The model and its variables for images of `size` pixels.

    MAE's fixed table becomes a learned one: its publisher resizes the table rather than computing
    it for the new grid. big_vision's, which its publisher computes, stays fixed.

    Args:
        model: an image model; learned positions are resized.
        variables: its variables.
        size: a side, or (height, width): multiples of the patches' side.
        method: as for `resize_positions`; None: the publisher's, the encoder's `position_resize`.

    Raises:
        WeightsError: a model without images, or a size that its patches do not divide.
    """
    config, sized_encoder = model.config, family_of(model).sized_encoder
    if sized_encoder is None:
        raise WeightsError(f"a {type(model).__name__} has no image size to change")
    encoder = sized_encoder(config)  # an MAE's encoder is a ViT
    size = _checked_size(size)
    tables = {}
    try:
        changed = replace(encoder, image_size=size)
        if isinstance(encoder, ViTConfig) and changed.grid != encoder.grid:
            if encoder.positions == "sincos2d_mae":
                changed = replace(changed, positions="learned")
            tables = _resized_tables(model, encoder, variables["params"], changed.grid, method)
        resized = changed if encoder is config else replace(config, encoder=changed)
    except ConfigError as error:
        raise WeightsError(f"image size {size}: {error}") from None
    return model.clone(config=resized), {**variables, "params": {**variables["params"], **tables}}


def _checked_size(size: Any) -> Any:
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if not all(isinstance(side, numbers.Integral) for side in sides):
        raise WeightsError(f"image size {size!r} is not a whole number, nor a pair of them")
    return size


def _resized_tables(
    model: nn.Module,
    encoder: ViTConfig,
    params: dict[str, Any],
    grid: Grid,
    method: PositionResize | None,
) -> dict[str, Any]:
    """Position tables of `model` by module name, resized; fixed ones of MAE among them."""
    config = model.config
    method = method or encoder.position_resize
    widths = {ENCODER_TABLE: encoder.width}
    if encoder is not config:
        widths[DECODER_TABLE] = config.decoder_width
    tables = {}
    for name, width in widths.items():
        if encoder.positions == "sincos2d_mae":
            table = np.asarray(
                fixed_positions(encoder.grid, width, encoder.positions, encoder.prefix_rows)
            )
        elif name in params:
            table = params[name]["table"]
        else:
            continue
        tables[name] = {"table": resize_positions(table, encoder.grid, grid, method)}
    return tables


def resize_positions(
    table: Float[Array, "rows D"],
    grid_from: int | Grid,
    grid_to: int | Grid,
    method: PositionResize = "zoom",
) -> Float[np.ndarray, "new_rows D"]:
    """The table for a grid of `grid_to` patches, from one for `grid_from`.

    Rows before the grid's, such as the class token's, stay as they are.

    Args:
        table: positions, row after row of the grid.
        grid_from: patches along a side there, or (rows, columns).
        grid_to: the same of the result.
        method: whose, as for `jaxformers.layers.position_resize.resize_matrices`.

    Raises:
        WeightsError: fewer rows than the grid has patches.
    """
    table = np.asarray(table, np.float32)
    old, new = _rows_and_columns(grid_from), _rows_and_columns(grid_to)
    first = len(table) - old[0] * old[1]
    if first < 0:
        raise WeightsError(
            f"a position table of {len(table)} rows holds no grid of {old[0]} x {old[1]}"
        )
    if old == new:
        return table
    rows, columns = resize_matrices(old, new, method)
    grid = table[first:].reshape(*old, -1).astype(np.float64)
    grid = np.einsum("ay,bx,yxD->abD", rows, columns, grid, optimize=True)
    resized = grid.reshape(new[0] * new[1], -1).astype(np.float32)
    return np.concatenate([table[:first], resized])


def _rows_and_columns(grid: int | Grid) -> Grid:
    return grid if isinstance(grid, tuple) else (grid, grid)
