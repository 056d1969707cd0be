"""Generated ids read as text, regions, points and key points; whatever the ids, nothing raises.

Each answer holds what was understood, and in `problems` what was not. On well-formed answers the
values are those of the published code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxformers.text.unified_io.locations import Size, bin_coordinates
from jaxformers.text.unified_io.tokenizer import UnifiedIOTokenizer

JOINTS = 17  # of COCO's persons
ORDER = {2: [1, 0], 4: [1, 0, 3, 2]}  # y x -> x y


@dataclass(frozen=True)
class TextAnswer:
    """A text, without the location tokens and image codes that stood in it."""

    text: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Regions:
    """Boxes x1 y1 x2 y2 in pixels `[N, 4]`, and the label of each, perhaps empty."""

    boxes: Float[np.ndarray, "N 4"]
    labels: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Points:
    """Points x y in pixels `[N, 2]`, and the label of each, perhaps empty."""

    points: Float[np.ndarray, "N 2"]
    labels: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyPoints:
    """The 17 joints of a person.

    Attributes:
        points: x y in pixels; joints that are not visible lie at the mean of those that are.
        visibility: 0 absent, 1 hidden, 2 visible.
        problems: what was not understood.
    """

    points: Float[np.ndarray, "17 2"]
    visibility: Int[np.ndarray, "17"]
    problems: tuple[str, ...] = ()


def read_text(tokenizer: UnifiedIOTokenizer, ids: Sequence[int]) -> TextAnswer:
    """The text of `ids` up to the first eos."""
    tokens, problems = _answer_tokens(tokenizer, ids)
    num_locations = sum(tokenizer.location_bin(token) is not None for token in tokens)
    if num_locations:
        problems.append(f"{num_locations} location tokens in a text")
    return TextAnswer(tokenizer.decode([tokens])[0].strip(), tuple(problems))


def read_regions(tokenizer: UnifiedIOTokenizer, ids: Sequence[int], size: Size) -> Regions:
    """Boxes, each perhaps followed by a label, in a picture of `size` (height, width)."""
    boxes, labels, problems = _located(tokenizer, ids, size, 4)
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    if num_turned := int((boxes[:, :2] > boxes[:, 2:]).any(axis=1).sum()):
        problems.append(f"{num_turned} boxes with their corners exchanged")
    return Regions(np.concatenate([low, high], axis=1), labels, tuple(problems))


def read_points(tokenizer: UnifiedIOTokenizer, ids: Sequence[int], size: Size) -> Points:
    """Points, each perhaps followed by a label, in a picture of `size` (height, width)."""
    points, labels, problems = _located(tokenizer, ids, size, 2)
    return Points(points, labels, tuple(problems))


def read_key_points(tokenizer: UnifiedIOTokenizer, ids: Sequence[int], size: Size) -> KeyPoints:
    """17 points, each followed by 1, 2 or 3 (COCO's visibility plus one)."""
    points, labels, problems = _located(tokenizer, ids, size, 2)
    visibility = np.array([int(x) - 1 if x in ("1", "2", "3") else 0 for x in labels], np.int64)
    if unclear := sum(label not in ("1", "2", "3") for label in labels):
        problems.append(f"{unclear} points without 1, 2 or 3 behind them")
    if not visibility.any():
        problems.append("no visible joint")
        zeros = np.zeros((JOINTS, 2)), np.zeros(JOINTS, np.int64)
        return KeyPoints(*zeros, tuple(problems))
    points[visibility == 0] = points[visibility != 0].mean(axis=0)
    if len(points) != JOINTS:
        problems.append(f"{len(points)} joints, not {JOINTS}")
    missing = max(JOINTS - len(points), 0)
    filling = np.tile(points.mean(axis=0), (missing, 1))
    return KeyPoints(
        np.concatenate([points, filling])[:JOINTS],
        np.pad(visibility, (0, missing))[:JOINTS],
        tuple(problems),
    )


def _located(
    tokenizer: UnifiedIOTokenizer, ids: Sequence[int], size: Size, coordinates: int
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Groups of `coordinates` locations, x before y, with the text behind each; and problems."""
    tokens, problems = _answer_tokens(tokenizer, ids)
    groups: list[list[int]] = []
    labels: list[str] = []
    for bins, text in _runs(tokenizer, tokens):
        num_groups, surplus = divmod(len(bins), coordinates)
        if surplus:
            problems.append(f"{surplus} location tokens where {coordinates} belong together")
        groups += [bins[i * coordinates :][:coordinates] for i in range(num_groups)]
        labels += [""] * num_groups
        if text and num_groups:
            labels[-1] = text
        elif text:
            problems.append(f"{text!r:.60} without a location before it")
    array = np.array(groups, np.float64).reshape(-1, coordinates)[:, ORDER[coordinates]]
    return bin_coordinates(array, size), tuple(labels), problems


def _runs(tokenizer: UnifiedIOTokenizer, tokens: list[int]) -> Iterator[tuple[list[int], str]]:
    """Every run of locations, as bins, with the text that follows it."""
    bins: list[int] = []
    label: list[int] = []
    for token in tokens:
        index = tokenizer.location_bin(token)
        if index is None:
            label.append(token)
            continue
        if label:
            yield bins, tokenizer.decode([label])[0].strip()
            bins, label = [], []
        bins.append(index)
    if bins or label:
        yield bins, tokenizer.decode([label])[0].strip()


def _answer_tokens(
    tokenizer: UnifiedIOTokenizer, ids: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Pieces and locations of `ids` up to the first eos, and a line on all that is neither."""
    tokens, ignored = [], 0
    for token in map(int, ids):
        if token == tokenizer.eos_id:
            break
        if (
            tokenizer.unk_id < token < tokenizer.num_pieces
            or tokenizer.location_bin(token) is not None
        ):
            tokens.append(token)
        elif token != tokenizer.pad_id:
            ignored += 1
    return tokens, [f"{ignored} ids that are neither text nor locations"] * bool(ignored)
