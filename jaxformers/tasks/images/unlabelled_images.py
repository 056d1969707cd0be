"""Base of the tasks that learn from images alone: their fields, batches and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.images import Augmentation, ImagePlan, ImageRows, Preprocessing
from jaxformers.fields import NonNegativeInt, PositiveInt
from jaxformers.tasks.base import Task
from jaxformers.tasks.images.image_data import (
    ImageData,
    ImageTaskData,
    check_sizes,
    open_cached,
    passed_over_lines,
    picture_shape,
)
from jaxformers.tasks.processor import Processor


@dataclass(frozen=True)
class UnlabelledImages(Task):
    """A task on images whose labels are not looked at; a batch has `images` uint8 `[B, H, W, C]`.

    A subclass states its model, loss, evaluators and rehearsal.
    """

    unit: ClassVar[str] = "images"

    model: Any
    """Configuration of the network."""
    data: ImageData
    """Training images."""
    augmentation: Augmentation
    """How training images are cropped and mirrored, to the model's size."""
    preprocessing: Preprocessing
    """How evaluated images are; its mean and deviation normalise training images too."""
    dev: ImageData | None = None
    """Development images; None: the data's own, where it has such a set."""
    rows: PositiveInt = 128
    """Images in a batch."""
    weights: str | None = None
    """Model to go on from: a published folder or file, a run, or a hub's name; None: none."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: threads."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self)

    @property
    def dev_data(self) -> ImageData | None:
        """`dev`, or the data's own development set; None: there is none."""
        return self.dev or self.data.other("dev")

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape of a batch."""
        shape = picture_shape(self.model, self.rows)
        return ({"images": jax.ShapeDtypeStruct(shape, jnp.uint8)},)

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Normalises the images by the mean and deviation of `preprocessing`."""
        return {**batch, "images": self.preprocessing.normalised(batch["images"])}

    def example(self, seed: int) -> Batch:
        """Random pixels."""
        rng, shape = np.random.default_rng(seed), self.batch_shapes()[0]["images"].shape
        return {"images": rng.integers(0, 256, shape).astype(np.uint8)}

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["images"])

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> ImageTaskData:
        """Opens both sets, so that their errors show before training."""
        store = ImageRows(self.data.open(), self.augmentation)
        sets = [store.source]
        if self.dev_data is not None:
            sets.append(open_cached(self.dev_data))
        return ImageTaskData(
            store,
            ImagePlan(store, self.rows),
            Processor(None, self.preprocessing),
            self.workers,
            labels=False,
            evaluation_sizes=tuple(("dev", len(images)) for images in sets[1:]),
            passed_over=passed_over_lines(*sets),
        )

    def processor(self, folder: epath.PathLike) -> Processor:
        """The preprocessing, which the task itself states."""
        return Processor(preprocessing=self.preprocessing)
