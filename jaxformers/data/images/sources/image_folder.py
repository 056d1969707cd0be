"""Pictures in a folder of class folders, or simply in a folder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from jaxformers.data.images.decoding import opened, turned
from jaxformers.data.images.preprocessing import read_file
from jaxformers.data.images.sources.folder_listing import (
    ENDINGS,
    describe_passed_over,
    holds_images,
    list_entries,
    list_images_below,
)
from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.images.sources.subset import limited, without_damaged
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import PositiveInt

FOLDERS = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing"),
}
SAMPLED = 64


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """A folder with a folder for each class, perhaps below `train`, `dev` (or `val`) and `test`.

    Classes are numbered in the order of their folders' names; those of `dev` and `test` as in
    `train`. All images below a class's folder are of that class. A folder of images alone has no
    labels. What is passed over (files of other kinds, hidden ones, images beside class folders) is
    counted and reported.
    """

    path: str = ""
    """The folder, or a bucket's path."""
    split: Literal["train", "dev", "test"] = "train"
    """Which of the folders; without such folders `train` is all of it."""
    skip_damaged: bool = False
    """Whether images that do not decode are left out and counted: each is decoded once, and the
    result is cached. Otherwise the first damaged one stops the run."""
    upright: bool = True
    """Whether images are turned as their EXIF notes say, as `Preprocessing` turns those that it
    reads; published numbers are computed without."""
    limit: PositiveInt | None = None
    """At most so many images, evenly spaced."""

    def other(self, split: Literal["dev", "test"]) -> ImageFolder | None:
        """The folder of that split, if there is one."""
        present = self.path and split in _split_folders(_root(self.path))
        return replace(self, split=split, limit=None) if present else None

    def open(self) -> LabelledImages:
        """The images; their files are listed, not read.

        Raises:
            ConfigError: no path.
            DataError: no such folder, no image, an empty class folder, a class that `train` does
                not have, or folders that may be splits or classes.
        """
        if not self.path:
            raise ConfigError("no folder of pictures is named: set the data's path")
        listing = _list(self)
        images = FolderImages(*listing[:4], upright=self.upright)
        images.passed_over = describe_passed_over(listing.passed_over)
        if self.skip_damaged:
            images = without_damaged(images, images.state)
        return limited(images, self.limit)


class FolderImages(LabelledImages):
    """The files of a folder.

    Args:
        root: of all files.
        folders: of the classes, below it; empty: the files have no class.
        names: of each folder's files.
        class_names: all classes; `folders` are some of them.
        upright: whether EXIF notes are obeyed.
    """

    def __init__(
        self,
        root: epath.Path,
        folders: Sequence[str],
        names: Sequence[Sequence[str]],
        class_names: tuple[str, ...],
        *,
        upright: bool = True,
    ):
        self.source, self._root, self._upright = str(root), str(root), upright
        self.class_names, self.labelled = class_names, bool(folders)
        self._folders = list(folders) or [""]
        # Arrays, for fourteen million Python strings are a gigabyte.
        self._names = np.array(
            [os.fsencode(name) for folder_names in names for name in folder_names]
        )
        self._of_folder = np.repeat(np.arange(len(names)), list(map(len, names)))
        class_ids = [class_names.index(name) for name in folders] or [-1]
        self.labels = np.array(class_ids, np.int32)[self._of_folder]

    def __len__(self) -> int:
        return len(self._names)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture, not yet decoded, and its class."""
        where = self.where(index)
        picture = opened(read_file(where), where)
        return turned(picture) if self._upright else picture, int(self.labels[index])

    def where(self, index: int) -> str:
        """The full path of the file at `index`."""
        return os.path.join(self._root, self._folders[self._of_folder[index]], self.name(index))

    def name(self, index: int) -> str:
        """The name of the file at `index`."""
        return os.fsdecode(self._names[index])

    @cached_property
    def content(self) -> str:
        """A hash of all names, and of the bytes of some files."""
        digest = self._digest()
        for index in evenly_spaced(len(self), SAMPLED):
            digest.update(read_file(self.where(index)))
        return digest.hexdigest()

    @property
    def state(self) -> str:
        """A hash of all names, sizes and times of change: of what was checked for damage."""
        digest = self._digest()
        for index in range(len(self)):
            stat = epath.Path(self.where(index)).stat()
            digest.update(f"{stat.length} {stat.mtime} ".encode())
        return digest.hexdigest()

    def _digest(self):
        digest = hashlib.sha256("\0".join([*self._folders, str(self._upright)]).encode())
        digest.update(b"\0".join(self._names.tolist()))
        digest.update(self._of_folder)
        return digest


def _root(path: str) -> epath.Path:
    return epath.Path(path).expanduser()


def _split_folders(root: epath.Path) -> dict[str, str]:
    """The folder of each split, by its name in any case; none where the folders are classes.

    Raises:
        DataError: several folders for a split, or images in other folders beside those of splits:
            either may be meant.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    split_of = {name: split for split, names in FOLDERS.items() for name in names}
    folders: dict[str, str] = {}
    classes = []
    for name in list_entries(root).folders:
        if (split := split_of.get(name.lower())) is None:
            classes.append(name)
        elif split in folders:
            raise DataError(
                f"{root} has the folders {folders[split]} and {name}, which both name the "
                f"{split} images: keep one of them"
            )
        else:
            folders[split] = name
    classes = [name for name in classes if holds_images(root / name)] if folders else []
    if classes:
        names = ", ".join([*classes[:3], *["..."] * (len(classes) > 3)])
        split, name = next(iter(folders.items()))
        raise DataError(
            f"{root} has a folder {name}, which names the {split} images, beside folders of images "
            f"that name none ({names}): if {name} is a class, rename it; if it is not, move the "
            f"folders beside it away or set the path to {root / name}"
        )
    return folders


class _Listing(NamedTuple):
    root: epath.Path
    folders: list[str]
    """Of the classes; none where the images have no labels."""
    names: list[list[str]]
    """Each folder's files."""
    classes: tuple[str, ...]
    passed_over: Counter[str]


def _list(config: ImageFolder) -> _Listing:
    """The class folders of a split, their files and all classes."""
    root = _root(config.path)
    splits = _split_folders(root)
    if config.split not in splits and (splits or config.split != "train"):
        present = f": it has {', '.join(sorted(splits.values()))}" if splits else ""
        raise DataError(f"{root} has no folder {' or '.join(FOLDERS[config.split])}{present}")
    folder = root / splits[config.split] if splits else root
    entries = list_entries(folder)
    if not entries.folders:
        if not entries.images:
            raise DataError(
                f"{folder} holds neither class folders nor images{_endings(entries.passed_over)}"
            )
        return _Listing(folder, [], [entries.images], (), entries.passed_over)
    passed_over = entries.passed_over
    passed_over["beside the class folders"] += len(entries.images)
    names = []
    for name in entries.folders:
        images, others = list_images_below(folder / name)
        if not images:
            raise DataError(f"the class folder {folder / name} holds no image{_endings(others)}")
        names.append(images)
        passed_over += others
    train = root / splits["train"] if "train" in splits else folder
    classes = entries.folders if train == folder else list_entries(train).folders
    if unknown := sorted(set(entries.folders) - set(classes)):
        raise DataError(f"{folder / unknown[0]}: {train} has no class of this name")
    return _Listing(folder, entries.folders, names, tuple(classes), +passed_over)


def _endings(passed_over: Counter[str]) -> str:
    present = f"; it has {describe_passed_over(passed_over)}" if passed_over else ""
    return f" (files ending in {', '.join(ENDINGS)}){present}"
