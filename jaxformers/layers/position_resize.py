"""Matrices that resize a grid of positions, as publishers of image models do.

Every method is one small matrix for each side of the grid. `jax.image.resize` gives none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

PositionResize = Literal["zoom", "bilinear", "bicubic", "bicubic_offset", "bicubic_antialiased"]
Grid = tuple[int, int]  # rows and columns


def resize_matrices(
    old: Grid, new: Grid, method: PositionResize
) -> tuple[Float[np.ndarray, "a y"], Float[np.ndarray, "b x"]]:
    """Float64 matrices for the rows and the columns of a grid.

    Args:
        old: rows y and columns x of the grid at hand.
        new: rows a and columns b of the result.
        method: `zoom` is Google's, linear with both grids' corners on each other
            (`scipy.ndimage.zoom(order=1)`). The rest are PyTorch's
            (`torch.nn.functional.interpolate`, corners not aligned): `bicubic` that of Hugging
            Face and MAE, `bicubic_offset` that of DINOv2's authors, `bicubic_antialiased` timm's,
            `bilinear` that of timm's FlexiViT.
    """
    matrix = MATRICES[method]
    return matrix(old[0], new[0]), matrix(old[1], new[1])


def _zoom(inputs: int, outputs: int) -> np.ndarray:
    """`[outputs, inputs]`: linear interpolation, first on first and last on last."""
    positions = np.arange(outputs) * ((inputs - 1) / max(outputs - 1, 1))
    return np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(inputs)))


def _bilinear(inputs: int, outputs: int) -> np.ndarray:
    """`[outputs, inputs]`: linear interpolation between pixels' centres, edges repeated."""
    # Pixel i's centre lies at i + 0.5, hence the half.
    positions = np.clip(_centres(inputs, outputs) - 0.5, 0, inputs - 1)
    return np.maximum(0.0, 1.0 - np.abs(positions[:, None] - np.arange(inputs)))


def _bicubic(inputs: int, outputs: int, offset: float = 0.0) -> np.ndarray:
    """`[outputs, inputs]`: Keys' cubic convolution with a = -0.75, edges repeated.

    `offset`: the input covers `outputs + offset` pixels of the output.
    """
    positions = _centres(inputs, outputs, offset) - 0.5
    weights = np.zeros((outputs, inputs))
    for tap in range(-1, 3):
        # Two taps on each side; those beyond the edge count for the edge's pixel.
        near = np.floor(positions).astype(int) + tap
        columns = np.clip(near, 0, inputs - 1)
        np.add.at(weights, (np.arange(outputs), columns), _keys(np.abs(positions - near), -0.75))
    return weights


def _bicubic_antialiased(inputs: int, outputs: int) -> np.ndarray:
    """`[outputs, inputs]`: Keys' filter with a = -0.5, stretched where the grid shrinks.

    Taps beyond the edges are left out and the others' weights divided by their sum, as in Pillow.
    """
    # Each output pixel averages over as many input pixels as it covers; a growing grid has no need.
    stretch = max(inputs / outputs, 1.0)
    centres = _centres(inputs, outputs)[:, None]
    taps = np.arange(inputs)[None]
    weights = _keys(np.abs(taps + 0.5 - centres) / stretch, -0.5)
    return weights / weights.sum(1, keepdims=True)


MATRICES: dict[PositionResize, Callable[[int, int], np.ndarray]] = {
    "zoom": _zoom,
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "bicubic_offset": partial(_bicubic, offset=0.1),
    "bicubic_antialiased": _bicubic_antialiased,
}


def _centres(inputs: int, outputs: int, offset: float = 0.0) -> np.ndarray:
    """Centres of the output's pixels, in units of the input's from its edge."""
    return (np.arange(outputs) + 0.5) * (inputs / (outputs + offset))


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """Keys 1981, equation 4 with its parameter free."""
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
