"""Hidden patches of images, painted from the others ("MAE", section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.images import (
    Augmentation,
    ImagePlan,
    ImageRows,
    Preprocessing,
)
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.data.pipeline.stateless_random import Draws, uniform
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import MAE, MAEConfig
from jaxformers.pretrained import load_pretrained, registry
from jaxformers.pretrained.image_backbone import all_variables
from jaxformers.sharding import batch_multiple, constrain
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.images.image_data import (
    ImageData,
    ImageTaskData,
    check_sizes,
    open_cached,
    passed_over_lines,
    picture_shape,
    rehearsed,
)
from jaxformers.tasks.processor import Processor

NOISE = 5  # what the draws of an evaluation are for


@dataclass(frozen=True)
class MaskedImage(Task):
    """Learns to paint the patches that it is not shown; labels are not looked at."""

    unit: ClassVar[str] = "images"
    lowest_is_best: ClassVar[bool] = True

    model: MAEConfig
    data: ImageData
    """Training pictures."""
    augmentation: Augmentation
    """How training pictures are cut and mirrored; as large as the model takes them."""
    preprocessing: Preprocessing
    """How others are; its mean and deviation normalise training pictures too."""
    dev: ImageData | None = None
    """Development pictures; None: the data's own, where it has such a set."""
    rows: PositiveInt = 128
    """Pictures in a batch."""
    weights: str | None = None
    """MAE to go on from: a published folder, a run, or a hub's name; None: none."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: threads."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self)

    @property
    def best(self) -> str:
        """The loss on the development set, where there is one."""
        return "dev_loss" if self._dev_data else ""

    @property
    def _dev_data(self) -> ImageData | None:
        return self.dev or self.data.other("dev")

    def module(self, execution: Execution) -> MAE:
        """The encoder and the decoder."""
        return MAE(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape of a batch."""
        shape = picture_shape(self.model, self.rows)
        return ({"images": jax.ShapeDtypeStruct(shape, jnp.uint8)},)

    def init(self, model: MAE, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        images = jnp.ones(picture_shape(self.model, batch_multiple()))
        return model.init(key, images, jnp.zeros((len(images), self.model.encoder.num_patches)))

    def pretrained(self, model: MAE) -> Variables:
        """The variables of `weights`, heads included."""
        if self.weights is None:
            return {}
        return all_variables(load_pretrained(self.weights, model.execution), model, self.weights)

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Normalises the pictures."""
        return {**batch, "images": self.preprocessing.normalised(batch["images"])}

    def loss(self, model: MAE, variables: Variables, batch, *, train: bool = False, rngs=None):
        """The mean squared error over hidden patches, drawn anew unless the batch has `noise`."""
        noise = batch.get("noise")
        rngs = {"dropout": jax.random.key(0)} if rngs is None and noise is None else rngs
        outputs = model.apply(variables, batch["images"], noise, train=train, rngs=rngs)
        weight = jnp.asarray(batch["images"].shape[0], jnp.float32)
        return Loss(outputs.loss * weight, weight, {}, {})

    def example(self, seed: int) -> Batch:
        """Random images."""
        rng, shape = np.random.default_rng(seed), self.batch_shapes()[0]["images"].shape
        return {"images": rng.integers(0, 256, shape).astype(np.uint8)}

    def probe(self, model: MAE, variables: Variables, batch) -> dict[str, jax.Array]:
        """Predicted pixels under a fixed mask, and the loss."""
        images = self.prepare(batch)["images"]
        shape = (images.shape[0], self.model.encoder.num_patches)
        outputs = model.apply(variables, images, jnp.asarray(_noise(0, *shape)))
        return {"prediction": outputs.prediction, "loss": outputs.loss}

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["images"])

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> ImageTaskData:
        """Opens both sets, for their mistakes to show before training."""
        store = ImageRows(self.data.open(), self.augmentation)
        sets = [store.source]
        if self._dev_data is not None:
            sets.append(open_cached(self._dev_data))
        plan, processor = ImagePlan(store, self.rows), Processor(None, self.preprocessing)
        return ImageTaskData(
            store,
            plan,
            processor,
            self.workers,
            labels=False,
            evaluation_sizes=tuple(("dev", len(images)) for images in sets[1:]),
            passed_over=passed_over_lines(*sets),
        )

    def processor(self, folder: epath.PathLike) -> Processor:
        """The preprocessing, which the task itself states."""
        return Processor(preprocessing=self.preprocessing)

    def evaluators(self) -> tuple[MaskedImageEvaluator]:
        """The loss on the development set."""
        return (
            MaskedImageEvaluator(
                dev=self._dev_data, preprocessing=self.preprocessing, rows=self.rows
            ),
        )

    def rehearsal(self) -> MaskedImage:
        """A few thousand parameters and some dozens of bundled pictures."""
        encoder = registry.shrink(self.model.encoder)
        decoder = dict(decoder_width=8, decoder_layers=1, decoder_heads=2, decoder_feed_forward=16)
        return replace(
            self,
            model=replace(self.model, encoder=encoder, **decoder),
            **rehearsed(self, encoder.image_size),
        )


def _noise(number: int, rows: int, patches: int) -> np.ndarray:
    """Uniform numbers `[rows, patches]` that hide the same patches at every evaluation."""
    return uniform(Draws(NOISE, number).words(rows, patches)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class MaskedImageEvaluator(CheckedFields):
    """`dev_loss` over all development images, each under the same mask at every evaluation."""

    name: str = "masked images"
    dev: ImageData | None
    preprocessing: Preprocessing
    rows: PositiveInt = 128
    """Images of a batch."""

    def evaluate(self, model: MAE, variables, processor: Processor, *, final: bool) -> Evaluation:
        """The mean loss of the development images; no metric without them."""
        if self.dev is None:
            return Evaluation({})
        store = ImageRows(open_cached(self.dev), self.preprocessing)
        run = _program(model, self.preprocessing)
        rows, patches = round_up_rows(min(self.rows, len(store))), model.config.encoder.num_patches
        losses = []
        for index, (batch, count) in enumerate(every_row(store, rows)):
            batch_losses = run(variables, batch["images"], _noise(index, rows, patches))
            losses += np.asarray(batch_losses)[:count].tolist()
        return Evaluation({"dev_loss": float(np.mean(losses))})


@lru_cache(maxsize=2)
def _program(model: MAE, preprocessing: Preprocessing):
    @jax.jit
    def run(variables, images, noise):
        outputs = model.apply(variables, preprocessing.normalised(images), noise)
        error = jnp.square(outputs.prediction - model.target(preprocessing.normalised(images)))
        rows = (error.mean(-1) * outputs.mask).sum(-1) / outputs.mask.sum(-1)
        return constrain(rows, None)

    return run
