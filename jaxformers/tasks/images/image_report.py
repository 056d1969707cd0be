"""What a report shows of an image classifier: confusion matrix, classes, the most wrong images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from jaxformers.data.images import LabelledImages, WholeImage
from jaxformers.data.images.augment.crops import Frame
from jaxformers.data.images.decoding import ColourRule, decoding, pixels
from jaxformers.errors import DataError
from jaxformers.models.problem_type import class_scores

DRAWN_CLASSES, NUMBERED_CLASSES, LISTED_CLASSES = 60, 25, 200
MOST_WRONG, COLUMNS = 12, 4
THUMBNAIL = Frame(160, ColourRule(3), "bilinear", fast=True)
CONFUSIONS = 20


class WrongImage(NamedTuple):
    """An image that was classified wrongly."""

    index: int
    expected: str
    """Its label, or labels."""
    predicted: str
    """What was predicted, with the probability."""


def confusion_matrix(
    predictions: Int[np.ndarray, "B"], labels: Int[np.ndarray, "B"], classes: int
) -> Int[np.ndarray, "N N"]:
    """Number of images by class (rows) and predicted class (columns)."""
    counts = np.bincount(labels * classes + predictions, minlength=classes**2)
    return counts.reshape(classes, classes)


def confusion_figure(matrix: Int[np.ndarray, "N N"], names: Sequence[str]) -> Figure:
    """A confusion matrix: colours are each class's shares from 0 to 1, numbers are images."""
    classes = len(matrix)
    totals = matrix.sum(1, keepdims=True)  # [N, 1]
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    side = 2.5 + 0.32 * classes
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axis = figure.subplots()
    mappable = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if classes <= NUMBERED_CLASSES else 6
    axis.set_xticks(range(classes), names, rotation=90, fontsize=size)
    axis.set_yticks(range(classes), names, fontsize=size)
    axis.set_xlabel("predicted")
    axis.set_ylabel("class")
    for row, column in np.argwhere(matrix) if classes <= NUMBERED_CLASSES else ():
        dark = shares[row, column] > 0.6
        axis.text(
            column,
            row,
            f"{matrix[row, column]:,}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark else "black",
        )
    figure.colorbar(mappable, fraction=0.045).set_label("share of the class")
    return figure


def class_lines(
    predicted: np.ndarray, expected: np.ndarray, names: Sequence[str], limit: int = LISTED_CLASSES
) -> list[str]:
    """A line for each class: its images, recall and precision; the lowest recall first.

    Args:
        predicted: bool [B, N].
        expected: bool [B, N].
        names: of the classes.
        limit: most lines.
    """
    counts, hits, claims = expected.sum(0), (predicted & expected).sum(0), predicted.sum(0)
    recall = np.divide(hits, counts, out=np.full(len(names), np.inf), where=counts > 0)
    lines = []
    for k in np.argsort(recall, kind="stable")[:limit]:
        found = f"{hits[k]} of {counts[k]} found" if counts[k] else "no image"
        right = f", {hits[k]} of {claims[k]} predictions right" if claims[k] else ""
        lines.append(f"{names[k]}: {found}{right or ', never predicted'}")
    return lines


def confusion_lines(matrix: Int[np.ndarray, "N N"], names: Sequence[str]) -> list[str]:
    """The most frequent confusions, one a line."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = (np.unravel_index(i, wrong.shape) for i in order)
    return [
        f"{names[row]} taken for {names[column]}: {wrong[row, column]:,}"
        for row, column in pairs
        if wrong[row, column]
    ]


def most_wrong(
    images: LabelledImages,
    logits: Float[np.ndarray, "B N"],
    names: Sequence[str],
    limit: int = MOST_WRONG,
) -> list[WrongImage]:
    """The wrongly classified images with the greatest loss, the greatest first."""
    if images.multi_label:
        scores = class_scores(logits, "multi_label_classification")
        expected, predicted = images.labels > 0, logits > 0
        losses = (np.logaddexp(0.0, logits) - logits * expected).sum(-1)
    else:
        scores = class_scores(logits, "single_label_classification")
        expected = np.eye(logits.shape[1], dtype=bool)[images.labels]
        predicted = np.eye(logits.shape[1], dtype=bool)[logits.argmax(-1)]
        losses = -scores[expected]
    wrong = np.flatnonzero((predicted != expected).any(-1))
    order = wrong[np.argsort(-losses[wrong], kind="stable")][:limit]
    return [
        WrongImage(
            int(i),
            ", ".join(names[k] for k in np.flatnonzero(expected[i])) or "(none)",
            ", ".join(f"{names[k]} {scores[i, k]:.0%}" for k in np.flatnonzero(predicted[i]))
            or "(none)",
        )
        for i in order
    ]


def most_wrong_figure(images: LabelledImages, wrong: Sequence[WrongImage]) -> Figure:
    """The images with their file names, labels and predictions above them."""
    rows = -(-len(wrong) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, entry in zip(axes, wrong, strict=False):
        name = os.path.basename(images.name(entry.index))
        axis.set_title(
            f"{name[-30:]}\n{entry.expected[:34]}\ntaken for {entry.predicted[:34]}",
            fontsize=8,
            parse_math=False,
        )
        with suppress(DataError), decoding(images.where(entry.index)):
            draw_thumbnail(axis, images.example(entry.index)[0])
    return figure


def draw_thumbnail(axis: Axes, image: Image.Image) -> None:
    """Draws an image, shrunk, in its own shape."""
    thumbnail = pixels(WholeImage()(image, THUMBNAIL, np.zeros(0)))
    # The thumbnail is a square; its pixels are drawn in the image's own shape.
    axis.imshow(thumbnail, aspect=image.height / image.width)
