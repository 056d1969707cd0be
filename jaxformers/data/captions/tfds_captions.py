"""Captioned images of a public TFDS set that was prepared as array_record; no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from jaxformers.data.captions.captioned_images import (
    CaptionedImages,
    CaptionSource,
    refuse_or_count,
)
from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.images.decoding import decoding, opened
from jaxformers.errors import DataError

BLOCK = 256  # rows read at once


@dataclass(frozen=True)
class TfdsCaptions(CaptionSource):
    """A set of TFDS with an image and its captions in each row, such as `coco_captions/2014`."""

    name: str = "coco_captions/2014"
    """TFDS name: builder/config, with `:version` behind it if not the newest is wanted. COCO's
    configuration 2014 is that of Karpathy and Li's splits."""
    split: str = "train"
    """Split, slices such as `train[:98%]` and sums such as `train+restval` included."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    image_key: str = "image"
    """Feature that holds the image."""
    caption_key: str = "captions"
    """Feature that holds the captions: a text, several, or a sequence whose items have one."""
    text_key: str = "text"
    """What holds the text of an item of such a sequence."""
    skip_faulty: bool = False
    """Whether rows without a caption are left out and counted; every row is read once to know."""

    def open(self) -> TfdsCaptionedImages:
        """The images, read from the files when asked for.

        Raises:
            DataError: the set is not there (with the command that prepares it), it is not in
                array_record, or it lacks the split or a feature.
        """
        return TfdsCaptionedImages(self)


class TfdsCaptionedImages(CaptionedImages):
    """The rows of a prepared set."""

    def __init__(self, config: TfdsCaptions):
        features = (config.image_key, config.caption_key)
        self._rows = TfdsRows(
            config.name, config.split, features, config.data_dir, encoded=(config.image_key,)
        )
        self._config = config
        self.source = f"{config.name} {self._rows.version}, {config.split}"
        # A hash of the sizes of all shards and of sampled rows: reading all would take an hour.
        self._content = self._rows.content
        self._indices: list[int] | None = None
        if config.skip_faulty:
            self._leave_out_faulty()
        if not len(self):
            raise DataError(f"{self.source}: no image with a caption in it")

    def __len__(self) -> int:
        return len(self._rows) if self._indices is None else len(self._indices)

    def image(self, index: int) -> Image.Image:
        """The image, opened from its bytes."""
        with decoding(self.where(index)):
            return opened(self._value(index, self._config.image_key), self.where(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """Its captions.

        Raises:
            DataError: it has none.
        """
        captions = self._texts(self._value(index, self._config.caption_key))
        if not captions:
            raise DataError(
                f"{self.where(index)} has no caption; leave such rows out with skip_faulty"
            )
        return captions

    @property
    def content(self) -> str:
        """A hash of the sizes of all shards and of sampled rows."""
        return self._content

    def _value(self, index: int, feature: str) -> Any:
        row = index if self._indices is None else self._indices[index]
        return self._rows.read([row], [feature])[0][feature]

    def _texts(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, Mapping):  # a sequence of items is a table of columns
            value = value.get(self._config.text_key)
            if value is None:
                raise DataError(
                    f"{self.source}: the items of {self._config.caption_key} have no "
                    f"{self._config.text_key!r}: set text_key"
                )
        texts = [value] if isinstance(value, str) else list(value)
        if any(isinstance(text, Mapping) for text in texts):
            texts = [text.get(self._config.text_key, "") for text in texts]
        return tuple(str(text).strip() for text in texts if str(text).strip())

    def _leave_out_faulty(self) -> None:
        key, faults, self._indices = self._config.caption_key, [], []
        for start in range(0, len(self._rows), BLOCK):
            numbers = range(start, min(start + BLOCK, len(self._rows)))
            for number, row in zip(numbers, self._rows.read(numbers, [key]), strict=True):
                if self._texts(row[key]):
                    self._indices.append(number)
                else:
                    faults.append(f"row {number:,} has no caption")
        self.skipped = refuse_or_count(faults, self.source, skip=True)
