"""Captions in a table: TSV, CSV, JSON Lines, or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
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
from jaxformers.data.files.json_text import parse_json
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
    """None: the first of image, filepath, file_name and path that a row has."""
    caption_column: str | None = None
    """None: the first of captions, caption, title, text and sentences that is not empty."""
    skip_faulty: bool = False
    """Whether rows without an image or a caption, and damaged ones, are left out and counted. To
    know, `open` decodes every image once."""

    def open(self) -> TableImages:
        """The images of all rows, in order.

        Raises:
            DataError: no such file, a missing column, a row without an image or a caption, or one
                that cannot be read.
        """
        path = epath.Path(self.path)
        if not path.is_file():
            raise DataError(f"{self.path}: no such file")
        faults, numbers, entries, captions = [], [], [], []
        for number, row in enumerate(_rows(path), 1):
            try:
                entry, texts = self._entry(row, path.parent)
            except ValueError as error:
                faults.append(f"row {number} {error}")
                continue
            numbers.append(number)
            entries.append(entry)
            captions.append(texts)
        skipped = refuse_or_count(faults, self.path, self.skip_faulty)
        if faults and not entries:
            raise DataError(f"{self.path}: no image with a caption in it: {faults[0]}")
        images = TableImages(self.path, entries, captions, skipped, numbers)
        if self.skip_faulty:
            images.leave_out_damaged()
        return images

    def _entry(
        self, row: Mapping[str, Any] | None, folder: epath.Path
    ) -> tuple[bytes | epath.Path, tuple[str, ...]]:
        """The bytes or the path of a row's image, and its captions.

        Raises:
            ValueError: what is wrong with the row; the message goes behind its number.
        """
        if row is None:
            raise ValueError("is not JSON of an object of columns")
        if extra := [cell for cell in row.get(None) or () if cell.strip()]:
            raise ValueError(f"has a cell too many, {extra[0]!r:.60}: quote its caption")
        image = row[self._column(row, self.image_column, IMAGE_COLUMNS)]
        if isinstance(image, dict):  # as Hugging Face's data sets store images in Parquet
            image = image.get("bytes") or image.get("path")
        if not image:
            raise ValueError("has no image")
        if not isinstance(image, bytes):
            image = folder / str(image)
            if not image.is_file():
                raise ValueError(f"names no file: {image.name!r}")
        texts = caption_texts(row[self._column(row, self.caption_column, CAPTION_COLUMNS)])
        if not texts:
            raise ValueError("has no caption")
        return image, texts

    def _column(self, row: Mapping[str, Any], name: str | None, usual: tuple[str, ...]) -> str:
        """The first of the columns that has a value, else the first that is there."""
        names = [column for column in (usual if name is None else (name,)) if column in row]
        if not names:
            raise ValueError(
                f"has the columns {', '.join(map(str, row))}, none of "
                f"{name or ', '.join(usual)}: name it with image_column or caption_column"
            )
        return next((column for column in names if row[column]), names[0])


class TableImages(CaptionFiles):
    """Images of a table: files, or encoded bytes held in memory.

    Args:
        source: what messages call them.
        entries: the path or the bytes of each image.
        captions: of each image, one at least.
        skipped: entries that were left out.
        numbers: of the rows of the images, from 1.

    Raises:
        DataError: no image.
    """

    def __init__(
        self,
        source: str,
        entries: Sequence[epath.Path | bytes],
        captions: Sequence[Sequence[str]],
        skipped: int,
        numbers: Sequence[int],
    ):
        super().__init__(source, entries, captions, skipped)
        self._numbers = list(numbers)

    def image(self, index: int) -> Image.Image:
        """The image, opened from its bytes or its file."""
        entry = self._paths[index]
        if not isinstance(entry, bytes):
            return super().image(index)
        with decoding(self.where(index)):
            return opened(entry, self.where(index))

    def where(self, index: int) -> str:
        """The path of the image; of bytes, the number of the row in the table."""
        if isinstance(self._paths[index], bytes):
            return f"{self.source}, row {self._numbers[index]:,}"
        return super().where(index)

    def name(self, index: int) -> str:
        """The file name of the image; of bytes, the number of the row in the table."""
        if isinstance(self._paths[index], bytes):
            return str(self._numbers[index])
        return super().name(index)

    def _select(self, indices: Sequence[int]) -> None:
        super()._select(indices)
        self._numbers = [self._numbers[i] for i in indices]


def _rows(path: epath.Path) -> Iterator[Mapping[Any, Any] | None]:
    """The rows of a table as dictionaries, None for a line that is not JSON of one."""
    match path.suffix.lower():
        case ".tsv":
            yield from _delimited(path, "\t")
        case ".csv":
            yield from _delimited(path, ",")
        case ".jsonl":
            yield from (_json_row(line) for line in _read(path).split(b"\n") if line.strip())
        case ".parquet":
            yield from _parquet(path)
        case _:
            raise DataError(f"{path}: a table of captions ends in .tsv, .csv, .jsonl or .parquet")


def _read(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _delimited(path: epath.Path, delimiter: str) -> Iterator[Mapping[Any, Any]]:
    """Rows by column; cells beyond the last column are a list under None."""
    try:
        text = io.StringIO(_read(path).decode("utf-8-sig"))
        yield from csv.DictReader(text, delimiter=delimiter, strict=True)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: its text cannot be read: {error}") from None
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from None


def _json_row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parquet(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow (pip install pyarrow)") from None
    try:
        with path.open("rb") as file:
            yield from parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is no Parquet table: {reason:.200}") from None
