"""VTAB-1k: 19 tasks of 1,000 pictures each (Zhai et al. 2019), from prepared TFDS sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from jaxformers.data.files.tfds_rows import split_sizes
from jaxformers.data.images.sources.labelled_images import ImageSource
from jaxformers.data.images.sources.tfds_images import StoredImages
from jaxformers.errors import ConfigError, did_you_mean

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0
VEHICLES = 3  # car, van and truck are KITTI's first types
TRAIN, DEV = 800, 200

Row = dict[str, Any]


def _plain(key: str, row: Row) -> int:
    return row[key]


def _divided(key: str, by: float, row: Row) -> int:
    return int(row[key] // by)


def _bin(limits: tuple[float, ...], value: float) -> int:
    """Number of the last limit below `value`."""
    return int(np.searchsorted(limits, value)) - 1


def _clevr_count(row: Row) -> int:
    return len(row["objects"]["size"]) - 3


def _clevr_distance(row: Row) -> int:
    return _bin(CLEVR_DISTANCES, np.min(np.asarray(row["objects"]["pixel_coords"])[:, 2]))


def _kitti_distance(row: Row) -> int:
    locations = np.asarray(row["objects"]["location"]).reshape(-1, 3)
    vehicles = locations[np.asarray(row["objects"]["type"], int) < VEHICLES, 2]
    return _bin(KITTI_DISTANCES, min(vehicles, default=NO_VEHICLE))


@dataclass(frozen=True)
class Form:
    """How a task is read from its set."""

    name: str
    """In TFDS."""
    classes: int
    group: Literal["natural", "specialized", "structured"]
    splits: Literal["validation", "tenth", "fifth", "cut", "cut8", "clevr", "half"] = "validation"
    """Where the 200 for development and the test pictures come from."""
    label: Callable[[Row], int] = partial(_plain, "label")
    features: tuple[str, ...] = ("label",)
    brighten: int = 1


def _attribute(name: str, classes: int, key: str, by: float, **fields: Any) -> Form:
    label = partial(_divided, key, by)
    return Form(name, classes, "structured", label=label, features=(key,), **fields)


DSPRITES = dict(splits="cut8", brighten=255)
OBJECTS = ("objects",)
# In the order of ViT's table 9.
TASKS: dict[str, Form] = {
    "caltech101": Form("caltech101", 102, "natural", "tenth"),
    "cifar100": Form("cifar100", 100, "natural", "tenth"),
    "dtd": Form("dtd", 47, "natural"),
    "flowers102": Form("oxford_flowers102", 102, "natural"),
    "pets": Form("oxford_iiit_pet", 37, "natural", "fifth"),
    "sun397": Form("sun397/tfds", 397, "natural"),
    "svhn": Form("svhn_cropped", 10, "natural", "tenth"),
    "patch_camelyon": Form("patch_camelyon", 2, "specialized"),
    "eurosat": Form("eurosat/rgb", 10, "specialized", "cut"),
    "resisc45": Form("resisc45", 45, "specialized", "cut"),
    "retinopathy": Form("diabetic_retinopathy_detection/btgraham-300", 5, "specialized"),
    "clevr_count": Form("clevr", 8, "structured", "clevr", _clevr_count, OBJECTS),
    "clevr_distance": Form("clevr", 6, "structured", "clevr", _clevr_distance, OBJECTS),
    "dmlab": Form("dmlab", 6, "structured"),
    "dsprites_location": _attribute("dsprites", 16, "label_x_position", 2.0, **DSPRITES),
    "dsprites_orientation": _attribute("dsprites", 16, "label_orientation", 2.5, **DSPRITES),
    "kitti_distance": Form("kitti", 4, "structured", label=_kitti_distance, features=OBJECTS),
    "smallnorb_azimuth": _attribute("smallnorb", 18, "label_azimuth", 1.0, splits="half"),
    "smallnorb_elevation": _attribute("smallnorb", 9, "label_elevation", 1.0, splits="half"),
}
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(task for task, form in TASKS.items() if form.group == group)
    for group in ("natural", "specialized", "structured")
}
# What share of `train` trains where a part of it is for development, and perhaps a part to test.
SHARES = {"tenth": (90, 100), "fifth": (80, 100), "clevr": (90, 100)}
CUTS = {"cut": (60, 80), "cut8": (80, 90)}


@dataclass(frozen=True)
class Vtab(ImageSource):
    """One task of VTAB-1k, its splits and labels as in Google's task_adaptation.

    Options are tuned on `train800` and `dev`, 200 pictures; the model that is reported is trained
    on `train`, all 1,000, and evaluated on the whole `test` by top-1 accuracy.
    """

    task: str = "caltech101"
    split: Literal["train", "train800", "dev", "test"] = "train"
    data_dir: str | None = None
    """Where TFDS keeps its sets; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def __post_init__(self):
        super().__post_init__()
        if self.task not in TASKS:
            hint = did_you_mean(self.task, list(TASKS)) or f"; it has {', '.join(TASKS)}"
            raise ConfigError(f"VTAB has no task {self.task!r}{hint}")

    @property
    def classes(self) -> int:
        """Number of the task's classes."""
        return TASKS[self.task].classes

    def other(self, split: Literal["dev", "test"]) -> Vtab | None:
        """The task's test set, or its 200 pictures for development where `train` lacks them."""
        if split == "dev" and self.split == "train":
            return None
        return replace(self, split=split)

    def open(self) -> StoredImages:
        """The pictures; raises DataError where the set is not prepared."""
        form = TASKS[self.task]
        sizes = split_sizes(form.name, self.data_dir)
        images = StoredImages(
            form.name,
            vtab_split(form, self.split, sizes),
            form.label,
            form.features,
            data_dir=self.data_dir,
            brighten=form.brighten,
        )
        images.source = f"VTAB-1k {self.task}, {images.source}"
        plain = form.features == ("label",)
        names = images.info.features["label"].names if plain else map(str, range(form.classes))
        images.class_names = tuple(names)
        return images


def vtab_split(form: Form, split: str, sizes: dict[str, int]) -> str:
    """The TFDS split of VTAB's `train`, `train800`, `dev` or `test`, given all splits' sizes.

    A set that is smaller than VTAB's, as a mocked one is, gives what it has.
    """
    train, dev = _part("train", 0, TRAIN, sizes), _part("validation", 0, DEV, sizes)
    test = "validation" if form.splits == "clevr" else "test"
    if form.splits == "half":
        dev, test = _part("test", 0, DEV, sizes), "test[50%:]"
    elif form.splits != "validation":
        percent, end = (SHARES | CUTS)[form.splits]
        first = sizes["train"] * percent // 100
        dev = _part("train", first, DEV, sizes)
        if form.splits in CUTS:
            # Counted part by part, as each is rounded down on its own.
            test = f"train[{first + sizes['train'] * (end - percent) // 100}:]"
    return {"train": f"{train}+{dev}", "train800": train, "dev": dev, "test": test}[split]


def _part(name: str, start: int, count: int, sizes: dict[str, int]) -> str:
    stop = min(start + count, sizes.get(name, start + count))
    return f"{name}[{start or ''}:{stop}]"
