"""Captions in a table: TSV, CSV, JSON Lines, or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath
from PIL import Image

from jaxformers.data.captions.captioned_images import (
    CaptionFiles,
    CaptionSource,
    caption_texts,
    refuse_or_count,
)
from jaxformers.data.images.decoding import decoding, opened
from jaxformers.errors import DataError

IMAGE_COLUMNS = ("image", "filepath", "file_name", "path")
CAPTION_COLUMNS = ("captions", "caption", "title", "text", "sentences")


@dataclass(frozen=True)
class CaptionTable(CaptionSource):
    """A row an image: a path relative to the table (Parquet: or bytes), and one or more captions.

    The columns are those of open_clip's tables (`filepath`, `title`) or other usual names; a row
    may hold a list of captions. A caption is a text, or an object with its text as `raw` or `text`.
    """

    path: str
    """Ends in .tsv, .csv, .jsonl or .parquet."""
    image_column: str | None = None
    """None: the first of image, filepath, file_name and path that is there."""
    caption_column: str | None = None
    """None: the first of captions, caption, title, text and sentences that is there."""
    skip_faulty: bool = False
    """Whether rows without an image's file or a caption are left out and counted."""

    def open(self) -> CaptionFiles:
        """The images of all rows, in order.

        Raises:
            DataError: no such file, a missing column, or a row without an image or a caption.
        """
        path = epath.Path(self.path)
        if not path.is_file():
            raise DataError(f"{self.path}: no such file")
        faults, images, captions = [], [], []
        for number, row in enumerate(_rows(path), 1):
            try:
                image, texts = self._entry(row, number)
            except ValueError as error:
                faults.append(f"row {number} has a caption that is no text: {error}")
                continue
            if not isinstance(image, bytes):
                image = path.parent / str(image or "")
                if not image.is_file():
                    faults.append(f"row {number} names no file: {image.name!r}")
                    continue
            if not texts:
                faults.append(f"row {number} has no caption")
                continue
            images.append(image)
            captions.append(texts)
        skipped = refuse_or_count(faults, self.path, self.skip_faulty)
        if images and isinstance(images[0], bytes):
            return CaptionBytes(self.path, images, captions, skipped)
        return CaptionFiles(self.path, images, captions, skipped)

    def _entry(self, row: Mapping[str, Any], number: int) -> tuple[Any, tuple[str, ...]]:
        image = row[self._column(row, self.image_column, IMAGE_COLUMNS, number)]
        if isinstance(image, dict):  # as Hugging Face's data sets store images in Parquet
            image = image.get("bytes") or image.get("path")
        texts = row[self._column(row, self.caption_column, CAPTION_COLUMNS, number)]
        return image, caption_texts(texts)

    def _column(self, row: Mapping[str, Any], name: str | None, usual: tuple, number: int) -> str:
        names = usual if name is None else (name,)
        for column in names:
            if column in row:
                return column
        raise DataError(
            f"{self.path}, row {number} has the columns {', '.join(map(str, row))}, none of "
            f"{', '.join(names)}: name it with image_column or caption_column"
        )


class CaptionBytes(CaptionFiles):
    """Images whose encoded bytes are held in memory."""

    def image(self, index: int) -> Image.Image:
        """The image, opened from its bytes."""
        with decoding(self.where(index)):
            return opened(self._paths[index], self.where(index))

    def where(self, index: int) -> str:
        """The number of the example's row in the table."""
        return f"{self.source}, row {index + 1:,}"

    def name(self, index: int) -> str:
        """The number of the example's row in the table."""
        return str(index + 1)


def _rows(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a table as dictionaries."""
    match path.suffix.lower():
        case ".tsv":
            yield from _delimited(path, "\t")
        case ".csv":
            yield from _delimited(path, ",")
        case ".jsonl":
            for number, line in enumerate(_text(path).split("\n"), 1):
                if line.strip():
                    yield _json_row(line, f"{path}, line {number}")
        case ".parquet":
            yield from _parquet(path)
        case _:
            raise DataError(f"{path}: a table of captions ends in .tsv, .csv, .jsonl or .parquet")


def _text(path: epath.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: its text cannot be read: {error}") from None


def _delimited(path: epath.Path, delimiter: str) -> Iterator[Mapping[str, Any]]:
    try:
        for row in csv.DictReader(io.StringIO(_text(path)), delimiter=delimiter, strict=True):
            yield {column: value for column, value in row.items() if column is not None}
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from None


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not JSON") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is not an object of columns")
    return row


def _parquet(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow (pip install pyarrow)") from None
    try:
        with path.open("rb") as file:
            yield from parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no Parquet table: {reason:.200}") from None
