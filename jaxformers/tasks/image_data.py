"""What the tasks on pictures share: where pictures come from, and what belongs to a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from etils import epath

from jaxformers.data import Batch, batches
from jaxformers.data.images import (
    Augmentation,
    BundledFashionMnist,
    ImageFolder,
    ImagePlan,
    ImageRows,
    InceptionCrop,
    LabelledImages,
    Preprocessing,
    TfdsImages,
    Vtab,
    WholeImage,
)
from jaxformers.data.images.preprocessor_files import write_preprocessing

ImageData = BundledFashionMnist | ImageFolder | TfdsImages | Vtab


@dataclass
class ImageTools:
    """What an image model needs beside its weights."""

    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()

    def save(self, folder: epath.PathLike) -> None:
        """Writes `preprocessor_config.json`; the names are in the model's configuration."""
        write_preprocessing(self.preprocessing, folder)


def resized(augmentation: Augmentation, size: int) -> Augmentation:
    """The same augmentation for a smaller size; crops that fix a number of pixels give way."""
    crop = augmentation.crop
    kept = crop if isinstance(crop, InceptionCrop) else WholeImage()
    return replace(augmentation, size=size, crop=kept)


@dataclass
class ImageTaskData:
    """Training pictures, their plan, and what belongs to the model."""

    store: ImageRows
    plan: ImagePlan
    tools: ImageTools
    images: LabelledImages
    workers: int = 0
    labels: bool = True
    """Whether batches have them."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The pictures, how they are augmented, and the plan."""
        return {**self.store.fingerprint, "plan": self.plan.fingerprint}

    @property
    def steps_per_epoch(self) -> float:
        """Batches that show every picture once."""
        return self.plan.steps_per_epoch

    def batches(self, seed: int, start: int, host: int, hosts: int) -> Iterator[Batch]:
        """This host's rows of batch `start` and all after it."""
        place = {"start": start, "host": host, "hosts": hosts}
        made = batches(self.store, self.plan, seed=seed, workers=self.workers, **place)
        return made if self.labels else _unlabelled(made)

    def describe(self) -> str:
        """Pictures, classes, steps an epoch, what was left out."""
        left = f", {self.images.skipped:,} damaged left out" * bool(self.images.skipped)
        return (
            f"{len(self.store):,} pictures of {self.images.classes} classes{left}; "
            f"{self.steps_per_epoch:,.1f} steps an epoch"
        )


def _unlabelled(made: Iterator[Batch]) -> Iterator[Batch]:
    with contextlib.closing(made):
        for batch in made:
            yield {name: array for name, array in batch.items() if name != "labels"}
