"""Lines of the bundled help pages, labelled with the program that they explain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from jaxformers.data.pipeline.subsets import evenly_spaced, split_by_hash
from jaxformers.data.text.labelled_texts import (
    Example,
    LabelledSource,
    LabelledTexts,
    Labels,
    gathered,
    in_order_of,
)
from jaxformers.data.translation.sources import bundled_rows
from jaxformers.fields import PositiveInt

PROGRAMS = {
    "sbasic": "Basic",
    "scalc": "Calc",
    "schart": "Chart",
    "sdatabase": "Base",
    "sdraw": "Draw",
    "simpress": "Impress",
    "smath": "Math",
    "swriter": "Writer",
}
"""Names of the programs by the folders of their help pages."""


@dataclass(frozen=True)
class BundledHelp(LabelledSource):
    """Lines of LibreOffice's help inside the package (bundled/NOTICE.md) and their programs.

    Eight classes, a third of the lines about Calc. Help that all programs share, and texts of the
    interface, have no label and are left out. The split is by page, never by line: 13,982 lines of
    at least four words to train on, 1,954 for development, 1,431 test lines.
    """

    line = "Insert a page break before the paragraph."

    split: Literal["train", "dev", "test"] = "train"
    """By the MD5 of the page's name modulo 10: `test` 0, `dev` 1, `train` the others."""
    min_words: PositiveInt = 4
    """Lines with fewer words are left out."""
    limit: PositiveInt | None = None
    """At most so many lines, evenly spaced."""

    @property
    def own(self) -> Labels:
        """The names of the programs."""
        return Labels(len(PROGRAMS), tuple(PROGRAMS.values()))

    def other(self, split: Literal["dev", "test"]) -> BundledHelp:
        """The development or test lines."""
        return replace(self, split=split)

    def open(self, labels: Labels) -> LabelledTexts:
        """Reads the selected lines."""
        rows = list(self._examples())
        rows = [rows[index] for index in evenly_spaced(len(rows), self.limit)]
        texts = gathered(rows, self.own, f"help lines, {self.split}")
        return in_order_of(labels, self.own, texts)

    def _examples(self) -> Iterator[Example]:
        for number, (page, line, _) in enumerate(bundled_rows("en-de"), 1):
            program = PROGRAMS.get(page.partition("/")[0])
            long_enough = len(line.split()) >= self.min_words
            if program is not None and long_enough and split_by_hash(page) == self.split:
                yield Example(number, line, None, program)
