"""Colours of segments as text and back (Unified-IO's segmentation-conditioned synthesis).

A segmentation is stated in a prompt as `label : colour , label : colour`, in the order in which
its masks are painted. The published table is followed to the letter: its first colour is called
white and painted red, as is its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxformers.errors import DataError

PALETTE = (
    ("white", (255, 0, 0)),
    ("red", (255, 0, 0)),
    ("lime", (0, 255, 0)),
    ("blue", (0, 0, 255)),
    ("white", (255, 255, 255)),
    ("gray", (128, 128, 128)),
    ("fuchsia", (255, 0, 255)),
    ("yellow", (255, 255, 0)),
    ("aqua", (0, 255, 255)),
    ("silver", (192, 192, 192)),
    ("maroon", (128, 0, 0)),
    ("olive", (128, 128, 0)),
    ("green", (0, 128, 0)),
    ("teal", (0, 128, 128)),
    ("navy", (0, 0, 128)),
    ("purple", (128, 0, 128)),
)


class Segment(NamedTuple):
    """A label, the name of its colour, and the colour its mask is painted in (None: unknown)."""

    label: str
    colour: str
    rgb: tuple[int, int, int] | None


def segments_text(labels: Sequence[str]) -> str:
    """`label : colour , label : colour`, in lower case, the colours in the palette's order.

    Raises:
        DataError: no label, or more than the palette's 16.
    """
    if not 1 <= len(labels) <= len(PALETTE):
        raise DataError(f"{len(labels)} segments; the palette has colours for 1 to {len(PALETTE)}")
    names = [name for name, _ in PALETTE[: len(labels)]]
    pairs = zip(labels, names, strict=True)
    return " , ".join(f"{label} : {name}" for label, name in pairs).lower()


def read_segments(text: str) -> list[Segment]:
    """The segments that a text states; what names no colour has an empty one and no RGB."""
    segments = []
    for position, entry in enumerate(text.split(" , ")):
        label, _, name = (word.strip() for word in entry.rpartition(":"))
        if not label:  # no colon, or nothing before it
            label, name = name, ""
        segments.append(Segment(label, name, _colour(name, position)))
    return [segment for segment in segments if segment.label]


def nearest_colour(rgb: Sequence[float]) -> str:
    """The palette's name of the colour nearest to `rgb` (0 to 255), white being white."""
    colours = np.array([colour for _, colour in PALETTE[1:]], np.float64)
    distances = ((colours - np.asarray(rgb, np.float64)) ** 2).sum(axis=1)
    return PALETTE[1 + int(distances.argmin())][0]


def _colour(name: str, position: int) -> tuple[int, int, int] | None:
    # "white" is two colours: that at this position in the text, else the true one.
    if position < len(PALETTE) and PALETTE[position][0] == name:
        return PALETTE[position][1]
    return next((colour for entry, colour in reversed(PALETTE) if entry == name), None)
