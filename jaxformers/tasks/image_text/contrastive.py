"""Contrastive training of an image and a text tower ("CLIP", section 2.3; "SigLIP", section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.captions import BundledEmoji, CaptionPlan, CaptionRows
from jaxformers.data.images import Augmentation, Preprocessing
from jaxformers.errors import ConfigError
from jaxformers.fields import NonNegativeInt, PositiveInt, Range
from jaxformers.layers import Execution
from jaxformers.models import CLIP, CLIPConfig
from jaxformers.pretrained import load_pretrained, registry
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.image_backbone import all_variables
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.image_text.contrastive_loss import (
    Duplicates,
    Form,
    Objective,
    contrastive_loss,
)
from jaxformers.tasks.image_text.retrieval import CaptionData, RetrievalEvaluator, open_cached
from jaxformers.tasks.images.image_data import check_sizes, picture_shape, resized
from jaxformers.tasks.processor import TOKENIZER, Processor
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.vocabulary import run_tokenizer
from jaxformers.text import CLIPTokenizer, Tokenizer, WordPiece, holds_tokenizer, load_tokenizer

OPENAI_VOCABULARY = 49408
REHEARSED_VOCABULARY = 300
MaxLogitScale = Annotated[float, Range(gt=1)]


@dataclass(frozen=True)
class Contrastive(Task):
    """Learns which caption belongs to which image; every other row of a batch is a negative."""

    unit: ClassVar[str] = "images"

    model: CLIPConfig
    data: CaptionData
    """Training images and captions; one caption of an image is drawn at each step."""
    augmentation: Augmentation
    """How training images are cropped; as large as the model takes them."""
    preprocessing: Preprocessing
    """How others are; its mean and deviation normalise training images too."""
    dev: CaptionData | None = None
    """Development images, on which retrieval is evaluated; None: none."""
    rows: PositiveInt = 256
    """Pairs in a batch: the global batch is the negatives, whatever the mesh."""
    objective: Objective = "softmax"
    """CLIP's softmax over the batch, or SigLIP's sigmoid, for which the model has a bias."""
    duplicates: Duplicates = "negatives"
    """What pairs of rows with the same image or caption are: negatives as in the published code,
    further positives, or left out."""
    form: Form = "auto"
    """`plain` writes the batch's logits, `ring` passes texts from device to device in memory that
    does not grow with the batch; `auto` goes by their number."""
    microbatches: PositiveInt = 1
    """Parts of the batch that the towers encode one after another, recomputed in the backward pass
    (Gao et al. 2021, GradCache): one part's activations are in memory, the loss is still that of
    the whole batch. A ResNet's batch norm then normalises each part."""
    max_logit_scale: MaxLogitScale = 100.0
    """The scale is clipped to this after every step (section 2.5)."""
    tokenizer: str | None = None
    """Folder of a tokenizer; None: that of `weights`, OpenAI's for a vocabulary of 49,408, else one
    trained on the captions."""
    weights: str | None = None
    """Weights to start from: a published folder or file, a run, or a hub's name; None: none."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: threads."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self)
        if (self.objective == "sigmoid") != (self.model.logit_bias is not None):
            raise ConfigError(
                f"objective {self.objective!r} with logit_bias {self.model.logit_bias}: the "
                "sigmoid loss has a bias (-10), the softmax none"
            )
        if self.rows % self.microbatches:
            raise ConfigError(
                f"{self.rows} rows do not divide into {self.microbatches} microbatches"
            )

    @property
    def best(self) -> str:
        """Recall of images by text among the first ten, where there is a development set."""
        return RetrievalEvaluator.BEST if self.dev else ""

    def module(self, execution: Execution) -> CLIP:
        """The model of both towers."""
        return CLIP(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """One shape: `images`, `input_ids`, and the `groups` that tell duplicates."""
        length = self.model.text.context_length
        return (
            {
                "images": jax.ShapeDtypeStruct(picture_shape(self.model, self.rows), jnp.uint8),
                "input_ids": jax.ShapeDtypeStruct((self.rows, length), jnp.int32),
                "groups": jax.ShapeDtypeStruct((self.rows, 2), jnp.int32),
            },
        )

    def init(self, model: CLIP, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        rows, length = batch_multiple(), self.model.text.context_length
        images = jnp.ones(picture_shape(self.model, rows))
        return model.init(key, images, jnp.zeros((rows, length), jnp.int32))

    def pretrained(self, model: CLIP) -> Variables:
        """The variables of `weights`, heads included."""
        if self.weights is None:
            return {}
        return all_variables(load_pretrained(self.weights, model.execution), model, self.weights)

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Normalises the images of a batch."""
        return {**batch, "images": self.preprocessing.normalised(batch["images"])}

    def loss(self, model: CLIP, variables: Variables, batch, *, train: bool = False, rngs=None):
        """The contrastive loss of the whole batch; its parts do not add up."""
        key = jax.random.key(0) if rngs is None else rngs["dropout"]
        image, text, state = self._embed(model, variables, batch, train, key)
        params = variables["params"]
        total = contrastive_loss(
            image,
            text,
            params["logit_scale"],
            params.get("logit_bias"),
            groups=batch["groups"],
            objective=self.objective,
            duplicates=self.duplicates,
            form=self.form,
        )
        weight = jnp.asarray(image.shape[0], jnp.float32)
        metrics = {"logit_scale": jnp.exp(params["logit_scale"]) * weight}
        return Loss(total, weight, metrics, state, additive=False)

    def _embed(self, model: CLIP, variables: Variables, batch, train: bool, key):
        """Unit vectors of all images and texts, and the collections that the towers changed."""
        mutable = [name for name in variables if name != "params"] if train else []
        params = {"params": variables["params"]}

        def encode(state, inputs):
            images, input_ids, key = inputs
            embeds, changed = model.apply(
                params | state,
                images,
                input_ids,
                train=train,
                rngs={"dropout": key},
                mutable=mutable,
                method="embed",
            )
            return {**state, **changed}, embeds

        state = {name: value for name, value in variables.items() if name != "params"}
        rows = batch["images"], batch["input_ids"]
        num_microbatches = self.microbatches
        if num_microbatches == 1:
            state, (image, text) = encode(state, (*rows, key))
            return image, text, {name: state[name] for name in mutable}
        # [B, ...] -> [A, B / A, ...]: row i in part i % A, so that no row leaves its device.
        rows = (x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1) for x in rows)
        # The backward pass recomputes one part at a time from its inputs alone; only the
        # embeddings of the others are kept, which is what caching gradients amounts to.
        keys = jax.random.split(key, num_microbatches)
        encode = jax.checkpoint(encode, prevent_cse=False)
        state, embeds = jax.lax.scan(encode, state, (*rows, keys))
        image, text = (x.swapaxes(0, 1).reshape(-1, x.shape[-1]) for x in embeds)
        return image, text, {name: state[name] for name in mutable}

    def constrain_params(self, params: Any) -> Any:
        """The scale within 1 and `max_logit_scale`."""
        scale = jnp.clip(params["logit_scale"], 0.0, math.log(self.max_logit_scale))
        return {**params, "logit_scale": scale}

    def example(self, seed: int) -> Batch:
        """Random pixels and tokens, the end of text last."""
        rng, specs = np.random.default_rng(seed), self.batch_shapes()[0]
        ids = rng.integers(1, self.model.text.vocab_size - 1, specs["input_ids"].shape)
        ids[:, -1] = self.model.text.eos_id
        return {
            "images": rng.integers(0, 256, specs["images"].shape).astype(np.uint8),
            "input_ids": ids.astype(np.int32),
            "groups": np.arange(2 * self.rows, dtype=np.int32).reshape(-1, 2),
        }

    def probe(self, model: CLIP, variables: Variables, batch) -> dict[str, jax.Array]:
        """Embeddings of images and texts."""
        batch = self.prepare(batch)
        image, text = model.apply(variables, batch["images"], batch["input_ids"], method="embed")
        return {"image_embeds": image, "text_embeds": text}

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["images"])

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> ContrastiveData:
        """Opens the training images and the tokenizer, which a new run may train."""
        images = self.data.open()
        size = self.model.text.vocab_size
        tokenizer = run_tokenizer(folder, host, size, lambda: self._make_tokenizer(images))
        self._check_end(tokenizer)
        length = self.model.text.context_length
        store = CaptionRows(images, self.augmentation, tokenizer, length)
        if self.dev is not None:
            open_cached(self.dev)
        processor = Processor(tokenizer, self.preprocessing)
        return ContrastiveData(store, CaptionPlan(store, self.rows), processor, self.workers)

    def _make_tokenizer(self, images) -> Tokenizer:
        if self.tokenizer is not None:
            return load_tokenizer(resolve(self.tokenizer))
        if self.weights is not None and holds_tokenizer(folder := resolve(self.weights)):
            return load_tokenizer(folder)
        if self.model.text.vocab_size == OPENAI_VOCABULARY:
            return CLIPTokenizer()
        texts = (text for index in range(len(images)) for text in images.captions(index))
        return WordPiece.train(texts, self.model.text.vocab_size)

    def _check_end(self, tokenizer: Tokenizer) -> None:
        """Refuses a tokenizer whose end of text is not the token that the tower pools."""
        text = self.model.text
        expected = {"eos": text.eos_id, "highest_id": text.vocab_size - 1}.get(text.pooling)
        if expected not in (None, tokenizer.eos_id):
            raise ConfigError(
                f"the tokenizer ends a text with the id {tokenizer.eos_id}, the model pools at "
                f"{expected}: set --task.model.text.pooling eos --task.model.text.eos-id "
                f"{tokenizer.eos_id}"
            )

    def processor(self, folder: epath.PathLike) -> Processor:
        """The run's tokenizer, and the preprocessing that the task states."""
        return Processor(load_tokenizer(epath.Path(folder) / TOKENIZER), self.preprocessing)

    def evaluators(self) -> tuple[RetrievalEvaluator, ...]:
        """Retrieval on the development set, where there is one."""
        if self.dev is None:
            return ()
        return (RetrievalEvaluator(dev=self.dev, rows=self.rows),)

    def rehearsal(self) -> Contrastive:
        """A few thousand parameters and some dozens of bundled emoji."""
        model = registry.shrink(self.model)
        if model.text.vocab_size != OPENAI_VOCABULARY:  # one is trained on the few captions
            eos_id = min(model.text.eos_id, REHEARSED_VOCABULARY - 1)
            text = replace(model.text, vocab_size=REHEARSED_VOCABULARY, eos_id=eos_id)
            model = replace(model, text=text)
        size = model.image_size
        return replace(
            self,
            model=model,
            data=BundledEmoji(limit=64),
            dev=BundledEmoji(limit=24),
            augmentation=resized(self.augmentation, size),
            preprocessing=replace(self.preprocessing, size=size, resize=None, rule="direct"),
            rows=16,
            microbatches=min(self.microbatches, 2),
            tokenizer=None,
            weights=None,
            workers=0,
        )


class ContrastiveData(PlannedData):
    """Training images and captions, their plan, and what belongs to the model."""

    def describe(self) -> str:
        """Images, what was left out or cut, steps an epoch."""
        images = self.store.source
        left = f", {images.skipped:,} left out" * bool(images.skipped)
        count, total = self.store.count_cut()
        cut = f"; {count:,} of {total:,} captions read are too long and cut" * bool(count)
        steps = f"{self.steps_per_epoch:,.1f} steps an epoch"
        return f"{len(images):,} captioned images{left}{cut}; {steps}"
