"""What a ViT's weights and attention say of images: figure 7 of Dosovitskiy et al. 2021.

Arrays only. Axis letters: n layers, B batch, H heads, P patches, h and w the grid's rows and
columns, C channels, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.models import MAEConfig, MAEOutput
from jaxformers.models.mae import Statistics, reconstruct, unpatchify
from jaxformers.models.patches import patchify


def patch_filters(kernel: Float[Array, "P P C D"], n: int = 28) -> Float[np.ndarray, "n P P C"]:
    """The first principal components of the patch embedding's filters (figure 7, left).

    The D filters are the samples, their pixels the features. A component's sign is arbitrary.

    Raises:
        DataError: there are fewer than `n` components.
    """
    kernel = np.asarray(kernel, np.float64)
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    if n > min(filters.shape):
        raise DataError(
            f"{filters.shape[0]} filters of {filters.shape[1]} pixels have at most "
            f"{min(filters.shape)} principal components, not {n}: ask for fewer"
        )
    _, _, components = np.linalg.svd(filters - filters.mean(0), full_matrices=False)
    return components[:n].reshape(n, *kernel.shape[:3]).astype(np.float32)


def position_similarity(
    table: Float[Array, "L D"], grid: tuple[int, int]
) -> Float[np.ndarray, "P h w"]:
    """Cosine similarity of each patch's position embedding to all (figure 7, centre).

    Args:
        table: the position embedding; a class token's row before the patches' is left out.
        grid: rows and columns of patches.

    Raises:
        DataError: the table is not of this grid.
    """
    rows = _patches(np.asarray(table, np.float64), grid, axis=0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths == 0, 1, lengths)
    return (rows @ rows.T).reshape(-1, *grid).astype(np.float32)


def mean_attention_distance(
    probabilities: Float[Array, "n B H T T"],
    grid: tuple[int, int],
    patch_size: int,
    *,
    normalized: bool = False,
) -> Float[np.ndarray, "n H"]:
    """How far attention reaches, in pixels, by layer and head (figure 7, right).

    Each patch's distance to all patches, weighted by its attention to them; the mean over patches
    and images. The class token's row and column are left out.

    Args:
        probabilities: attention to itself.
        grid: rows and columns of patches.
        patch_size: pixels along a patch's side.
        normalized: whether what is left of a row is divided by its sum; the published figures'
            later re-implementations do not.

    Raises:
        DataError: the tokens are not of this grid.
    """
    attention = _patches(
        _patches(np.asarray(probabilities, np.float64), grid, axis=-1), grid, axis=-2
    )
    if normalized:
        attention = attention / attention.sum(-1, keepdims=True)
    # Patches by row and column, [P, 2]; then the distance of each two in pixels, [P, P].
    centres = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 2)
    apart = patch_size * np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    return np.einsum("nBHTS,TS->nBHT", attention, apart).mean((1, 3)).astype(np.float32)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Pixels along a side that one place sees after each of a chain of convolutions and poolings.

    In theory: each adds its kernel less one, times the strides before it.
    """
    field, step, out = 1, 1, []
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * step
        step *= stride
        out.append(field)
    return out


def resnet_receptive_field(depths: Sequence[int], bottleneck: bool) -> list[int]:
    """`receptive_field` after a ResNet's stem and after each of its blocks (He et al. 2016).

    Args:
        depths: blocks in each stage, such as (3, 4, 6, 3); from the second on the first strides.
        bottleneck: 1x1, 3x3, 1x1 convolutions in a block instead of two 3x3. The 3x3 strides.
    """
    kernels, strides, ends = [7, 3], [2, 2], [2]
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            kernels += [1, 3, 1] if bottleneck else [3, 3]
            strides += [1, stride, 1] if bottleneck else [stride, 1]
            ends.append(len(kernels))
    fields = receptive_field(kernels, strides)
    return [fields[end - 1] for end in ends]


def reconstructions(
    config: MAEConfig,
    images: Float[Array, "B H W C"],
    output: MAEOutput,
    statistics: Statistics = "true",
) -> tuple[np.ndarray, np.ndarray]:
    """The visible patches of an MAE's images, and its reconstructions (He et al. 2022, figure 2).

    Args:
        config: the MAE's.
        images: its inputs.
        output: its output for them.
        statistics: what scales normalised predictions back: "true", each hidden patch's own mean
            and deviation, as in the paper's figure; "visible", the averages over the visible
            patches, which is all that the MAE knows.

    Returns images `[B, H, W, C]` each: hidden patches zero, and hidden patches as predicted.
    """
    size, visible = config.encoder.patch_size, 1.0 - np.asarray(output.mask, np.float32)[..., None]
    patches = np.asarray(patchify(np.asarray(images, np.float32), size))
    masked = unpatchify(patches * visible, size, images.shape[1:3])
    return np.asarray(masked), np.asarray(
        reconstruct(config, images, output, statistics=statistics)
    )


def _patches(x: np.ndarray, grid: tuple[int, int], axis: int) -> np.ndarray:
    """Without the class token's place along an axis, if there is one."""
    tokens, patches = x.shape[axis], grid[0] * grid[1]
    if tokens - patches not in (0, 1):
        raise DataError(f"{tokens} tokens are not those of a grid of {grid[0]} x {grid[1]} patches")
    return np.take(x, np.arange(tokens - patches, tokens), axis=axis)
