"""Figures of the arrays of `attention`, `relevance` and `vision`; each function returns a Figure.

No figure is registered anywhere: `save` writes it, and a notebook shows it by its name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxformers.arrays import Array
from jaxformers.errors import DataError

RIGHT, WRONG = "tab:green", "lightgrey"  # frames of hits


def save(figure: Figure, path: str | Path, dpi: int = 100) -> Path:
    """Write a figure as the kind of picture that its name's ending says, at `dpi` pixels an inch.

    Raises:
        DataError: the ending is none of a picture, or the file cannot be written.
    """
    check_picture_path(path)
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be written: {error.strerror}") from None
    return Path(path)


def check_picture_path(path: str | Path) -> None:
    """Refuses a name that does not end as a picture's, or in a folder that is not there."""
    path = Path(path)
    if path.suffix.lstrip(".").lower() not in FigureCanvasAgg.filetypes:
        raise DataError(f"{path}: no kind of picture ends in {path.suffix!r}; call it .png")
    if not path.parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}")


def filters_figure(filters: Float[Array, "n P P C"], columns: int = 7) -> Figure:
    """Principal components of a patch embedding, each stretched over its own range."""
    filters = np.asarray(filters)
    figure, axes = _tiles(len(filters), columns, 0.9, "principal components of the filters")
    for axis, component in zip(axes, filters, strict=True):
        draw_picture(axis, _stretched(component))
    return figure


def position_similarity_figure(similarity: Float[Array, "P h w"]) -> Figure:
    """A grid of grids: how alike each place's embedding is to every place's."""
    similarity = np.asarray(similarity)
    _, rows, columns = similarity.shape
    side = max(0.25, 5.0 / columns)
    title = "cosine similarity of position embeddings"
    figure, axes = _tiles(rows * columns, columns, side, title, right=0.8)
    for axis, grid in zip(axes, similarity, strict=True):
        mappable = axis.imshow(grid, vmin=-1, vmax=1, cmap="viridis", interpolation="nearest")
        axis.set_axis_off()
    figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.02)
    return figure


def attention_distance_figure(
    distance: Float[Array, "n H"],
    receptive_field: Sequence[int] = (),
    network: str = "ResNet",
) -> Figure:
    """Mean attention distance of each head by depth; beside it a ResNet's receptive field.

    Args:
        distance: in pixels, by layer and head.
        receptive_field: in pixels, after each block of the ResNet; empty: no second panel.
        network: what it is called.
    """
    distance = np.asarray(distance)
    figure = Figure(figsize=(9 if len(receptive_field) else 5, 4), layout="constrained")
    axes = figure.subplots(1, 2 if len(receptive_field) else 1, squeeze=False)[0]
    depth = np.repeat(np.arange(len(distance)), distance.shape[1])
    axes[0].scatter(
        depth,
        distance.ravel(),
        s=18,
        c=np.tile(np.arange(distance.shape[1]), len(distance)),
        cmap="tab20",
    )
    _labelled(axes[0], "ViT: each head's attention", "depth (layer)", "mean distance (pixels)")
    if len(receptive_field):
        axes[1].plot(range(len(receptive_field)), receptive_field, marker="o", color="tab:gray")
        axes[1].axhline(
            distance.max(), linestyle=":", color="tab:blue", label="ViT's farthest head"
        )
        axes[1].legend(frameon=False)
        _labelled(axes[1], f"{network}: receptive field", "depth (block)", "side (pixels)")
    return figure


def reconstruction_figure(
    images: Float[Array, "B H W C"],
    masked: Float[Array, "B H W C"],
    completed: Float[Array, "B H W C"],
    honest: Float[Array, "B H W C"] | None = None,
    *,
    normalized_targets: bool = True,
) -> Figure:
    """An MAE's work, a row for each image: the image, its visible patches, the reconstruction.

    All in the range of the images; `vision.reconstructions` gives the arrays.

    Args:
        images: the MAE's inputs.
        masked: their visible patches.
        completed: reconstructions. Of an MAE with normalised targets (`norm_pix_loss`) they are
            scaled with the true mean and deviation of each hidden patch, which the MAE does not
            know; the figure says so.
        honest: reconstructions with `statistics="visible"`, which use nothing hidden; None: no
            such column.
        normalized_targets: `norm_pix_loss` of the MAE.
    """
    of_true = "\nwith each hidden patch's\ntrue mean and deviation" if normalized_targets else ""
    columns = {"original": images, "visible": masked, f"reconstruction{of_true}": completed}
    if honest is not None:
        columns["reconstruction\nwith the visible patches'\nmean and deviation"] = honest
    arrays = [np.asarray(column) for column in columns.values()]
    low, high = arrays[0].min(), arrays[0].max()
    size = (2 * len(columns), 2 * len(arrays[0]) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(arrays[0]), len(columns), squeeze=False)
    for i, row in enumerate(axes):
        for axis, name, array in zip(row, columns, arrays, strict=True):
            draw_picture(axis, np.clip((array[i] - low) / max(high - low, 1e-9), 0, 1))
            if i == 0:
                axis.set_title(name, fontsize=9)
    return figure


def attention_figure(
    probabilities: Float[Array, "H T S"],
    targets: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> Figure:
    """One layer's attention of one example, a panel for each head, with its tokens if given.

    All heads on one scale from 0, with a colour bar.
    """
    probabilities = np.asarray(probabilities)
    side = 2.4 + 0.12 * max(len(targets), len(sources))
    figure, axes = _tiles(len(probabilities), 4, side, "", right=0.8)
    # One scale for all heads, so that a sharp head looks sharper than a diffuse one.
    peak = float(probabilities.max())
    for head, (axis, weights) in enumerate(zip(axes, probabilities, strict=True)):
        mappable = axis.imshow(weights, vmin=0, vmax=peak, cmap="viridis", aspect="auto")
        axis.set_title(f"head {head}", fontsize=9)
        axis.set_xticks(range(len(sources)), sources, rotation=90, fontsize=7)
        axis.set_yticks(range(len(targets)), targets, fontsize=7)
    figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.02)
    return figure


def hits_figure(
    queries: Sequence[str | np.ndarray],
    hits: Sequence[Sequence[tuple[np.ndarray | None, float]]],
    right: Sequence[Sequence[bool]] | None = None,
    *,
    columns: int = 1,
) -> Figure:
    """Results of a search: each query, and its hits with their scores.

    Args:
        queries: texts, or images `[H, W, C]` between 0 and 1; at least one.
        hits: (image, score) of each query, the best first; None for an image that does not decode.
        right: whether each hit answers its query; those that do are framed in green. None: no
            frames.
        columns: how many queries stand side by side; they are read column by column.
    """
    columns = min(columns, len(queries))
    most, rows = max(map(len, hits), default=0), -(-len(queries) // columns)
    size = (1.6 * columns * (1 + most), 1.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns * (1 + most), squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[], frame_on=False)
    for position, (query, entries) in enumerate(zip(queries, hits, strict=True)):
        column = position // rows * (1 + most)
        query_axis, *hit_axes = axes[position % rows, column : column + 1 + most]
        if isinstance(query, str):
            text = textwrap.fill(query, 18, max_lines=8, placeholder=" ...")
            style = dict(ha="center", va="center", fontsize=9, parse_math=False)
            query_axis.text(0.5, 0.5, text, transform=query_axis.transAxes, **style)
        else:
            draw_picture(query_axis, query)
            query_axis.set_title("query", fontsize=8)
        for number, (axis, (image, score)) in enumerate(zip(hit_axes, entries, strict=False)):
            if image is not None:
                draw_picture(axis, image)
            axis.set_title(f"{score:.3f}", fontsize=8)
            if right is not None:
                _frame(axis, right[position][number])
    return figure


def _frame(axis, right: bool) -> None:
    """Draws the frame of an axis: green, or thin and grey."""
    axis.set_axis_on()
    axis.set_frame_on(True)
    for spine in axis.spines.values():
        spine.set(color=RIGHT if right else WRONG, linewidth=3 if right else 1)


def _tiles(n: int, columns: int, side: float, title: str, right: float = 0.0):
    columns = min(columns, n)
    rows = -(-n // columns)
    size = (max(columns * side, 3.0) + right, rows * side + (0.4 if title else 0.1))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[n:]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10)
    return figure, axes[:n]


def draw_picture(axis, image: np.ndarray) -> None:
    """Draws pixels between 0 and 1, of a single channel in grey."""
    grey = image.ndim == 3 and image.shape[2] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()


def _stretched(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / max(float(x.max() - x.min()), 1e-12)


def _labelled(axis, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    # A fixed top: autoscaling leaves a twentieth of the data's range, which above 0 may be nothing.
    axis.set_ylim(0, 1.06 * max(axis.dataLim.y1, 1e-9))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
