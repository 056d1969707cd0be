"""Unified-IO's tokens: T5's pieces, location bins, colours, and answers read back from ids.

Imports `text.base`, `text.sentence_piece`, `text.json_files` and `errors`.
"""

from jaxformers.text.unified_io.answers import (
    KeyPoints,
    Points,
    Regions,
    TextAnswer,
    read_key_points,
    read_points,
    read_regions,
    read_text,
)
from jaxformers.text.unified_io.colours import (
    Segment,
    nearest_colour,
    read_segments,
    segments_text,
)
from jaxformers.text.unified_io.locations import (
    bin_coordinates,
    box_text,
    checked_box,
    coordinate_bins,
    key_points_text,
    point_text,
    regions_text,
)
from jaxformers.text.unified_io.tokenizer import UnifiedIOTokenizer

__all__ = [
    "KeyPoints",
    "Points",
    "Regions",
    "Segment",
    "TextAnswer",
    "UnifiedIOTokenizer",
    "bin_coordinates",
    "box_text",
    "checked_box",
    "coordinate_bins",
    "key_points_text",
    "nearest_colour",
    "point_text",
    "read_key_points",
    "read_points",
    "read_regions",
    "read_segments",
    "read_text",
    "regions_text",
    "segments_text",
]
