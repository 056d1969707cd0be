"""Labelled texts of one's own: tab-separated columns, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jaxformers.data.files.json_text import parse_json
from jaxformers.data.text.labelled_texts import (
    Example,
    LabelledSource,
    LabelledTexts,
    Labels,
    filled_lines,
    gathered,
)
from jaxformers.errors import DataError
from jaxformers.fields import NonNegativeInt


@dataclass(frozen=True)
class TsvTexts(LabelledSource):
    """One's own texts: tab-separated columns, one example a line, no quoting; plain or .gz.

    A column is its number from 0, or its name where the file has a header. Blank lines are passed
    over; every other line must have as many columns as the first.
    """

    path: str = ""
    """The file, local or gs://."""
    text_column: NonNegativeInt | str = 0
    pair_column: NonNegativeInt | str | None = None
    """Of the second text; None: single texts."""
    label_column: NonNegativeInt | str | None = 1
    """None: no labels, which only a test set may lack."""
    header: bool = False
    """Whether the first line names the columns."""

    def open(self, labels: Labels) -> LabelledTexts:
        """The examples of the file."""
        rows = filled_lines(self.path)
        first = next(rows)[1].split("\t")
        columns = (self.text_column, self.pair_column, self.label_column)
        columns_read = [self._place(column, first) for column in columns]
        if not self.header:
            rows = filled_lines(self.path)
        return gathered(_tsv(rows, self.path, len(first), columns_read), labels, self.path)

    def _place(self, column: int | str | None, first: list[str]) -> int | None:
        """The number of a column, from its name or number and the first line."""
        if column is None:
            return None
        if isinstance(column, str) and column.isdecimal():
            column = int(column)
        if isinstance(column, str) and not self.header:
            raise DataError(f"{self.path}: column {column!r} is looked up in a header; set header")
        choices = first if isinstance(column, str) else range(len(first))
        if column not in choices:
            available = ", ".join(first) if self.header else f"0 to {len(first) - 1}"
            raise DataError(f"{self.path}: there is no column {column!r}; it has {available}")
        return choices.index(column)


def _tsv(
    rows: Iterable, path: str, columns: int, indices: Sequence[int | None]
) -> Iterator[Example]:
    for number, line in rows:
        row = line.split("\t")
        if len(row) != columns:
            raise DataError(
                f"{path}, line {number:,}: {len(row)} tab-separated column(s), "
                f"but the first line has {columns}"
            )
        text, pair, label = (None if index is None else row[index] for index in indices)
        yield Example(number, text, pair, label)


@dataclass(frozen=True)
class JsonlTexts(LabelledSource):
    """One's own texts: one JSON object a line, plain or .gz."""

    path: str = ""
    """The file, local or gs://."""
    text: str = "text"
    """Key of the text."""
    pair: str | None = None
    """Key of the second text; None: single texts."""
    label: str | None = "label"
    """Key of the label; None: no labels, which only a test set may lack."""

    def open(self, labels: Labels) -> LabelledTexts:
        """The examples of the file."""
        rows = filled_lines(self.path)
        return gathered((self._example(*row) for row in rows), labels, self.path)

    def _example(self, number: int, line: str) -> Example:
        where = f"{self.path}, line {number:,}"
        try:
            row = parse_json(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{where}: no JSON object")
        for key in (self.text, self.pair):
            if key is not None and not isinstance(row.get(key), str):
                raise DataError(f"{where}: {key!r} holds no text; the keys are {', '.join(row)}")
        if self.label is not None and row.get(self.label) is None:
            raise DataError(f"{where}: there is no {self.label!r}; the keys are {', '.join(row)}")
        pair = None if self.pair is None else row[self.pair]
        label = None if self.label is None else row[self.label]
        return Example(number, row[self.text], pair, label)
