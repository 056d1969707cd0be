"""Coordinates as location tokens and back (Unified-IO, section 3.1).

Pixels are divided by the longer side of the picture, which is the side of the square that it is
padded to, and fall into 1,000 bins:

    bin(v) = floor(999 v)        v in 0..1, so that bin 999 is v = 1 alone
    coordinate(b) = (b + 1) / 1000

The published code writes by the first rule and reads by the second. They are no inverses (bin 0
holds v from 0 to 1/999 and is read as 1/1000), yet a coordinate comes back within one bin, and a
bin that is read and written again is the same bin. A box is written y1 x1 y2 x2, a point y x.

Two faults of the published code are mended: bin 999 is a location when read, and coordinates
outside the picture are clipped, where it writes tokens that are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxformers.errors import DataError
from jaxformers.text.unified_io.tokenizer import BINS, SENTINELS

Size = tuple[int, int]
"""Height and width of a picture, in pixels."""


def coordinate_bins(pixels: Float[np.ndarray, "..."], size: Size) -> Int[np.ndarray, "..."]:
    """The bin of each coordinate in pixels, 0 to 999.

    Raises:
        DataError: a coordinate that is no finite number, or a picture without pixels.
    """
    pixels = np.asarray(pixels, np.float64)
    if not np.isfinite(pixels).all():
        raise DataError(f"coordinates {pixels.tolist()!s:.80} are not all finite numbers")
    if min(size) < 1:
        raise DataError(f"a picture of {size[0]} x {size[1]} pixels has no locations")
    return ((BINS - 1) * np.clip(pixels / max(size), 0, 1)).astype(np.int64)


def bin_coordinates(bins: Int[np.ndarray, "..."], size: Size) -> Float[np.ndarray, "..."]:
    """The coordinate in pixels that each bin is read as."""
    return (np.asarray(bins) + 1) * max(size) / BINS


def checked_box(box: Any, size: Size) -> tuple[float, float, float, float]:
    """The x1 y1 x2 y2 of a box with an area in a picture of `size`, in pixels.

    Raises:
        DataError: anything else than four finite numbers, or a box that is empty or outside.
    """
    try:
        corners = np.asarray(box)
    except ValueError:  # rows of several lengths
        corners = np.empty(0)
    if corners.shape != (4,) or corners.dtype.kind not in "iuf" or not np.isfinite(corners).all():
        raise DataError(f"the box {box!s:.80} is not four finite numbers: x1 y1 x2 y2 in pixels")
    x1, y1, x2, y2 = map(float, corners)
    if not (x1 < x2 and y1 < y2):
        raise DataError(
            f"the box {x1:g} {y1:g} {x2:g} {y2:g} is empty: x1 y1 is its upper left corner, x2 y2 "
            "its lower right one"
        )
    if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
        raise DataError(
            f"the box {x1:g} {y1:g} {x2:g} {y2:g} is outside the picture of {size[1]} x {size[0]} "
            "pixels"
        )
    return x1, y1, x2, y2


def box_text(box: Sequence[float], size: Size) -> str:
    """Four location tokens for `box`, x1 y1 x2 y2 in pixels of a picture of `size`."""
    x1, y1, x2, y2 = box
    return _tokens([y1, x1, y2, x2], size)


def point_text(point: Sequence[float], size: Size) -> str:
    """Two location tokens for `point`, x y in pixels."""
    x, y = point
    return _tokens([y, x], size)


def regions_text(boxes: Sequence[Sequence[float]], labels: Sequence[str], size: Size) -> str:
    """Boxes, each followed by its label: the target of detection and localisation."""
    pairs = zip(boxes, labels, strict=True)
    return " ".join(f"{box_text(box, size)} {label}".strip() for box, label in pairs)


def key_points_text(
    points: Sequence[Sequence[float]], visibility: Sequence[int], size: Size
) -> str:
    """Points, each followed by 1, 2 or 3: COCO's visibility 0 (absent), 1 (hidden), 2, plus one."""
    pairs = zip(points, visibility, strict=True)
    return " ".join(f"{point_text(point, size)} {int(level) + 1}" for point, level in pairs)


def _tokens(coordinates: Sequence[float], size: Size) -> str:
    bins = coordinate_bins(np.array(coordinates, np.float64), size)
    return " ".join(f"<extra_id_{SENTINELS + index}>" for index in bins.tolist())
