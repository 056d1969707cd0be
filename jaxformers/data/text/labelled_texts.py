"""What every source of labelled texts and text pairs gives, and what labels there are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxformers.data.files.line_index import Lines
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, PositiveInt


@dataclass(frozen=True)
class Labels(CheckedFields):
    """What an example may be labelled with: one of `count` classes, or a number if that is 1."""

    count: PositiveInt = 2
    """Classes; 1: a regression."""
    names: tuple[str, ...] = ()
    """What the classes are called, in order; empty: they are numbers from 0."""

    def read(self, value: Any, where: str) -> int | float:
        """The label that a file's `value` says: a class by its name or number, or a number.

        Raises:
            DataError: `value` is none, with `where` it stood.
        """
        if self.count == 1:
            return _number(value, where)
        index = _integer(value)
        name = value.strip() if isinstance(value, str) else str(index)  # names may be numbers
        if name in self.names and (index is not None or isinstance(value, str)):
            return self.names.index(name)
        if index is None or not 0 <= index < self.count:
            mend = "" if self.names else "; set --task.model.labels or --task.model.label-names"
            raise DataError(f"{where}: label {value!r} is not one of {self}{mend}")
        return index

    def name(self, index: int) -> str:
        """What class `index` is called."""
        return self.names[index] if self.names else str(index)

    def same_classes(self, labels: Labels) -> bool:
        """Whether both have the same names, whatever their order and case."""
        if self.count != labels.count:
            return False
        return sorted(map(str.casefold, self.names)) == sorted(map(str.casefold, labels.names))

    def places_in(self, labels: Labels) -> np.ndarray:
        """For each class, the number that `labels` gives it [count].

        Raises:
            ConfigError: the classes are not the same.
        """
        if self.count != labels.count or (labels.names and not self.same_classes(labels)):
            raise ConfigError(
                f"the data's labels are {self}, but the model's {labels}; "
                "set --task.model.labels and --task.model.label-names"
            )
        theirs = list(map(str.casefold, labels.names or self.names))
        return np.array([theirs.index(name.casefold()) for name in self.names], np.int32)

    def __str__(self) -> str:
        if self.count == 1:
            return "numbers"
        return ", ".join(self.names) if self.names else f"0 to {self.count - 1}"


def _integer(value: Any) -> int | None:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: label {value!r} is no number")
    return number


class Example(NamedTuple):
    """One example as it was read."""

    number: int
    """Its line, for messages."""
    text: str
    pair: str | None = None
    """The second text."""
    label: Any = None
    """What the file says; None: nothing."""
    name: str = ""
    """What a submission calls it; empty: its number from 0."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts or pairs of texts with their labels, held in memory."""

    source: str
    """Where they come from."""
    texts: list[str]
    pairs: list[str] | None
    """The second texts."""
    labels: np.ndarray | None
    """int32 classes or float32 numbers [examples]; None where the labels are not public."""
    names: list[str]
    """What a submission calls each example."""
    skipped: int = 0
    """Damaged lines that were left out."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """Source, number and content hash of the examples."""
        labels = None if self.labels is None else self.labels.tolist()
        content = json.dumps([self.texts, self.pairs, labels]).encode()
        digest = hashlib.sha256(content).hexdigest()
        return {"source": self.source, "examples": len(self), "content": digest}


def gathered(
    examples: Iterable[Example],
    labels: Labels,
    source: str,
    *,
    unit: str = "line",
    skipped: int = 0,
) -> LabelledTexts:
    """The examples of `source` with their labels read.

    Raises:
        DataError: there is none, a label is not among `labels`, or one is missing.
    """
    rows = list(examples)
    if not rows:
        raise DataError(f"{source} holds no example")
    pairs = None if rows[0].pair is None else [row.pair or "" for row in rows]
    names = [row.name or str(index) for index, row in enumerate(rows)]
    read = _labels(rows, labels, f"{source}, {unit}")
    return LabelledTexts(source, [row.text for row in rows], pairs, read, names, skipped)


def _labels(rows: Sequence[Example], labels: Labels, where: str) -> np.ndarray | None:
    missing = [row for row in rows if row.label is None]
    if len(missing) == len(rows):
        return None
    if missing:
        raise DataError(
            f"{where} {missing[0].number:,}: there is no label, but other lines have one"
        )
    kind = np.float32 if labels.count == 1 else np.int32
    return np.array([labels.read(row.label, f"{where} {row.number:,}") for row in rows], kind)


def filled_lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, numbered from 1."""
    if not path:
        raise DataError("no file is named: set the data's path")
    lines = Lines(path)
    for index in range(len(lines)):
        if (line := lines[index]).strip():
            yield index + 1, line


class LabelledSource(CheckedFields):
    """What the sources share: configuration that `open` reads."""

    task = ""
    """The public benchmark's task, where it is one: it decides the metrics."""
    line = "A charming film."
    """A text that a person may try a trained classifier on."""

    @property
    def own(self) -> Labels | None:
        """The labels that the data brings; None: those that the model says."""
        return None

    def classes(self, labels: Labels) -> Labels:
        """The labels of a model for this data: its own, but in the order of a model that has it."""
        return labels if self.own is None or self.own.same_classes(labels) else self.own

    def parts(self) -> tuple[tuple[str, LabelledSource], ...]:
        """The sets, by name, that are evaluated each on its own."""
        return (("", self),)

    def other(self, split: Literal["dev", "test"]) -> LabelledSource | None:
        """The same data's development or test set, where there is one."""
        return None

    def open(self, labels: Labels) -> LabelledTexts:
        """The examples; raises DataError where they are missing or malformed."""
        raise NotImplementedError

    def written(self, predictions: np.ndarray, labels: Labels) -> list[str]:
        """Predicted classes or numbers [examples] as a file of predictions has them."""
        if labels.count == 1:
            return [f"{prediction:.6g}" for prediction in predictions]
        return [labels.name(prediction) for prediction in predictions]


def in_order_of(labels: Labels, own: Labels, texts: LabelledTexts) -> LabelledTexts:
    """`texts` with its classes numbered as in `labels` instead of as in `own`."""
    if texts.labels is None or own.count == labels.count == 1:
        return texts
    return replace(texts, labels=own.places_in(labels)[texts.labels])
