"""Sources of records: JSON Lines beside pictures, prepared TFDS sets, a list in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxformers.data.files.json_text import parse_json
from jaxformers.data.files.line_index import Lines
from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.images.decoding import decode, decoding, opened
from jaxformers.errors import DataError
from jaxformers.evaluation.zero_shot.class_prompts import load_class_prompts
from jaxformers.fields import CheckedFields

Record = Mapping[str, Any]
WORDNET_ID = re.compile(r"n\d{8}")
IMAGE_FEATURES = ("image", "depth", "normals", "segments")
"""Features that hold the path of a picture in a table, and its pixels in a record."""


@dataclass(frozen=True)
class JsonlRecords(CheckedFields):
    """An object a line, its keys the features; pictures are named by paths beside the file."""

    path: str
    features: tuple[tuple[str, str], ...] = ()
    """(feature, key in the file) where the two differ."""

    def open(self) -> JsonlRows:
        """The rows; raises DataError where there is no such file or it is empty."""
        if not Path(self.path).is_file():
            raise DataError(f"{self.path}: no such file")
        return JsonlRows(self)


class JsonlRows:
    """The lines of a `JsonlRecords`."""

    def __init__(self, source: JsonlRecords):
        self._source, self._lines = source, Lines(source.path)
        self.fingerprint = {"source": str(source), "content": self._lines.digest}

    def __len__(self) -> int:
        return len(self._lines)

    def record(self, index: int, word: int) -> Record:
        """The object of line `index`, its pictures decoded."""
        where = f"{self._source.path}, line {index + 1:,}"
        try:
            record = parse_json(self._lines[index])
        except (ValueError, RecursionError):
            raise DataError(f"{where} is not JSON") from None
        if not isinstance(record, dict):
            raise DataError(f"{where} is not an object of features")
        record |= {feature: record.get(key) for feature, key in self._source.features}
        folder = Path(self._source.path).parent
        for name in IMAGE_FEATURES:
            if isinstance(record.get(name), str):
                read = _depth if name == "depth" else _pixels
                record[name] = read(folder / record[name])
        return record


@dataclass(frozen=True)
class TfdsRecords(CheckedFields):
    """A split of a prepared TFDS set."""

    name: str
    split: str
    features: tuple[tuple[str, str], ...]
    """(feature, name in the set); of a dictionary one entry, such as "captions/text". A class is
    given by its name: in English, where the set has WordNet ids as ImageNet's do."""
    data_dir: str | None = None

    def open(self) -> TfdsRecordRows:
        """The rows; raises DataError, with the command that prepares the set, where it is not."""
        return TfdsRecordRows(self)


class TfdsRecordRows:
    """The rows of a `TfdsRecords`."""

    def __init__(self, source: TfdsRecords):
        self._names = dict(source.features)
        features = sorted({name.split("/")[0] for name in self._names.values()})
        self._rows = TfdsRows(source.name, source.split, features, source.data_dir)
        self.fingerprint = {"source": str(source), "content": self._rows.content}

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int, word: int) -> Record:
        """The row `index` by the features' names."""
        [row] = self._rows.read([index])
        return {feature: self._value(row, name) for feature, name in self._names.items()}

    def _value(self, row: Record, name: str) -> Any:
        feature, *keys = name.split("/")
        value = row[feature]
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                raise DataError(f"{self.fingerprint['source']}: {feature} has no entry {key}")
            value = value[key]
        label = self._rows.info.features[feature]
        if not keys and hasattr(label, "names") and int(value) >= 0:
            return english_names(label.names)[int(value)]
        return value


def english_names(class_names: Sequence[str]) -> Sequence[str]:
    """`class_names`, or ImageNet's English names where they are its WordNet ids (n01440764)."""
    if not all(WORDNET_ID.fullmatch(name) for name in class_names):
        return class_names
    return _imagenet_names(tuple(class_names))


@lru_cache(maxsize=4)
def _imagenet_names(wordnet_ids: tuple[str, ...]) -> tuple[str, ...]:
    return load_class_prompts("imagenet2012").names_for(wordnet_ids)


@dataclass(frozen=True)
class ListedRecords(CheckedFields):
    """Records in memory, for notebooks and tests; an experiment file writes them as JSON texts."""

    texts: tuple[str, ...]
    """A JSON object each."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> ListedRecords:
        """The records, without pictures, as JSON."""
        return cls(tuple(json.dumps(record) for record in records))

    def open(self) -> ListedRecords:
        """Itself; raises DataError where a text is no JSON object."""
        if not self.texts:
            raise DataError("there is no record")
        for number, record in enumerate(self._records):
            if not isinstance(record, dict):
                raise DataError(f"record {number:,} is not an object of features")
        return self

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def _records(self) -> list[Any]:
        try:
            return [parse_json(text) for text in self.texts]
        except (ValueError, RecursionError):
            raise DataError("a listed record is not JSON") from None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All of them."""
        return {"records": self.texts}

    def record(self, index: int, word: int) -> Record:
        """The record `index`."""
        return self._records[index]


def _pixels(path: Path) -> np.ndarray:
    with decoding(str(path)):
        return decode(_content(path), str(path))


def _depth(path: Path) -> np.ndarray:
    """The levels of a grey picture as they stand in the file, of 8, 16 or 32 bits, `[H, W]`."""
    with decoding(str(path)):
        levels = np.asarray(opened(_content(path), str(path)), np.float32)
    if levels.ndim != 2:
        raise DataError(f"{path} has colours: a depth map has one channel")
    return levels


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
