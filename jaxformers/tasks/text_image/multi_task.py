"""Multi-task training of Unified-IO: one loss over the text and the image codes of all tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.mixture import Mixture, OpenMixture, open_mixture
from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.decoding.sampling import Sampling
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import NonNegativeFloat, NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import VQGAN, UnifiedIO, UnifiedIOConfig
from jaxformers.pretrained import load_pretrained
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.image_backbone import all_variables
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import TOKENIZER, Processor
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.vocabulary import run_tokenizer
from jaxformers.tasks.text_image.evaluation import TextImageEvaluator
from jaxformers.tasks.text_image.features import (
    RowBuilder,
    TextImagePlan,
    TextImageRows,
    modality_buckets,
    normalised_patches,
    unused_arrays,
)
from jaxformers.tasks.text_image.rehearsal import (
    TARGET_LENGTH,
    TEXT_LENGTH,
    rehearsal_mixture,
    rehearsal_model,
)
from jaxformers.tasks.text_image.vocabulary import train_vocabulary
from jaxformers.text import UnifiedIOTokenizer, load_tokenizer

IMAGE_TOKENIZER = "image_tokenizer"  # among the model's parameters
DESCRIBED = 3  # examples


@dataclass(frozen=True)
class TextImage(Task):
    """One model for all tasks of a mixture, each stated by its prompt.

    The model's image tokenizer gives the codes of target pictures and is not trained: no gradient
    reaches it, and an experiment says `frozen=("image_tokenizer/.*",)`, so that weight decay does
    not change it either.
    """

    unit: ClassVar[str] = "examples"

    model: UnifiedIOConfig
    mixture: Mixture
    dev: Mixture | None = None
    """Tasks that are evaluated, under the names of the mixture's; None: none."""
    rows: PositiveInt = 64
    text_length: PositiveInt = 64
    """Tokens of an input text, the end included; longer ones are cut."""
    target_length: PositiveInt = 32
    """Tokens of a target text, the end included; longer ones are cut."""
    patches: PositiveInt | None = None
    """Patches that are drawn of an input picture: 128 in the paper's pre-training, 256 after it;
    None: all are read."""
    bucket_by_modality: bool = False
    """Whether a batch's tasks all have the same modalities: without input pictures it has no
    patches, with texts as answers no codes. Each kind of batch has its tasks' share of the steps.
    A step's loss is the mean over its own tokens."""
    image_weight: NonNegativeFloat = 1.0
    """Weight of a code in the loss; that of a text token is 1."""
    z_loss: NonNegativeFloat = 0.0
    """Weight of the squared logarithm of the softmax's denominator (T5X: 1e-4)."""
    tokenizer: str | None = None
    """Folder of T5's SentencePiece; None: that of `weights`, else one trained on the texts."""
    image_tokenizer_weights: str | None = None
    """A VQGAN: a run, a published file or folder; `previous`: that of the run before this one;
    None: a random one, as for rehearsals."""
    weights: str | None = None
    """Weights of the network to start from; None: none."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""
    dev_examples: PositiveInt = 64
    """Examples of each task that are evaluated, evenly spaced among its own."""
    sampling: Sampling = Sampling(top_p=0.9)
    """How codes of pictures are drawn in evaluation."""

    def __post_init__(self):
        super().__post_init__()
        c, vqgan = self.model, self.model.image_tokenizer
        if vqgan is None:
            raise ConfigError("the model has no image_tokenizer: give it a VQGANConfig")
        for entry in () if self.dev is None else self.dev.entries:
            if not getattr(entry.task, "BEST", ""):
                raise ConfigError(f"the class of dev task {entry.name} states no metric as BEST")
        if c.image_rows != c.image_columns:
            raise ConfigError(f"images of {c.image_rows} x {c.image_columns}: give equal sides")
        for name, value, longest in (
            ("text_length", self.text_length, c.encoder_text_length),
            ("target_length", self.target_length, c.decoder_text_length),
            ("patches", self.patches or 1, c.encoder_image_length),
            ("the image tokenizer's grid", vqgan.grid**2, c.decoder_image_length),
        ):
            if value > longest:
                raise ConfigError(f"{name} is {value}; the model has {longest} positions for it")

    @property
    def codes(self) -> int:
        """C: codes of a target picture."""
        return self.model.image_tokenizer.grid**2

    def module(self, execution: Execution) -> UnifiedIO:
        """The network with its image tokenizer."""
        return UnifiedIO(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """One shape, or one for each kind of batch, the largest first; see `TextImageRows`."""
        c, side = self.model, self.model.image_tokenizer.resolution
        grid = (c.image_rows // c.patch_size) ** 2
        patches = min(self.patches or c.encoder_image_length, grid)
        shapes = {
            "input_ids": ((self.text_length,), jnp.int32),
            "patches": ((patches, c.numbers_per_patch), jnp.uint8),
            "patch_positions": ((patches,), jnp.int32),
            "patch_mask": ((patches,), jnp.int8),
            "target_ids": ((self.target_length,), jnp.int32),
            "target_images": ((side, side, 3), jnp.uint8),
            "target_mask": ((self.codes,), jnp.int8),
            "task": ((), jnp.int32),
            "seen": ((len(self.mixture.names),), jnp.float32),
            "epochs": ((len(self.mixture.names),), jnp.float32),
        }
        specs = {
            name: jax.ShapeDtypeStruct((self.rows, *shape), dtype)
            for name, (shape, dtype) in shapes.items()
        }
        if not self.bucket_by_modality:
            return (specs,)
        tasks = [entry.task for entry in self.mixture.entries]
        unused = [unused_arrays(tasks[first]) for first, *_ in modality_buckets(tasks)]
        return tuple({n: s for n, s in specs.items() if n not in names} for names in unused)

    def batch_shares(self) -> list[float]:
        """By the weights of tasks and groups, as if all tasks had as many examples."""
        if not self.bucket_by_modality:
            return [1.0]
        tasks = [entry.task for entry in self.mixture.entries]
        shares = self.mixture.shares(dict.fromkeys(self.mixture.names, 1))[0][1]
        return [float(shares[bucket].sum()) for bucket in modality_buckets(tasks)]

    def init(self, model: UnifiedIO, key: jax.Array) -> Variables:
        """Fresh variables."""
        ids = jnp.zeros((batch_multiple(), 2), jnp.int32)
        return model.init(key, ids, target_ids=ids)

    def pretrained(self, model: UnifiedIO) -> Variables:
        """The image tokenizer, and the network where `weights` are given."""
        values: Variables = {}
        if self.weights is not None:
            loaded = load_pretrained(self.weights, model.execution)
            values |= all_variables(loaded, model, self.weights)
        if (name := self.image_tokenizer_weights) is not None:
            vqgan = VQGAN(self.model.image_tokenizer, model.execution)
            loaded = all_variables(load_pretrained(name, model.execution), vqgan, name)
            values["params"] = {**values.get("params", {}), IMAGE_TOKENIZER: loaded["params"]}
        return values

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Normalises the patches; target pictures are in -1..1.

        `task_scale` float32 [B, tasks] is the weight of the batch over that of a task: with it sums
        over any rows add up to the task's mean loss. NaN where the batch has none of the task.
        """
        row_weights = (batch["target_ids"] > 0).astype(jnp.float32).sum(1)  # [B]
        prepared = dict(batch)
        if "target_mask" in batch:
            code_weights = batch["target_mask"].astype(jnp.float32).sum(1)
            row_weights = row_weights + self.image_weight * code_weights
            prepared["target_images"] = batch["target_images"].astype(jnp.float32) / 127.5 - 1
        if "patches" in batch:
            prepared["patches"] = normalised_patches(batch["patches"])
        member = jax.nn.one_hot(batch["task"], len(self.mixture.names))  # [B, tasks]
        task_weights = (member * row_weights[:, None]).sum(0)
        scale = jnp.where(task_weights > 0, row_weights.sum() / task_weights, jnp.nan)
        return prepared | {"task_scale": jnp.broadcast_to(scale, member.shape)}

    def loss(
        self, model: UnifiedIO, variables: Variables, batch, *, train: bool = False, rngs=None
    ):
        """Cross-entropy of text tokens and codes; per task its loss, examples and epochs.

        The loss of a task without an example in the batch is NaN, and that of images in a batch
        without codes.
        """
        codes = self._codes(model, variables, batch)
        out = self._apply(model, variables, batch, codes, train=train, rngs=rngs)
        text_mask = (batch["target_ids"] > 0).astype(jnp.float32)  # [B, T]
        text_loss = self._token_loss(out.text_logits, batch["target_ids"]) * text_mask
        row_loss, weight, mean_code_loss = text_loss.sum(1), text_mask.sum(), jnp.nan
        if codes is not None:
            code_mask = batch["target_mask"].astype(jnp.float32)  # [B, C]
            code_loss = self._token_loss(out.image_logits, codes) * code_mask
            row_loss += self.image_weight * code_loss.sum(1)  # [B]
            weight += self.image_weight * code_mask.sum()
            mean_code_loss = code_loss.sum() / jnp.maximum(code_mask.sum(), 1)
        # Sums that the step divides by `weight`; a ratio of its own is multiplied by it first.
        metrics = {
            "text_loss": weight * text_loss.sum() / jnp.maximum(text_mask.sum(), 1),
            "image_loss": weight * mean_code_loss,
        }
        for number, name in enumerate(self.mixture.names):
            task_loss = jnp.where(batch["task"] == number, row_loss, 0.0)
            metrics[f"loss_{name}"] = (task_loss * batch["task_scale"][:, number]).sum()
            metrics[f"examples_{name}"] = weight * batch["seen"][:, number].mean()
            metrics[f"epochs_{name}"] = weight * batch["epochs"][:, number].mean()
        return Loss(row_loss.sum(), weight, metrics, {})

    def _codes(self, model: UnifiedIO, variables: Variables, batch) -> jax.Array | None:
        """Codes [B, C] of the target pictures; None for a batch without."""
        if "target_images" not in batch:
            return None
        images, params = batch["target_images"], {"params": variables["params"]}
        return jax.lax.stop_gradient(model.apply(params, images, method="encode_image"))

    def _apply(self, model: UnifiedIO, variables: Variables, batch, codes, **kwargs):
        """Logits; decoder inputs are the targets, shifted behind the start of text and image."""
        v, targets = self.model.vocab_size, batch["target_ids"]
        target_ids = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))  # the start of a text is 0
        if codes is not None:
            codes = jnp.pad(codes[:, :-1] + v, ((0, 0), (1, 0)), constant_values=v - 1)
        return model.apply(
            {"params": variables["params"]},
            input_ids=batch["input_ids"],
            input_mask=batch["input_ids"] > 0,
            images=batch.get("patches"),
            image_mask=batch.get("patch_mask"),
            image_positions=batch.get("patch_positions"),
            target_ids=target_ids,
            target_mask=targets > 0,
            target_codes=codes,
            **kwargs,
        )

    def _token_loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        loss = negative_log_likelihood(logits, labels)
        if self.z_loss:
            loss = loss + self.z_loss * jnp.square(jax.nn.logsumexp(logits, axis=-1))
        return loss

    def shared_sizes(self) -> set[int]:
        """Norms [L] and biases [H, L, L] of the positions that all rows have, in both stacks."""
        c, specs = self.model, self.batch_shapes()[0]
        text, target = self.text_length, self.target_length
        patches = specs["patches"].shape[1] if "patches" in specs else 0
        codes = self.codes if "target_images" in specs else 0
        lengths = {text, text + patches, target, target + codes}
        return lengths | {c.heads * length**2 for length in lengths}

    def example(self, seed: int) -> Batch:
        """Random tokens and pixels, everything valid."""
        rng, batch = np.random.default_rng(seed), {}
        for name, spec in self.batch_shapes()[0].items():
            high = {"patches": 256, "target_images": 256, "task": len(self.mixture.names)}
            low = 1 if name.endswith(("ids", "mask")) else 0
            top = self.model.vocab_size - 1 if name.endswith("ids") else high.get(name, 2)
            batch[name] = rng.integers(low, top, spec.shape).astype(spec.dtype)
        if "patches" in batch:
            positions = np.arange(batch["patches"].shape[1], dtype=np.int32)
            batch["patch_positions"] = np.tile(positions, (self.rows, 1))
        return batch

    def probe(self, model: UnifiedIO, variables: Variables, batch) -> dict[str, jax.Array]:
        """Logits of text and codes."""
        batch = self.prepare(batch)
        codes = self._codes(model, variables, batch)
        out = self._apply(model, variables, batch, codes)
        logits = {"text_logits": out.text_logits, "image_logits": out.image_logits}
        return {name: values for name, values in logits.items() if values.shape[1]}

    def units(self, batch: Batch) -> int:
        """Examples."""
        return len(batch["task"])

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> TextImageData:
        """Opens every task's data and the tokenizer, which a new run may train.

        Raises:
            DataError: a task's data are missing and the mixture is not `without_missing`, or every
                task's are; all such tasks are listed.
        """
        mixture = open_mixture(self.mixture)
        size = self.model.vocab_size
        tokenizer = run_tokenizer(
            folder, host, size, lambda: self._make_tokenizer(mixture), spare_rows=True
        )
        store = self.rows_of(mixture, tokenizer, by_modality=self.bucket_by_modality)
        plan = TextImagePlan(mixture, store, self.rows, self._buckets(mixture))
        return TextImageData(store, plan, Processor(tokenizer), self.workers, mixture=mixture)

    def run_table(self, data: TextImageData, steps: int, seed: int) -> str:
        """The share, the examples drawn and the epochs of each task; tasks that are left out."""
        return data.mixture.table(self.rows, steps, seed, self._buckets(data.mixture))

    def _buckets(self, mixture: OpenMixture) -> list[list[int]]:
        """Numbers of the tasks with data that share batches; empty: all do."""
        if not self.bucket_by_modality:
            return []
        return modality_buckets(examples.task for examples in mixture.examples.values())

    def describe_examples(self, name: str) -> str:
        """Prompt, pictures and target of a few examples of the task, evenly spaced.

        Raises:
            ConfigError: the mixture has no such task.
            DataError: its data are missing.
        """
        samples = self.mixture.entry(name).task.open()
        if not len(samples):
            raise DataError(f"the data of {name} hold no example")
        blocks = []
        for index in evenly_spaced(len(samples), DESCRIBED).tolist():
            word = int(Draws(index).words(1)[0])
            title = f"{name}, example {index:,} of {len(samples):,}"
            blocks.append(f"{title}\n{samples.sample(index, word).describe()}")
        return "\n\n".join(blocks)

    def rows_of(
        self, mixture: OpenMixture, tokenizer: UnifiedIOTokenizer, *, by_modality: bool = False
    ) -> TextImageRows:
        """The rows of a mixture as this model reads them.

        Args:
            mixture: opened.
            tokenizer: T5's, with location tokens.
            by_modality: whether rows lack the arrays that no sample of their task needs.

        Raises:
            ConfigError: another tokenizer.
        """
        if not isinstance(tokenizer, UnifiedIOTokenizer):
            raise ConfigError(
                f"the tokenizer is a {type(tokenizer).__name__}, not T5's SentencePiece with "
                "location tokens: give --task.tokenizer the folder of one"
            )
        lengths = (self.text_length, self.target_length)
        builder = RowBuilder(tokenizer, self.model, lengths, self.patches)
        return TextImageRows(mixture, builder, by_modality)

    def _make_tokenizer(self, mixture: OpenMixture) -> UnifiedIOTokenizer:
        if (name := self.tokenizer or self.weights) is not None:
            path = epath.Path(name).expanduser()  # a published file has its tokenizer beside it
            return load_tokenizer(path.parent if path.is_file() else resolve(name))
        return train_vocabulary(mixture, self.model.vocab_size)

    def processor(self, folder: epath.PathLike) -> Processor:
        """The run's tokenizer."""
        return Processor(load_tokenizer(epath.Path(folder) / TOKENIZER))

    def evaluators(self) -> tuple[TextImageEvaluator, ...]:
        """Every task of `dev`, where there is one."""
        return () if self.dev is None else (TextImageEvaluator(self, examples=self.dev_examples),)

    def rehearsal(self) -> TextImage:
        """Some thousand parameters, three tasks on emoji scenes."""
        return replace(
            self,
            model=rehearsal_model(self.model.image_tokenizer),
            mixture=rehearsal_mixture(),
            dev=None,
            rows=16,
            text_length=TEXT_LENGTH,
            target_length=TARGET_LENGTH,
            patches=None if self.patches is None else 3,
            tokenizer=None,
            image_tokenizer_weights=None,
            weights=None,
            workers=0,
        )


@dataclass
class TextImageData(PlannedData):
    """The rows of all tasks, their plan, the tokenizer, and the opened mixture."""

    mixture: OpenMixture = field(kw_only=True)

    def describe(self) -> str:
        """The number of tasks and of their examples."""
        sizes = self.mixture.sizes
        return f"{len(sizes)} tasks with {sum(sizes.values()):,} examples"
