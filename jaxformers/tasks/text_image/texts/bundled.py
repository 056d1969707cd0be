"""The bundled texts as records: rated movie sentences, and headings in two languages."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jaxformers.data.text.labelled_texts import Labels
from jaxformers.data.text.movies import BundledMovies
from jaxformers.fields import CheckedFields
from jaxformers.tasks.text_image.records import Record

FOLDER = Path(__file__).parents[3] / "data" / "bundled"
HEADINGS = "libreoffice.en-de.tsv.gz"
HELD_OUT = 10  # one heading in ten


@dataclass(frozen=True)
class BundledTexts(CheckedFields):
    """Records with `text` and `label`: a sentence's sign, or a heading's language."""

    kind: Literal["movies", "headings"] = "movies"
    held_out: bool = False
    """Whether texts are those that are held out of training."""

    def open(self) -> BundledTexts:
        """Itself."""
        return self

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The choice of texts."""
        return {"source": str(self), "examples": len(self)}

    def record(self, index: int, word: int) -> Record:
        """A movie sentence, or a heading in the language that `word` draws."""
        texts, labels = self._rows[index]
        language = (word >> 32) % len(texts)
        return {"text": texts[language], "label": labels[language]}

    @cached_property
    def _rows(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """(texts, label of each) of every record."""
        if self.kind == "movies":
            source = BundledMovies(split="dev" if self.held_out else "train")
            names = source.own.names
            texts = source.open(Labels(2, names))
            pairs = zip(texts.texts, texts.labels.tolist(), strict=True)
            return [((text,), (names[label],)) for text, label in pairs]
        with gzip.open(FOLDER / HEADINGS, "rt", encoding="utf-8") as file:
            pairs = [tuple(line.rstrip("\n").split("\t")[1:3]) for line in file]
        return [
            (pair, ("english", "german"))
            for pair in pairs
            if len(set(pair)) == 2 and _is_held_out(pair[0]) == self.held_out
        ]


def _is_held_out(text: str) -> bool:
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return int(digest, 16) % HELD_OUT == 0
