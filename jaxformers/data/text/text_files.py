"""Labelled texts of one's own: tab-separated columns, CSV with quotes, or JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from jaxformers.data.files.json_text import parse_json
from jaxformers.data.files.line_index import Lines
from jaxformers.data.text.labelled_texts import (
    Example,
    LabelledSource,
    LabelledTexts,
    Labels,
    filled_lines,
    gathered,
)
from jaxformers.errors import ConfigError, DataError
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
        lines = filled_lines(self.path)
        rows = ((number, line.split("\t")) for number, line in lines)
        return gathered(_examples(self, rows, "tab-separated column(s)"), labels, self.path)


@dataclass(frozen=True)
class CsvTexts(LabelledSource):
    """One's own texts: comma-separated values as spreadsheets write them; plain or .gz.

    A value in double quotes may hold commas, line breaks, and quotes written twice. A column is its
    name in the header, or its number from 0. Every row must have as many values as the first.
    """

    path: str = ""
    """The file, local or gs://."""
    text_column: NonNegativeInt | str = "text"
    pair_column: NonNegativeInt | str | None = None
    """Of the second text; None: single texts."""
    label_column: NonNegativeInt | str | None = "label"
    """None: no labels, which only a test set may lack."""
    header: bool = True
    """Whether the first row names the columns."""
    separator: str = ","
    """One character: "," or, in many countries, ";"."""

    def __post_init__(self):
        super().__post_init__()
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise ConfigError(f"separator is {self.separator!r}; it is one character")

    def open(self, labels: Labels) -> LabelledTexts:
        """The examples of the file."""
        return gathered(_examples(self, self._rows(), "value(s)"), labels, self.path)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Number of the first line and values of each row that is not blank."""
        if not self.path:
            raise DataError("no file is named: set the data's path")
        lines = Lines(self.path)
        text = (f"{lines[index]}\n" for index in range(len(lines)))
        reader = csv.reader(text, delimiter=self.separator, strict=True)
        number = 1
        try:
            for row in reader:
                if any(value.strip() for value in row):
                    yield number, row
                number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}, line {number:,}: no CSV ({error})") from None


def _examples(
    config: TsvTexts | CsvTexts, rows: Iterator[tuple[int, list[str]]], unit: str
) -> Iterator[Example]:
    """The examples of a table's rows, all of as many columns as the first.

    Raises:
        DataError: no such column, or a row with another number of columns.
    """
    first_number, first = next(rows, (0, []))
    if not first:
        return
    columns = (config.text_column, config.pair_column, config.label_column)
    indices = [_column_index(config, column, first) for column in columns]
    for number, row in rows if config.header else chain([(first_number, first)], rows):
        if len(row) != len(first):
            raise DataError(
                f"{config.path}, line {number:,}: {len(row)} {unit}, "
                f"but the first line has {len(first)}"
            )
        text, pair, label = (None if index is None else row[index] for index in indices)
        yield Example(number, text, pair, label)


def _column_index(
    config: TsvTexts | CsvTexts, column: int | str | None, first: list[str]
) -> int | None:
    """The number of a column, from its name or number and the first row."""
    if column is None:
        return None
    if isinstance(column, str) and column.isdecimal():
        column = int(column)
    if isinstance(column, str) and not config.header:
        raise DataError(f"{config.path}: column {column!r} is looked up in a header; set header")
    choices = first if isinstance(column, str) else range(len(first))
    if column not in choices:
        available = ", ".join(first) if config.header else f"0 to {len(first) - 1}"
        raise DataError(f"{config.path}: there is no column {column!r}; it has {available}")
    return choices.index(column)


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
