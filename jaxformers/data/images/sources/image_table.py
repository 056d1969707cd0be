"""Images of a folder whose labels are in a CSV, TSV or JSONL file beside them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from jaxformers.data.images.decoding import opened, turned
from jaxformers.data.images.preprocessing import read_file
from jaxformers.data.images.sources.folder_listing import (
    describe_passed_over,
    list_images_below,
)
from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.images.sources.subset import limited, without_damaged
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import PositiveInt

TABLES = tuple(f"{n}.{kind}" for n in ("labels", "metadata") for kind in ("csv", "tsv", "jsonl"))
FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
LABEL_COLUMNS = ("label", "class", "category")
SEVERAL_COLUMNS = ("labels", "classes", "tags")
SPLITS = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev"} | {
    "validation": "dev",
    "test": "test",
}
SEPARATORS = "|;"
LARGEST_TABLE = 1 << 30  # bytes
SAMPLED = 64


@dataclass(frozen=True)
class ImageTable(ImageSource):
    """A folder of images and a table of their labels, one image a line.

    The column `file_name` (or `filename`, `file`, `image`, `path`) has the path below the folder.
    Labels are, in this order: the column `label` (`class`, `category`); the column `labels`
    (`classes`, `tags`) with any number of labels, in a CSV separated by "|" or ";", in JSONL a
    list; or a column of 0 and 1 for each class. A column `split` says "train", "dev" (or "val") or
    "test"; without it all are for training. Classes are numbered in the order of their names.
    """

    path: str = ""
    """The folder."""
    table: str = ""
    """The file of labels; empty: `labels` or `metadata` with the ending .csv, .tsv or .jsonl in the
    folder."""
    split: Literal["train", "dev", "test"] = "train"
    skip_damaged: bool = False
    """Whether images that do not decode are left out and counted."""
    upright: bool = True
    """Whether images are turned as their EXIF notes say."""
    limit: PositiveInt | None = None
    """At most so many images, evenly spaced."""

    def other(self, split: Literal["dev", "test"]) -> ImageTable | None:
        """The images of that split, if the table has any."""
        if not self.path or split not in self._content.splits:
            return None
        return replace(self, split=split, limit=None)

    def open(self) -> LabelledImages:
        """The images; their files are not read.

        Raises:
            ConfigError: no path.
            DataError: no such folder or table, or a line that is malformed or names no file.
        """
        if not self.path:
            raise ConfigError("no folder of images is named: set the data's path")
        content = self._content
        chosen = np.flatnonzero(np.array(content.splits) == self.split)
        if not len(chosen):
            raise DataError(f"{content.source} has no image of the split {self.split!r}")
        images = TableImages(content, chosen, upright=self.upright)
        images.passed_over = describe_passed_over(_unlisted(content))
        if self.skip_damaged:
            images = without_damaged(images, images.state)
        return limited(images, self.limit)

    @property
    def _content(self) -> TableContent:
        path = Path(self.path).expanduser()
        table = Path(self.table).expanduser() if self.table else find_table(path)
        if table is None:
            raise DataError(f"{path} has no table of labels: {', '.join(TABLES)}")
        if not table.is_file():
            raise DataError(f"there is no table of labels {table}")
        stat = table.stat()
        if stat.st_size > LARGEST_TABLE:
            raise DataError(f"{table} has {stat.st_size:,} bytes, more than a table of labels has")
        return _read(str(path), str(table), stat.st_mtime_ns, stat.st_size)


class TableContent(NamedTuple):
    """A table of labels as it was read."""

    root: str
    """The folder."""
    source: str
    """The table's file."""
    names: list[str]
    """Paths below the folder."""
    splits: list[str]
    labels: np.ndarray
    """int32 [N], or 0 and 1 [N, classes]."""
    class_names: tuple[str, ...]


class TableImages(LabelledImages):
    """The images of a table's content at `indices`."""

    def __init__(self, content: TableContent, indices: np.ndarray, *, upright: bool):
        self.source, self.class_names = content.source, content.class_names
        self._root, self._upright = content.root, upright
        self._names = [content.names[i] for i in indices]
        self.labels = content.labels[indices]
        self.multi_label = self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self._names)

    def example(self, index: int) -> tuple[Image.Image, Any]:
        """The image, not yet decoded, and its class or classes."""
        where = self.where(index)
        image = opened(read_file(where), where)
        label = self.labels[index]
        return turned(image) if self._upright else image, label if self.multi_label else int(label)

    def where(self, index: int) -> str:
        """The full path of the file at `index`."""
        return os.path.join(self._root, self._names[index])

    def name(self, index: int) -> str:
        """The path of the file at `index` below the folder."""
        return self._names[index]

    @cached_property
    def content(self) -> str:
        """A hash of all names and labels, and of the bytes of some files."""
        digest = self._digest()
        for index in evenly_spaced(len(self), SAMPLED):
            digest.update(read_file(self.where(index)))
        return digest.hexdigest()

    @property
    def state(self) -> str:
        """A hash of all names, sizes and times of change."""
        digest = self._digest()
        for index in range(len(self)):
            stat = os.stat(self.where(index))
            digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode())
        return digest.hexdigest()

    def _digest(self):
        header = [*self.class_names, str(self._upright), *self._names]
        digest = hashlib.sha256("\0".join(header).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.labels))
        return digest


def _unlisted(content: TableContent) -> Counter[str]:
    """Number of images below the folder that the table does not name, and of files of no use."""
    images, passed_over = list_images_below(epath.Path(content.root))
    table = os.path.splitext(content.source)[1].lower()
    passed_over["not in the table"] += len(set(images) - set(content.names))
    return +(passed_over - Counter([table]))


def find_table(folder: Path) -> Path | None:
    """The table of labels in a folder; None where it has none.

    Raises:
        DataError: it has several.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{folder} has the tables {names}: name one of them")
    return tables[0] if tables else None


@lru_cache(maxsize=8)
def _read(root: str, table: str, mtime: int, size: int) -> TableContent:
    """The content of a table; `mtime` and `size` are part of the cache's key."""
    rows = list(_rows(table))
    if not rows:
        raise DataError(f"{table} has no line")
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    file_column = _first(columns, FILE_COLUMNS)
    if file_column is None:
        raise DataError(f"{table} has no column {FILE_COLUMNS[0]!r}; it has {', '.join(columns)}")
    names, splits, labels = [], [], []
    read_labels = _labels_reader(table, rows, columns, file_column)
    for where, row in rows:
        names.append(_file_name(root, row.get(file_column), where))
        splits.append(_split(row.get("split"), where))
        labels.append(read_labels(row, where))
    several = any(isinstance(label, list) for label in labels)
    lists = [label if isinstance(label, list) else [label] for label in labels]
    class_names = _ordered({name for label in lists for name in label})
    numbers = {name: number for number, name in enumerate(class_names)}
    if several:
        array = np.zeros((len(rows), len(class_names)), np.int32)
        for index, label in enumerate(lists):
            array[index, [numbers[name] for name in label]] = 1
    else:
        array = np.array([numbers[label[0]] for label in lists], np.int32)
    return TableContent(root, table, names, splits, array, class_names)


def _rows(table: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each line's place and its values by column."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            if table.lower().endswith((".jsonl", ".json")):
                yield from _json_rows(file, table)
            else:
                yield from _csv_rows(file, table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}") from None


def _json_rows(file: Any, table: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{where} is no JSON object") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is no JSON object")
        yield where, row


def _csv_rows(file: Any, table: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    header = file.readline()
    file.seek(0)
    delimiter = max(",\t;", key=header.count)
    reader = csv.DictReader(file, delimiter=delimiter)
    for row in reader:
        where = f"{table}, line {reader.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where} has not as many values as the header has columns")
        yield where, {name.strip(): value.strip() for name, value in row.items()}


def _labels_reader(table: str, rows: list, columns: list[str], file_column: str) -> Any:
    """A function (row, where) that returns a label's name, or a list of names."""
    if column := _first(columns, LABEL_COLUMNS):
        return lambda row, where: _single_or_list(row.get(column), where)
    if column := _first(columns, SEVERAL_COLUMNS):
        return lambda row, where: _several(row.get(column), where)
    classes = [name for name in columns if name not in (file_column, "split")]
    if len(classes) < 2 or any(
        str(row.get(name)) not in ("0", "1", "0.0", "1.0") for _, row in rows for name in classes
    ):
        raise DataError(
            f"{table} has no column {LABEL_COLUMNS[0]!r} or {SEVERAL_COLUMNS[0]!r}, nor columns of "
            f"0 and 1 for the classes; it has {', '.join(columns)}"
        )
    return lambda row, where: [name for name in classes if float(row[name]) == 1]


def _single_or_list(value: Any, where: str) -> str | list[str]:
    return _several(value, where) if isinstance(value, list) else _label(value, where)


def _several(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        for separator in SEPARATORS[1:]:
            value = value.replace(separator, SEPARATORS[0])
        value = [name.strip() for name in value.split(SEPARATORS[0]) if name.strip()]
    if value is None or not isinstance(value, list):
        raise DataError(f"{where}: the labels {value!r} are no list")
    return [_label(name, where) for name in value]


def _label(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{where}: {value!r} is no label")
    return str(value).strip()


def _file_name(root: str, value: Any, where: str) -> str:
    """The path of an existing file below the folder."""
    name = value if isinstance(value, str) else ""
    path = os.path.normpath(name)
    if not name or "\0" in name or os.path.isabs(path) or path.split(os.sep)[0] == "..":
        raise DataError(f"{where}: {value!r} is no path below {root}")
    if not os.path.isfile(os.path.join(root, path)):
        raise DataError(f"{where}: there is no file {os.path.join(root, path)}")
    return path


def _split(value: Any, where: str) -> str:
    split = SPLITS.get(str(value or "train").strip().lower())
    if split is None:
        raise DataError(f"{where}: the split {value!r} is none of {', '.join(SPLITS)}")
    return split


def _first(columns: list[str], names: tuple[str, ...]) -> str | None:
    """The column that bears the first of these names, whatever its case."""
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _ordered(names: set[str]) -> tuple[str, ...]:
    """Names in their order: whole numbers by value, else as texts."""
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
