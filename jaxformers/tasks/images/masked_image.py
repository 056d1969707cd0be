"""Hidden patches of images, painted from the others ("MAE", section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.data.images import (
    ImageRows,
    Preprocessing,
)
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.data.pipeline.stateless_random import Draws, uniform
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import MAE, MAEConfig
from jaxformers.pretrained import load_pretrained, registry
from jaxformers.pretrained.image_backbone import all_variables
from jaxformers.sharding import batch_multiple, constrain
from jaxformers.tasks.base import Loss, Variables
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.images.image_data import (
    ImageData,
    open_cached,
    picture_shape,
    rehearsed,
)
from jaxformers.tasks.images.unlabelled_images import UnlabelledImages
from jaxformers.tasks.processor import Processor

NOISE = 5  # what the draws of an evaluation are for


@dataclass(frozen=True)
class MaskedImage(UnlabelledImages):
    """Learns to paint the patches that it is not shown; labels are not looked at."""

    lowest_is_best: ClassVar[bool] = True

    model: MAEConfig

    @property
    def best(self) -> str:
        """The loss on the development set, where there is one."""
        return "dev_loss" if self.dev_data else ""

    def module(self, execution: Execution) -> MAE:
        """The encoder and the decoder."""
        return MAE(self.model, execution)

    def init(self, model: MAE, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        images = jnp.ones(picture_shape(self.model, batch_multiple()))
        return model.init(key, images, jnp.zeros((len(images), self.model.encoder.num_patches)))

    def pretrained(self, model: MAE) -> Variables:
        """The variables of `weights`, heads included."""
        if self.weights is None:
            return {}
        return all_variables(load_pretrained(self.weights, model.execution), model, self.weights)

    def loss(self, model: MAE, variables: Variables, batch, *, train: bool = False, rngs=None):
        """The mean squared error over hidden patches, drawn anew unless the batch has `noise`."""
        noise = batch.get("noise")
        rngs = {"dropout": jax.random.key(0)} if rngs is None and noise is None else rngs
        outputs = model.apply(variables, batch["images"], noise, train=train, rngs=rngs)
        weight = jnp.asarray(batch["images"].shape[0], jnp.float32)
        return Loss(outputs.loss * weight, weight, {}, {})

    def probe(self, model: MAE, variables: Variables, batch) -> dict[str, jax.Array]:
        """Predicted pixels under a fixed mask, and the loss."""
        images = self.prepare(batch)["images"]
        shape = (images.shape[0], self.model.encoder.num_patches)
        outputs = model.apply(variables, images, jnp.asarray(_noise(0, *shape)))
        return {"prediction": outputs.prediction, "loss": outputs.loss}

    def evaluators(self) -> tuple[MaskedImageEvaluator]:
        """The loss on the development set."""
        return (
            MaskedImageEvaluator(
                dev=self.dev_data, preprocessing=self.preprocessing, rows=self.rows
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
