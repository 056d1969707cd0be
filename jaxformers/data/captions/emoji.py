"""The bundled emoji: 1,906 concepts, each drawn in up to three styles, with names and keywords.

Every drawing is 48 x 48 pixels, RGB on white. A concept belongs to a family: man, woman and person
of one occupation together, so that no family is split between training and held-out concepts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from jaxformers.data.captions.captioned_images import CaptionedImages, CaptionSource
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import ConfigError
from jaxformers.fields import NonNegativeInt, PositiveInt

FOLDER = Path(__file__).parents[1] / "bundled" / "emoji"
SIDE, COLUMNS = 48, 40
HELD_OUT = 10  # one family in ten
SAMPLED_SHARE = 0.5  # of the words of a name and keywords in a sampled caption
Style = Literal["noto", "twemoji", "fluent"]
PEOPLE = re.compile(r"\b(wo)?(man|men)\b|\b(person|people|boys?|girls?|adult|child)\b")


@dataclass(frozen=True)
class BundledEmoji(CaptionSource):
    """Emoji of some styles and concepts (bundled/NOTICE.md)."""

    styles: tuple[Style, ...] = ("noto", "twemoji", "fluent")
    concepts: Literal["all", "seen", "held-out"] = "all"
    """`held-out`: one family of concepts in ten; `seen`: the others."""
    limit: PositiveInt | None = None
    """At most so many drawings, evenly spaced."""
    groups: bool = False
    """Whether captions name the group of the concept too, such as "Food & Drink"."""
    word_samples: NonNegativeInt = 0
    """Further captions of a drawing, each a random sample of the words of its name and keywords."""

    def __post_init__(self):
        super().__post_init__()
        if not self.styles or len(set(self.styles)) < len(self.styles):
            raise ConfigError(f"styles {self.styles} must be one or more different styles")

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
        return EmojiImages([entries[index] for index in chosen], self.groups, self.word_samples)


class EmojiImages(CaptionedImages):
    """Drawings of emoji; see `BundledEmoji`.

    Args:
        entries: (style, number of the concept) of each drawing.
        groups: whether captions name the group too.
        word_samples: number of captions of random words.
    """

    def __init__(self, entries: list[tuple[str, int]], groups: bool = False, word_samples: int = 0):
        self.entries, self._groups, self._word_samples = entries, groups, word_samples
        self.source = "bundled emoji"

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Image.Image:
        """The drawing, 48 x 48 RGB."""
        style, number = self.entries[index]
        top, left = (SIDE * place for place in divmod(number, COLUMNS))
        return Image.fromarray(sheet(style)[top : top + SIDE, left : left + SIDE])

    def captions(self, index: int) -> tuple[str, ...]:
        """The name; both name and keywords; the keywords; those that the data's fields add."""
        concept = self.concept(index)
        name, keywords = concept["name"], " ".join(concept["keywords"])
        captions = (name, f"{name} {keywords}", keywords or name)
        if self._groups:
            captions += (f"{name} {concept['group']}",)
        return captions + tuple(self._sampled_words(index))

    def _sampled_words(self, index: int) -> Iterator[str]:
        """Captions of words in random order, half of them on average; always the same ones."""
        concept = self.concept(index)
        rng = np.random.default_rng(zlib.crc32(self.name(index).encode()))
        words = [*concept["name"].split(), *concept["keywords"]]
        for _ in range(self._word_samples):
            count = max(1, rng.binomial(len(words), SAMPLED_SHARE))
            yield " ".join(rng.permutation(words)[:count])

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
