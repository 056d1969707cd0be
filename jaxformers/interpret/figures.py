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
        _picture(axis, _stretched(component))
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
) -> Figure:
    """An MAE's work, a row for each image: the image, its visible patches, the reconstruction.

    All three in one range; `vision.reconstructions` gives the last two.
    """
    rows = [np.asarray(column) for column in (images, masked, completed)]
    low, high = rows[0].min(), rows[0].max()
    figure = Figure(figsize=(6, 2 * len(rows[0]) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows[0]), 3, squeeze=False)
    names = ("original", "masked", "reconstruction")
    for i, row in enumerate(axes):
        for axis, name, kind in zip(row, names, rows, strict=True):
            _picture(axis, np.clip((kind[i] - low) / max(high - low, 1e-9), 0, 1))
            if i == 0:
                axis.set_title(name)
    return figure


def attention_figure(
    probabilities: Float[Array, "H T S"],
    targets: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> Figure:
    """One layer's attention of one example, a panel for each head, with its tokens if given."""
    probabilities = np.asarray(probabilities)
    side = 2.4 + 0.12 * max(len(targets), len(sources))
    figure, axes = _tiles(len(probabilities), 4, side, "")
    for head, (axis, weights) in enumerate(zip(axes, probabilities, strict=True)):
        axis.imshow(weights, vmin=0, vmax=weights.max(), cmap="viridis", aspect="auto")
        axis.set_title(f"head {head}", fontsize=9)
        axis.set_xticks(range(len(sources)), sources, rotation=90, fontsize=7)
        axis.set_yticks(range(len(targets)), targets, fontsize=7)
    return figure


def heat_figure(
    image: Float[Array, "H W C"],
    heats: Float[Array, "M H W"],
    titles: Sequence[str],
) -> Figure:
    """The picture, and beside it where each class's relevance lies on it.

    Args:
        image: pixels between 0 and 1.
        heats: `explain.heat_map` of each class, of the picture's height and width.
        titles: what to write above each.
    """
    image, heats = np.asarray(image), np.asarray(heats)
    width = 3 * image.shape[1] / image.shape[0]
    # Classes of ImageNet have names of a whole line: they wrap within their own picture's width.
    titles = [textwrap.fill(title, max(12, int(11 * width))) for title in titles]
    more = max((title.count("\n") for title in titles), default=0)
    size = (width * (len(heats) + 1), 3.4 + 0.17 * more)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(heats) + 1, squeeze=False)[0]
    for axis, title in zip(axes, ("", *titles), strict=True):
        _picture(axis, image)
        axis.set_title(title, fontsize=10)
    for axis, heat in zip(axes[1:], heats, strict=True):
        strength = _stretched(heat)
        axis.imshow(strength, cmap="jet", alpha=0.25 + 0.4 * strength, vmin=0, vmax=1)
    return figure


def text_figure(
    rows: Sequence[tuple[str, Sequence[str], Sequence[float]]], characters: int = 90
) -> Figure:
    """Texts with each token on red as deep as its relevance.

    Args:
        rows: (title, tokens, their relevance) of each explained score.
        characters: how many fit into a line.
    """
    texts = [(title, _lines(tokens, characters), relevance) for title, tokens, relevance in rows]
    height = sum(len(lines) + 1.7 for _, lines, _ in texts)
    figure = Figure(figsize=(0.0765 * (characters + 2), 0.26 * height + 0.1))
    at = height
    for title, lines, relevance in texts:
        figure.text(0.01, (at - 1) / height, title, fontsize=11, weight="bold")
        strengths = iter(_stretched(np.asarray(relevance, float)))
        for down, line in enumerate(lines):
            for start, token in line:
                red = (1, 0.15, 0.15, float(next(strengths)))
                box = dict(facecolor=red, edgecolor="none", pad=1.5)
                position = (start + 1) / (characters + 2), (at - 2.2 - down) / height
                style = dict(fontsize=9, family="monospace", parse_math=False, bbox=box)
                figure.text(*position, token, **style)
        at -= len(lines) + 1.7
    return figure


def _lines(tokens: Sequence[str], characters: int) -> list[list[tuple[int, str]]]:
    """Tokens with the columns at which they start, in lines of so many characters."""
    lines: list[list[tuple[int, str]]] = [[]]
    column = 0
    for token in tokens:
        if column and column + len(token) > characters:
            lines.append([])
            column = 0
        lines[-1].append((column, token))
        column += len(token) + 1
    return lines


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


def _picture(axis, image: np.ndarray) -> None:
    grey = image.ndim == 3 and image.shape[2] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()


def _stretched(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / max(float(x.max() - x.min()), 1e-12)


def _labelled(axis, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
