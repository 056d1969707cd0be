"""What the tasks on pictures share: where pictures come from, and what belongs to a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from jaxformers.arrays import height_width
from jaxformers.data import Batch
from jaxformers.data.images import (
    Augmentation,
    BundledFashionMnist,
    HeldOut,
    ImageFolder,
    ImageTable,
    InceptionCrop,
    LabelledImages,
    TfdsImages,
    Vtab,
    WholeImage,
    check_classes,
)
from jaxformers.data.scenes import EmojiSceneImages
from jaxformers.errors import ConfigError
from jaxformers.tasks.images.image_warnings import image_warnings
from jaxformers.tasks.task_data import PlannedData

LISTED_CLASSES = 20
ImageData = (
    BundledFashionMnist | EmojiSceneImages | ImageFolder | ImageTable | HeldOut | TfdsImages | Vtab
)


def picture_shape(model: Any, rows: int) -> tuple[int, int, int, int]:
    """Of so many pictures, as the configuration `model` takes them."""
    return rows, *height_width(model.image_size), model.channels


def check_sizes(task: Any) -> None:
    """Raises ConfigError where a task makes images of another size than its model takes.

    Or where training converts colours by another rule than evaluation.
    """
    size, channels = task.model.image_size, task.model.channels
    for name in ("augmentation", "preprocessing"):
        sized = getattr(task, name)
        if (sized.size, sized.channels) != (size, channels):
            option = " ".join(map(str, size)) if isinstance(size, tuple) else size
            raise ConfigError(
                f"{name} makes images of {sized.size} pixels and {sized.channels} channels, "
                f"the model takes {size} and {channels}: set --task.{name}.size {option} "
                f"--task.{name}.channels {channels}"
            )
    for name in ("alpha", "grey_bits"):
        value = getattr(task.preprocessing, name)
        if getattr(task.augmentation, name) != value:
            option = name.replace("_", "-")
            raise ConfigError(
                f"{name} is {getattr(task.augmentation, name)} for training and {value} for "
                f"evaluation: set --task.augmentation.{option} {value}"
            )


def check_labels(images: LabelledImages, classes: int, multi_label: bool) -> None:
    """Raises ConfigError where the images' labels are not of the model's kind and number."""
    if images.multi_label != multi_label:
        number, mend = ("several labels", "--task.multi-label --task.objective sigmoid")
        if multi_label:
            number, mend = ("one label", "--task.no-multi-label")
        raise ConfigError(f"the images of {images.source} have {number} each: set {mend}")
    check_classes(images, classes)


@lru_cache(maxsize=4)
def open_cached(source: ImageData) -> LabelledImages:
    """The pictures of a set for evaluation, read once."""
    return source.open()


def rehearsed(task: Any, size: int) -> dict[str, Any]:
    """The fields of `task` that a rehearsal changes: some dozens of bundled pictures of `size`."""
    return dict(
        data=BundledFashionMnist(limit=64),
        dev=BundledFashionMnist("dev", limit=24),
        augmentation=resized(task.augmentation, size),
        preprocessing=replace(task.preprocessing, size=size, resize=None, rule="direct"),
        rows=16,
        weights=None,
        workers=0,
    )


def resized(augmentation: Augmentation, size: int) -> Augmentation:
    """The same augmentation for a smaller size; crops that fix a number of pixels give way."""
    crop = augmentation.crop
    crop_kind = crop if isinstance(crop, InceptionCrop) else WholeImage()
    return replace(augmentation, size=size, crop=crop_kind)


@dataclass
class ImageTaskData(PlannedData):
    """Training pictures, their plan, and what belongs to the model."""

    labels: bool = True
    """Whether batches have them."""
    evaluation_sizes: tuple[tuple[str, int], ...] = ()
    """Name and number of images of each set that is evaluated."""
    passed_over: tuple[str, ...] = ()
    """Lines on files that are not among the images."""

    def batches(self, seed: int, start: int, host: int, hosts: int) -> Iterator[Batch]:
        """This host's rows of batch `start` and all after it."""
        labelled = super().batches(seed, start, host, hosts)
        return labelled if self.labels else _unlabelled(labelled)

    def describe(self) -> str:
        """Images, classes, steps an epoch, what was left out; warnings on lines of their own."""
        images = self.store.source
        left = f", {images.skipped:,} damaged left out" * bool(images.skipped)
        names = images.class_names
        listed = f" ({', '.join(names)})" * (0 < len(names) <= LISTED_CLASSES)
        classes = f" of {images.classes} classes{listed}" if images.labelled else " without labels"
        height, width = height_width(self.processor.preprocessing.size)
        evaluated = "".join(f", {name} {count:,}" for name, count in self.evaluation_sizes)
        summary = (
            f"{len(images):,} images{classes}{left}{evaluated}; "
            f"{height} x {width} x {self.processor.preprocessing.channels} pixels, "
            f"{self.steps_per_epoch:,.1f} steps an epoch"
        )
        augmentation, preprocessing = self.store.transform, self.processor.preprocessing
        warnings = image_warnings(images, augmentation, preprocessing)
        return "\n".join([summary, *self.passed_over, *warnings])


def passed_over_lines(*sets: LabelledImages) -> tuple[str, ...]:
    """A line on each source of images that passed over files."""
    lines = (f"passed over in {s.source}: {s.passed_over}" for s in sets if s.passed_over)
    return tuple(dict.fromkeys(lines))


def _unlabelled(batches: Iterator[Batch]) -> Iterator[Batch]:
    with contextlib.closing(batches):
        for batch in batches:
            yield {name: array for name, array in batch.items() if name != "labels"}
