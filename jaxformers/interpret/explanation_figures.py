"""Figures of explanations: heat maps over an image, and words on red; each returns a Figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxformers.arrays import Array
from jaxformers.interpret.figures import draw_picture

CHARACTER, LINE = 0.0765, 0.26  # inches of a monospaced character of 9 points, and of a line
LEAST_EVIDENCE = 0.01  # of the scale's end: what is below it cannot be told from 0 by its colour


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
        draw_picture(axis, image)
        axis.set_title(title, fontsize=10)
    grey = image.mean(-1)  # [H, W]: colours are the relevance's alone
    for axis, heat, has_evidence in zip(axes[1:], heats, evident, strict=True):
        if not has_evidence:
            continue
        draw_picture(axis, np.repeat(grey[..., None], 3, -1))
        mappable = axis.imshow(heat, cmap="inferno", alpha=0.7, vmin=0, vmax=peak)
    if any(evident):
        # Inset: a colour bar beside the axes would make the last image narrower than the others.
        bar = axes[-1].inset_axes((1.03, 0.0, 0.06, 1.0))
        figure.colorbar(mappable, cax=bar).set_label(label, fontsize=8)
        bar.tick_params(labelsize=7)
    return figure


def match_figure(
    image: Float[Array, "H W C"] | None,
    heats: Float[Array, "M H W"],
    titles: Sequence[str],
    words: Sequence[Sequence[str]],
    shares: Sequence[Float[Array, " n"]],
) -> Figure:
    """A row for each score of an image and a text: the image, its heat map, the words on red.

    Args:
        image: pixels between 0 and 1; None: there is none, and a row has its words alone.
        heats: of each score, all on one scale from 0.
        titles: what to write above each heat map, or above the words where there is no image.
        words: of the text of each score.
        shares: of these words, all on one scale from 0.
    """
    side, text_width, title_height = 2.4, 4.4, 0.35
    text_height = _text_height(words, text_width)
    row_height = text_height if image is None else max(side, text_height)
    widths, lefts = (side, side, text_width), (0.05, side + 0.15, 2 * side + 1.2)
    if image is None:
        widths, lefts = widths[2:], lefts[:1]
    width, height = lefts[-1] + text_width + 0.1, len(titles) * (row_height + title_height)
    figure = Figure(figsize=(width, height))
    peak = float(np.nan_to_num(heats).max(initial=0.0))
    # One scale for all rows: a share of all of a row's relevance, however many words it has.
    darkest = max((float(np.max(row, initial=0.0)) for row in shares), default=0.0)
    for number, title in enumerate(titles):
        bottom = height - (number + 1) * (row_height + title_height) + 0.05
        # Rectangles in inches: the last axis then holds a number of characters that is known.
        *image_axes, text_axis = (
            figure.add_axes((left / width, bottom / height, span / width, row_height / height))
            for left, span in zip(lefts, widths, strict=True)
        )
        text_axis.set_axis_off()
        strengths = np.asarray(shares[number]) / max(darkest, 1e-12)
        note = "" if strengths.any() or not words[number] else "no evidence in the words"
        if image is None:
            note = f"{title} ({note})" if note else title
        else:
            _heat_over(image_axes, np.asarray(image), np.nan_to_num(heats[number]), peak, title)
        text_axis.set_title(note, fontsize=9, loc="left", parse_math=False)
        _marked_words(text_axis, words[number], strengths, int(text_width / CHARACTER), row_height)
    return figure


def _heat_over(axes, image: np.ndarray, heat: np.ndarray, peak: float, title: str) -> None:
    """The image on one axis, and on the other its heat map, on a scale from 0 to `peak`."""
    picture_axis, map_axis = axes
    draw_picture(picture_axis, image)
    evident = peak > 0 and heat.max() >= LEAST_EVIDENCE * peak
    draw_picture(map_axis, np.repeat(image.mean(-1)[..., None], 3, -1) if evident else image)
    title = title if evident else f"{title} (no evidence)"
    map_axis.set_title(title, fontsize=9, parse_math=False)
    if evident:
        mappable = map_axis.imshow(heat, cmap="inferno", alpha=0.7, vmin=0, vmax=peak)
        bar = map_axis.inset_axes((1.03, 0.0, 0.05, 1.0))
        map_axis.figure.colorbar(mappable, cax=bar).set_label("relevance for the logit", fontsize=7)
        bar.tick_params(labelsize=6)


def _text_height(words: Sequence[Sequence[str]], width: float) -> float:
    """Inches that the longest of some texts needs in an axis `width` inches wide."""
    lines = max((len(_lines(row, int(width / CHARACTER))) for row in words), default=1)
    return LINE * (lines + 1)


def _marked_words(axis, words, strengths, characters: int, height: float) -> None:
    """Words in lines from the top of an axis `height` inches high, each on red."""
    strength = iter(strengths)
    for down, line in enumerate(_lines(words, characters), 1):
        for start, word in line:
            box = dict(facecolor=(1, 0.15, 0.15, float(next(strength))), edgecolor="none", pad=1.5)
            style = dict(fontsize=9, family="monospace", parse_math=False, bbox=box)
            position = start / characters, 1 - LINE * down / height
            axis.text(*position, word, transform=axis.transAxes, **style)


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


def _wrapped(title: str, characters: int) -> str:
    return "\n".join(textwrap.fill(line, characters) for line in title.split("\n"))
