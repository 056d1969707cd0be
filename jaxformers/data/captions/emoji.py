"""The bundled emoji: 1,906 concepts, each drawn in up to three styles, with names and keywords.

Every drawing is 48 x 48 pixels, RGB on white. A concept belongs to a family: man, woman and person
of one occupation together, so that no family is split between training and held-out concepts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from jaxformers.data.captions.captioned_images import CaptionedImages, CaptionSource
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import ConfigError
from jaxformers.fields import PositiveInt

FOLDER = Path(__file__).parents[1] / "bundled" / "emoji"
SIDE, COLUMNS = 48, 40
HELD_OUT = 10  # one family in ten
Style = Literal["noto", "twemoji", "fluent"]
CaptionForm = Literal["name", "name and keywords", "keywords"]
PEOPLE = re.compile(r"\b(wo)?(man|men)\b|\b(person|people|boys?|girls?|adult|child)\b")


@dataclass(frozen=True)
class BundledEmoji(CaptionSource):
    """Emoji of some styles and concepts (bundled/NOTICE.md)."""

    styles: tuple[Style, ...] = ("noto", "twemoji", "fluent")
    concepts: Literal["all", "seen", "held-out"] = "all"
    """`held-out`: one family of concepts in ten; `seen`: the others."""
    limit: PositiveInt | None = None
    """At most so many drawings, evenly spaced."""
    caption_forms: tuple[CaptionForm, ...] = ("name", "name and keywords", "keywords")
    """The captions of a drawing."""
    groups: bool = False
    """Whether captions name the group of the concept too, such as "Food & Drink"."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("styles", "caption_forms"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name} {values} must be one or more, each once")

    def open(self) -> EmojiImages:
        """The drawings, style after style."""
        entries = [
            (style, number)
            for style in self.styles
            for number, concept in enumerate(concepts())
            if (style != "fluent" or concept["fluent"])
            and self.concepts in ("all", "held-out" if held_out(concept) else "seen")
        ]
        chosen = evenly_spaced(len(entries), self.limit)
        return EmojiImages([entries[index] for index in chosen], self)


class EmojiImages(CaptionedImages):
    """Drawings of emoji; see `BundledEmoji`.

    Args:
        entries: (style, number of the concept) of each drawing.
        config: which captions the drawings have.
    """

    def __init__(self, entries: list[tuple[str, int]], config: BundledEmoji):
        self.entries, self._config = entries, config
        self.source = "bundled emoji"

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Image.Image:
        """The drawing, 48 x 48 RGB."""
        style, number = self.entries[index]
        top, left = (SIDE * place for place in divmod(number, COLUMNS))
        return Image.fromarray(sheet(style)[top : top + SIDE, left : left + SIDE])

    def captions(self, index: int) -> tuple[str, ...]:
        """Those of `caption_forms`, then name and group if the fields ask for it."""
        concept = self.concept(index)
        name, keywords = concept["name"], " ".join(concept["keywords"])
        forms: dict[CaptionForm, str] = {
            "name": name,
            "name and keywords": f"{name} {keywords}",
            "keywords": keywords,
        }
        captions = tuple(forms[form] for form in self._config.caption_forms)
        if self._config.groups:
            captions += (f"{name} {concept['group']}",)
        return captions

    def concept(self, index: int) -> dict[str, Any]:
        """`code`, `name`, `keywords`, `group` and `subgroup` of the drawing's concept."""
        return concepts()[self.entries[index][1]]

    def name(self, index: int) -> str:
        """The emoji's style and code point."""
        return f"{self.entries[index][0]}/{self.concept(index)['code']}"


def family(name: str) -> str:
    """The name without words for a person: "woman cook", "man cook" and "cook" are one family."""
    return " ".join(PEOPLE.sub("", name).split()) or name


def held_out(concept: dict[str, Any]) -> bool:
    """Whether a concept's family is held out of training."""
    digest = hashlib.md5(family(concept["name"]).encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % HELD_OUT == 0


@cache
def concepts() -> tuple[dict[str, Any], ...]:
    """All concepts, in the order of the sheets."""
    with gzip.open(FOLDER / "emoji.jsonl.gz", "rt", encoding="utf-8") as file:
        return tuple(json.loads(line) for line in file)


@cache
def sheet(style: Style) -> np.ndarray:
    """A style's sheet of drawings, uint8 `[rows * 48, 40 * 48, 3]`, row by row."""
    with Image.open(FOLDER / f"{style}.webp") as image:
        return np.asarray(image.convert("RGB"))
