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

CHARACTER, LINE = 0.0765, 0.26  # inches of a monospaced character of 9 points, and of a line
LEAST_EVIDENCE = 0.01  # of the scale's end: what is below it cannot be told from 0 by its colour


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
            _picture(axis, np.clip((array[i] - low) / max(high - low, 1e-9), 0, 1))
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


def heat_figure(
    image: Float[Array, "H W C"],
    heats: Float[Array, "M H W"],
    titles: Sequence[str],
    label: str = "relevance",
) -> Figure:
    """The image, and beside it each class's heat map over it, all on one scale with a colour bar.

    The scale begins at 0 and ends at the greatest value of all classes; a class whose values do not
    reach a hundredth of it is marked "no evidence" and shown without colours.

    Args:
        image: pixels between 0 and 1.
        heats: `explain.heat_map` of each class, of the image's height and width, comparable between
            classes; 0: none.
        titles: what to write above each.
        label: what the colours mean.
    """
    image, heats = np.asarray(image), np.nan_to_num(np.asarray(heats))
    peak = float(heats.max(initial=0.0))
    # A faint class stretched over its own range would glow like the likeliest one.
    evident = [bool(peak > 0 and heat.max() >= LEAST_EVIDENCE * peak) for heat in heats]
    titles = [t if e else f"{t}\n(no evidence)" for t, e in zip(titles, evident, strict=True)]
    width = 3 * image.shape[1] / image.shape[0]
    # Classes of ImageNet have names of a whole line: they wrap within their own image's width.
    titles = [_wrapped(title, max(12, int(11 * width))) for title in titles]
    more = max((title.count("\n") for title in titles), default=0)
    size = (width * (len(heats) + 1), 3.4 + 0.17 * more)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(heats) + 1, squeeze=False)[0]
    for axis, title in zip(axes, ("", *titles), strict=True):
        _picture(axis, image)
        axis.set_title(title, fontsize=10)
    grey = image.mean(-1)  # [H, W]: colours are the relevance's alone
    for axis, heat, has_evidence in zip(axes[1:], heats, evident, strict=True):
        if not has_evidence:
            continue
        _picture(axis, np.repeat(grey[..., None], 3, -1))
        mappable = axis.imshow(heat, cmap="inferno", alpha=0.7, vmin=0, vmax=peak)
    if any(evident):
        # Inset: a colour bar beside the axes would make the last image narrower than the others.
        bar = axes[-1].inset_axes((1.03, 0.0, 0.06, 1.0))
        figure.colorbar(mappable, cax=bar).set_label(label, fontsize=8)
        bar.tick_params(labelsize=7)
    return figure


def match_figure(
    image: Float[Array, "H W C"],
    heats: Float[Array, "M H W"],
    scores: Sequence[float],
    words: Sequence[Sequence[str]],
    shares: Sequence[Float[Array, " n"]],
) -> Figure:
    """A row for each text: the image, its heat map, and the text with its words on red.

    Args:
        image: pixels between 0 and 1.
        heats: of each text, all on one scale from 0.
        scores: what to write above each heat map.
        words: of each text.
        shares: of each text's words, all on one scale from 0.
    """
    image, heats = np.asarray(image), np.nan_to_num(np.asarray(heats))
    side, text_width, rows = 2.4, 4.4, len(heats)
    figure = Figure(figsize=(2 * side + text_width + 1.3, rows * (side + 0.35)))
    width, height = figure.get_size_inches()
    peak = float(heats.max(initial=0.0))
    # One scale for all texts: a share of all of a text's relevance, whatever its length.
    darkest = max((float(np.max(row, initial=0.0)) for row in shares), default=0.0)
    for number, (heat, score) in enumerate(zip(heats, scores, strict=True)):
        bottom = height - (number + 1) * (side + 0.35) + 0.05
        # Rectangles in inches: the third axis then holds a number of characters that is known.
        lefts = (0.05, side + 0.15, 2 * side + 1.2)
        inches = ((lefts[0], side), (lefts[1], side), (lefts[2], text_width))
        picture, map_axis, text_axis = (
            figure.add_axes((left / width, bottom / height, span / width, side / height))
            for left, span in inches
        )
        _picture(picture, image)
        text_axis.set_axis_off()
        evident = peak > 0 and heat.max() >= LEAST_EVIDENCE * peak
        _picture(map_axis, np.repeat(image.mean(-1)[..., None], 3, -1) if evident else image)
        map_axis.set_title(f"cosine {score:.3f}{'' if evident else ' (no evidence)'}", fontsize=9)
        if evident:
            mappable = map_axis.imshow(heat, cmap="inferno", alpha=0.7, vmin=0, vmax=peak)
            bar = map_axis.inset_axes((1.03, 0.0, 0.05, 1.0))
            figure.colorbar(mappable, cax=bar).set_label("relevance for the logit", fontsize=7)
            bar.tick_params(labelsize=6)
        strengths = np.asarray(shares[number]) / max(darkest, 1e-12)
        if not strengths.any():
            text_axis.set_title("no evidence in the words", fontsize=9, loc="left")
        _marked_words(text_axis, words[number], strengths, int(text_width / CHARACTER), side)
    return figure


def _marked_words(axis, words, strengths, characters: int, height: float) -> None:
    """Words in lines from the top of an axis `height` inches high, each on red."""
    strength = iter(strengths)
    for down, line in enumerate(_lines(words, characters), 1):
        for start, word in line:
            box = dict(facecolor=(1, 0.15, 0.15, float(next(strength))), edgecolor="none", pad=1.5)
            style = dict(fontsize=9, family="monospace", parse_math=False, bbox=box)
            position = start / characters, 1 - LINE * down / height
            axis.text(*position, word, transform=axis.transAxes, **style)


def hits_figure(
    queries: Sequence[str | np.ndarray], hits: Sequence[Sequence[tuple[np.ndarray, float]]]
) -> Figure:
    """Results of a search, a row for each query: the query, and its hits with their scores.

    Args:
        queries: texts, or images `[H, W, C]` between 0 and 1.
        hits: (image, score) of each query, the best first.
    """
    columns = 1 + max(map(len, hits), default=0)
    figure = Figure(figsize=(1.6 * columns, 1.8 * len(queries)), layout="constrained")
    axes = figure.subplots(len(queries), columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_axis_off()
    for row, query, entries in zip(axes, queries, hits, strict=True):
        if isinstance(query, str):
            text = textwrap.fill(query, 18, max_lines=8, placeholder=" ...")
            style = dict(ha="center", va="center", fontsize=9, parse_math=False)
            row[0].text(0.5, 0.5, text, transform=row[0].transAxes, **style)
        else:
            _picture(row[0], query)
            row[0].set_title("query", fontsize=8)
        for axis, (image, score) in zip(row[1:], entries, strict=False):
            _picture(axis, image)
            axis.set_title(f"{score:.3f}", fontsize=8)
    return figure


def _wrapped(title: str, characters: int) -> str:
    return "\n".join(textwrap.fill(line, characters) for line in title.split("\n"))


def text_figure(
    rows: Sequence[tuple[str, Sequence[str], Sequence[float]]], characters: int = 90
) -> Figure:
    """Texts with each token on red as deep as its relevance, on one scale for all rows.

    A row whose relevance does not reach a hundredth of the greatest is marked "no evidence".

    Args:
        rows: (title, tokens, their relevance) of each explained score.
        characters: how many fit into a line.
    """
    values = [np.maximum(np.nan_to_num(np.asarray(row[2], float)), 0) for row in rows]
    peak = max((float(row.max(initial=0.0)) for row in values), default=0.0)
    texts = []
    for (title, tokens, _), row in zip(rows, values, strict=True):
        if row.max(initial=0.0) < LEAST_EVIDENCE * peak or peak == 0:
            title, row = f"{title} (no evidence)", np.zeros_like(row)
        texts.append((title, _lines(tokens, characters), row / max(peak, 1e-12)))
    height = sum(len(lines) + 1.7 for _, lines, _ in texts)
    figure = Figure(figsize=(CHARACTER * (characters + 2), LINE * height + 0.1))
    at = height
    for title, lines, strength in texts:
        figure.text(0.01, (at - 1) / height, title, fontsize=11, weight="bold")
        strengths = iter(strength)
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
    # A fixed top: autoscaling leaves a twentieth of the data's range, which above 0 may be nothing.
    axis.set_ylim(0, 1.06 * max(axis.dataLim.y1, 1e-9))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
