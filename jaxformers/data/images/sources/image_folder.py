"""Pictures in a folder of class folders, or simply in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from etils import epath
from PIL import Image

from jaxformers.data.images.decoding import opened, turned
from jaxformers.data.images.preprocessing import read_file
from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.images.sources.subset import limited, without_damaged
from jaxformers.data.pipeline.even_subset import evenly_spaced
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import PositiveInt

ENDINGS = [
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".avif",
]  # whatever their case
FOLDERS = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test",),
}
SAMPLED = 64


@dataclass(frozen=True)
class ImageFolder(ImageSource):
    """A folder with a folder for each class, perhaps below `train`, `dev` (or `val`) and `test`.

    Classes are numbered in the order of their folders' names; those of `dev` and `test` as in
    `train`. A folder that holds pictures itself has no labels: it is for prediction. ImageNet-21k
    and the like come so. Names that begin with "." are passed over, and folders' with "__".
    """

    path: str = ""
    """The folder, or a bucket's path."""
    split: Literal["train", "dev", "test"] = "train"
    """Which of the folders; without such folders `train` is the whole."""
    skip_damaged: bool = False
    """Leave out pictures that do not decode, and count them; every one is decoded once to know,
    and the answer kept. Otherwise the first that is met stops the run."""
    upright: bool = False
    """Turn pictures as their EXIF notes say; published numbers are made without."""
    limit: PositiveInt | None = None
    """At most so many pictures, evenly spaced."""

    def other(self, split: Literal["dev", "test"]) -> ImageFolder | None:
        """The folder of that split, if there is one."""
        folder = self.path and _split_folder(_root(self.path), split)
        return replace(self, split=split, limit=None) if folder else None

    def open(self) -> LabelledImages:
        """The pictures; their files are listed, not read.

        Raises:
            ConfigError: no path.
            DataError: no such folder, no picture, an empty class folder, or a class that `train`
                does not have.
        """
        if not self.path:
            raise ConfigError("no folder of pictures is named: set the data's path")
        images = FolderImages(*_listed(self), upright=self.upright)
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
        upright: bool = False,
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


def _split_folder(root: epath.Path, split: str) -> epath.Path | None:
    return next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)


def _listed(config: ImageFolder) -> tuple[epath.Path, list[str], list[list[str]], tuple[str, ...]]:
    """Root, class folders, their files and all classes."""
    root = _root(config.path)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    folder_of_split = _split_folder(root, config.split)
    if folder_of_split is None and config.split != "train":
        raise DataError(f"{root} has no folder {' or '.join(FOLDERS[config.split])}")
    folder_of_split = folder_of_split or root
    folders, files = _entries(folder_of_split)
    if not folders:
        if not files:
            raise DataError(
                f"{folder_of_split} holds neither class folders nor pictures{_endings()}"
            )
        return folder_of_split, [], [files], ()
    names = [_pictures(folder_of_split / folder) for folder in folders]
    train = _split_folder(root, "train") or folder_of_split
    classes = folders if train == folder_of_split else _entries(train)[0]
    if unknown := sorted(set(folders) - set(classes)):
        raise DataError(f"{folder_of_split / unknown[0]}: {train} has no class of this name")
    return folder_of_split, folders, names, tuple(classes)


def _pictures(folder: epath.Path) -> list[str]:
    _, files = _entries(folder)
    if not files:
        raise DataError(f"the class folder {folder} holds no picture{_endings()}")
    return files


def _endings() -> str:
    return f" (files ending in {', '.join(ENDINGS)})"


def _entries(folder: epath.Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the pictures in `folder`, each in order."""
    if "://" in str(folder):
        every = [(path.name, path.is_dir()) for path in folder.iterdir()]
    else:
        with os.scandir(folder) as entries:  # far faster than asking for each entry's kind
            every = [(entry.name, entry.is_dir()) for entry in entries]
    visible = sorted((name, is_dir) for name, is_dir in every if not name.startswith("."))
    # Names such as __pycache__ and __MACOSX are what other programs leave.
    folders = [name for name, is_dir in visible if is_dir and not name.startswith("__")]
    files = [n for n, is_dir in visible if not is_dir and n.lower().endswith(tuple(ENDINGS))]
    return folders, files
