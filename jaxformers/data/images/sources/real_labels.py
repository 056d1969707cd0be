"""ReaL's labels of ImageNet's validation pictures (Beyer et al. 2020)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from jaxformers.data.images.preprocessing import read_file
from jaxformers.data.images.sources.labelled_images import LabelledImages
from jaxformers.errors import ConfigError, DataError

CLASSES = 1000
NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


@dataclass(frozen=True)
class RealLabels:
    """Every class that a picture may rightly be given, from `real.json`.

    Row i belongs to ILSVRC2012_val_ followed by i + 1 in eight digits. Pictures without any class
    are left out of the score.
    """

    path: str = ""
    """The file: a list of lists of classes."""

    def open(self) -> list[tuple[int, ...]]:
        """The classes of every picture, in the order of the file names.

        Raises:
            ConfigError: no path.
            DataError: the file is missing or is no list of lists of classes.
        """
        if not self.path:
            raise ConfigError("no file of ReaL labels is named: set its path to real.json")
        try:
            rows = json.loads(read_file(self.path))
            sets = [tuple(int(label) for label in row) for row in rows]
        except (ValueError, TypeError):
            raise DataError(f"{self.path} is not ReaL's list of lists of classes") from None
        if not sets or any(not 0 <= label < CLASSES for row in sets for label in row):
            raise DataError(f"{self.path} is not ReaL's list of lists of classes 0 to 999")
        return sets

    def of(self, images: LabelledImages) -> list[tuple[int, ...]]:
        """The classes of every picture of `images`, found by its file name.

        Raises:
            DataError: a picture is not one of ImageNet's validation set.
        """
        sets = self.open()
        return [sets[self._place(images, index, len(sets))] for index in range(len(images))]

    def _place(self, images: LabelledImages, index: int, count: int) -> int:
        match = NUMBER.search(images.name(index))
        if match is None or not 1 <= int(match[1]) <= count:
            raise DataError(
                f"{images.where(index)}: {images.name(index)!r} is no picture of {self.path}, "
                "which goes by ImageNet's validation file names"
            )
        return int(match[1]) - 1
