"""The bundled movie sentences, with their signs or their ratings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxformers.data.pipeline.subsets import evenly_spaced, split_by_hash
from jaxformers.data.text.labelled_texts import (
    Example,
    LabelledSource,
    LabelledTexts,
    Labels,
    filled_lines,
    gathered,
    in_order_of,
)
from jaxformers.fields import PositiveInt

FILE = Path(__file__).parents[1] / "bundled" / "movie_sentences.tsv.gz"


@dataclass(frozen=True)
class BundledMovies(LabelledSource):
    """The 10,605 rated sentences inside the package (bundled/NOTICE.md), from movie reviews.

    The split is by the MD5 of the sentence modulo 10, so that no sentence stands on both sides:
    1,054 test sentences (0), 1,016 for development (1), 8,535 to train on. The 37 rated exactly 0
    have no sign, which leaves 1,050, 1,013 and 8,505.
    """

    split: Literal["train", "dev", "test"] = "train"
    kind: Literal["sign", "rating"] = "sign"
    """Label: whether the mean rating is positive, or the rating itself, -4 to 4."""
    limit: PositiveInt | None = None
    """At most so many sentences, evenly spaced."""

    @property
    def own(self) -> Labels:
        """Negative and positive, or numbers."""
        return Labels(1) if self.kind == "rating" else Labels(2, ("negative", "positive"))

    def other(self, split: Literal["dev", "test"]) -> BundledMovies:
        """The development or test sentences."""
        return replace(self, split=split)

    def open(self, labels: Labels) -> LabelledTexts:
        """Reads the selected sentences."""
        rows = list(self._examples())
        rows = [rows[index] for index in evenly_spaced(len(rows), self.limit)]
        texts = gathered(rows, self.own, f"movie {self.kind}s, {self.split}")
        return in_order_of(labels, self.own, texts)

    def _examples(self) -> Iterator[Example]:
        for number, line in filled_lines(str(FILE)):
            rating, sentence = line.split("\t")
            if split_by_hash(sentence) != self.split or (
                self.kind == "sign" and float(rating) == 0
            ):
                continue
            label = rating if self.kind == "rating" else int(float(rating) > 0)
            yield Example(number, sentence, None, label)
