"""Sources of sentence pairs: the bundled sets, text files of one's own, prepared TFDS sets."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from jaxformers.data.files.line_index import Lines
from jaxformers.data.translation.parallel_text import ListedPairs, Pair, Pairs
from jaxformers.data.translation.tfds_pairs import TfdsPairs
from jaxformers.errors import DataError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt

__all__ = ["AlignedFiles", "BundledPairs", "TfdsPairs", "TsvPairs", "bundled_rows", "held_out"]

BUNDLED = Path(__file__).parents[1] / "bundled"


def held_out(document: str) -> bool:
    """Whether `document` is held out from training: about one document in twenty."""
    return int(hashlib.md5(document.encode()).hexdigest(), 16) % 20 == 0


@dataclass(frozen=True)
class BundledPairs(CheckedFields):
    """The pairs inside the package: LibreOffice's help and interface (bundled/NOTICE.md).

    Split by document, never by line: the text is formulaic, and a split by line inflates BLEU.
    """

    pair: Literal["en-de", "en-fr"] = "en-de"
    """Languages, source first."""
    split: Literal["train", "held_out", "all"] = "train"
    """`held_out`: the documents whose name's MD5 is 0 modulo 20; `train`: the others."""
    min_source_words: NonNegativeInt = 0
    """Leave out pairs with fewer source words."""
    max_source_words: PositiveInt | None = None
    """Leave out pairs with more source words."""
    max_target_words: PositiveInt | None = None
    """Leave out pairs with more target words."""

    def open(self) -> Pairs:
        """Loads the selected pairs into memory (8 MB)."""
        rows = [row for row in bundled_rows(self.pair) if self._holds(*row)]
        if not rows:
            raise DataError(f"no bundled pair is within the word limits of {self}")
        return ListedPairs([row[1:] for row in rows], f"bundled {self.pair}, {self.split}")

    def _holds(self, document: str, source: str, target: str) -> bool:
        source_words, target_words = len(source.split()), len(target.split())
        return (
            (self.split == "all" or held_out(document) == (self.split == "held_out"))
            and self.min_source_words <= source_words <= (self.max_source_words or math.inf)
            and target_words <= (self.max_target_words or math.inf)
        )


@lru_cache(maxsize=2)
def bundled_rows(pair: str) -> list[tuple[str, str, str]]:
    """Rows of document, source and target of a bundled pair of languages, in the file's order.

    The rows of a document follow one another, in the document's order.

    Raises:
        DataError: no such pair is bundled.
    """
    file = BUNDLED / f"libreoffice.{pair}.tsv.gz"
    if not file.exists():
        raise DataError(f"there is no bundled pair {pair!r}: use en-de or en-fr")
    return [tuple(line.split("\t")) for line in Lines(file, columns=3)]


@dataclass(frozen=True)
class TsvPairs(CheckedFields):
    """One's own pairs: a text file, plain or .gz, of tab-separated columns, one pair a line."""

    path: str
    """The file, local or gs://."""
    source_column: NonNegativeInt = 0
    """Column of the source, counted from 0."""
    target_column: NonNegativeInt = 1
    """Column of the target, counted from 0."""

    def open(self) -> Pairs:
        """Opens the pairs, which are read from the file on access."""
        columns = max(self.source_column, self.target_column) + 1
        return _TsvPairs(self, Lines(self.path, columns))


class _TsvPairs(Pairs):
    def __init__(self, config: TsvPairs, lines: Lines):
        self._lines = lines
        self._columns = config.source_column, config.target_column
        name = f"{config.path}, columns {config.source_column} and {config.target_column}"
        content = hashlib.sha256(f"{lines.digest} {self._columns}".encode()).hexdigest()
        self.fingerprint = {"source": name, "pairs": len(lines), "content": content}

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, indices: Sequence[int]) -> list[Pair]:
        source, target = self._columns
        rows = [self._lines[index].split("\t") for index in indices]
        return [(row[source], row[target]) for row in rows]


@dataclass(frozen=True)
class AlignedFiles:
    """One's own pairs: two text files, plain or .gz; line n of one translates line n of the other.

    Raises DataError on `open` where their numbers of lines differ.
    """

    source: str
    """File of the sources, local or gs://."""
    target: str
    """File of the targets, local or gs://."""

    def open(self) -> Pairs:
        """Opens the pairs, which are read from the files on access."""
        source, target = Lines(self.source), Lines(self.target)
        if len(source) != len(target):
            raise DataError(
                f"{self.source} has {len(source):,} lines but {self.target} has {len(target):,}: "
                "line n of one must translate line n of the other"
            )
        return _AlignedPairs(source, target)


class _AlignedPairs(Pairs):
    def __init__(self, source: Lines, target: Lines):
        self._source, self._target = source, target
        content = hashlib.sha256(f"{source.digest} {target.digest}".encode()).hexdigest()
        name = f"{source.path} and {target.path}"
        self.fingerprint = {"source": name, "pairs": len(source), "content": content}

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> list[Pair]:
        return [(self._source[index], self._target[index]) for index in indices]
