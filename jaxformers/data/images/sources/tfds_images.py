"""Labelled pictures of a public TFDS set that was prepared as array_record; no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from PIL import Image

from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.images.decoding import opened, turned
from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.images.sources.subset import limited, without_damaged
from jaxformers.fields import PositiveInt

NAMES = ("file_name", "filename", "image/file_name", "name", "id")  # features that name a picture
Read = Callable[[dict[str, Any]], int]


@dataclass(frozen=True)
class TfdsImages(ImageSource):
    """A set of TFDS with a picture and a class in each row, such as those of transfer papers.

    imagenet2012, imagenet_v2, cifar10, cifar100, oxford_iiit_pet, oxford_flowers102 and the like.
    """

    name: str = "imagenet2012"
    """TFDS name: builder/config, with `:version` behind it if not the newest is wanted."""
    split: str = "train"
    """Split, slices such as `train[:98%]` and sums with + included."""
    dev: str = ""
    """The split for development, such as `train[98%:]`; empty: none."""
    test: str = "test"
    """The split for testing; ImageNet's is `validation`. Empty: none."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    image_key: str = "image"
    """Feature that holds the picture."""
    label_key: str = "label"
    """Feature that holds the class."""
    skip_damaged: bool = False
    """Leave out pictures that do not decode, and count them; every one is decoded once to know."""
    upright: bool = False
    """Whether pictures are turned as their EXIF notes say; numbers on public sets are published
    without."""
    limit: PositiveInt | None = None
    """At most so many pictures, evenly spaced."""

    def other(self, split: Literal["dev", "test"]) -> TfdsImages | None:
        """The rows of that split, if it has a name."""
        name = self.dev if split == "dev" else self.test
        return replace(self, split=name, limit=None) if name else None

    def open(self) -> LabelledImages:
        """The pictures, read from the files when asked for.

        Raises:
            DataError: the set is not there (with the command that prepares it), it is not in
                array_record, or it lacks the split or a feature.
        """
        images = StoredImages(
            self.name,
            self.split,
            partial(_label, self.label_key),
            (self.label_key,),
            data_dir=self.data_dir,
            image_key=self.image_key,
            upright=self.upright,
        )
        label_feature = images.info.features[self.label_key]
        images.class_names = tuple(getattr(label_feature, "names", None) or ())
        if self.skip_damaged:
            images = without_damaged(images, images.content)
        return limited(images, self.limit)


class StoredImages(LabelledImages):
    """The rows of a prepared set.

    Args:
        name: of the set.
        split: of it.
        label: makes the class out of the row.
        features: that `label` needs.
        data_dir: where sets are kept.
        image_key: feature that holds the picture.
        brighten: what pixels are multiplied with; dSprites are 0 and 1.
        upright: whether EXIF notes are obeyed.
    """

    def __init__(
        self,
        name: str,
        split: str,
        label: Read,
        features: Sequence[str],
        *,
        data_dir: str | None = None,
        image_key: str = "image",
        brighten: int = 1,
        upright: bool = False,
    ):
        rows = TfdsRows(name, split, (image_key, *features), data_dir, encoded=(image_key,))
        self._names = next((feature for feature in NAMES if feature in rows.info.features), "")
        self._rows, self._label, self.info = rows, label, rows.info
        self._image_key, self._brighten, self._upright = image_key, brighten, upright
        self.source = f"{name} {rows.version}, {split}"
        self.content = rows.content

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture, not yet decoded, and its class."""
        row = self._rows.read([index])[0]
        picture = opened(row[self._image_key], self.where(index))
        picture = turned(picture) if self._upright else picture
        if self._brighten != 1:
            picture = picture.point([min(255, v * self._brighten) for v in range(256)])
        return picture, int(self._label(row))

    def name(self, index: int) -> str:
        """What the set calls the picture, else its number."""
        return (
            self._rows.read([index], [self._names])[0][self._names] if self._names else str(index)
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """The class of every picture, int32; reads all rows, once, and opens no picture."""
        return np.array([self._label(self._rows.read([k])[0]) for k in range(len(self))], np.int32)


def _label(key: str, row: dict[str, Any]) -> int:
    return row[key]
