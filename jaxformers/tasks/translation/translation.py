"""Translation: sentence pairs, label-smoothed cross-entropy, BLEU ("Attention Is All You Need")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from etils import epath

from jaxformers.data import (
    Batch,
    Bucketing,
    BundledPairs,
    Packing,
    Pairs,
    TokenizedPairs,
    sentences,
)
from jaxformers.data.pipeline.collate import batch_shapes
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt, Rate
from jaxformers.layers import Execution
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.losses import label_smoothed_loss, negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.published_comparison import compare_with_published_translations
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.vocabulary import run_tokenizer
from jaxformers.tasks.translation import translation_probe
from jaxformers.tasks.translation.translation_evaluation import (
    PairsConfig,
    Search,
    TranslationEvaluator,
    target_logits,
)
from jaxformers.text import SentencePiece, Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Vocabulary(CheckedFields):
    """The SentencePiece vocabulary that source and target share; its size is the model's."""

    kind: Literal["bpe", "unigram"] = "bpe"
    path: str | None = None
    """A folder with a trained one; None: train it on the training pairs."""
    pairs: PositiveInt = 2_000_000
    """It is trained on at most so many pairs, spread evenly over the data."""


@dataclass(frozen=True)
class Translation(Task):
    """Learns to translate sentence pairs."""

    unit: ClassVar[str] = "target tokens"
    verb: ClassVar[str] = "translate"
    line: ClassVar[str] = "Open the file."
    lowest_is_best: ClassVar[bool] = True

    model: TransformerConfig
    data: PairsConfig
    """Training pairs."""
    dev: PairsConfig | None = None
    """Development pairs: perplexity while training."""
    test: PairsConfig | None = None
    """Test pairs: BLEU at the end."""
    batching: Packing | Bucketing = Packing()
    vocabulary: Vocabulary = Vocabulary()
    label_smoothing: Rate = 0.1
    search: Search = Search()
    languages: tuple[str, str] = ("en", "de")
    """Source and target, as ISO codes."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""

    @property
    def best(self) -> str:
        """The perplexity on the development pairs, where there are any."""
        return "dev_perplexity" if self.dev is not None else ""

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """The paper's table 2, for English to German or French."""
        return compare_with_published_translations(self.languages, self.test, metrics)

    def __post_init__(self):
        super().__post_init__()
        for _, source, target in self._sizes():
            if max(source, target) > self.model.max_length:
                raise ConfigError(
                    f"batches of {max(source, target)} tokens a row are longer than the model's "
                    f"{self.model.max_length} positions; raise --task.model.max-length"
                )

    def _sizes(self) -> tuple[tuple[int, int, int], ...]:
        b = self.batching
        packed = isinstance(b, Packing)
        return ((b.rows, b.source_length, b.target_length),) if packed else b.shapes

    def module(self, execution: Execution) -> Transformer:
        """The encoder-decoder."""
        return Transformer(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """One for packing, one for each bucket."""
        return tuple(
            {name: jax.ShapeDtypeStruct(*spec) for name, spec in batch_shapes(*size).items()}
            for size in self._sizes()
        )

    def init(self, model: Transformer, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        ones = jnp.ones((batch_multiple(), 1), jnp.int32)
        return model.init(key, ones, ones)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """Label-smoothed cross-entropy over the target tokens, and their unsmoothed one (`nll`)."""
        labels = batch["target_out_ids"]
        logits = target_logits(model, variables, batch, train=train, rngs=rngs)
        weights = (batch["target_segments"] > 0).astype(jnp.float32)
        total, weight = label_smoothed_loss(
            logits, labels, weights, self.label_smoothing, self.model.vocab_size
        )
        if train:  # a second pass over the logits, which only the evaluation pays
            return Loss(total, weight, {}, {})
        nll = (negative_log_likelihood(logits, labels) * weights).sum()
        return Loss(total, weight, {"nll": nll}, {})

    def example(self, seed: int) -> Batch:
        """Random tokens, packed with several pairs a row, some padding at the end."""
        return translation_probe.example(self._sizes()[0], self.model, seed)

    def probe(self, model, variables: Variables, batch) -> dict[str, jax.Array]:
        """Logits of packed and of masked rows, and both stacks on small inputs."""
        return translation_probe.probe(model, variables, batch)

    def units(self, batch: Batch) -> int:
        """The number of target tokens, without padding."""
        return int((batch["target_segments"] > 0).sum())

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> TranslationData:
        """Opens the pairs, trains the vocabulary or takes the run's own, and plans the batches."""
        pairs = self.data.open()
        size = self.model.vocab_size
        tokenizer = run_tokenizer(folder, host, size, lambda: self._new_tokenizer(pairs))
        store = TokenizedPairs.build(pairs, tokenizer)
        return TranslationData(store, self.batching.plan(store), Processor(tokenizer), self.workers)

    def _new_tokenizer(self, pairs: Pairs) -> Tokenizer:
        if self.vocabulary.path is not None:
            return load_tokenizer(self.vocabulary.path)
        texts = sentences(pairs, self.vocabulary.pairs)
        return SentencePiece.train(texts, self.model.vocab_size, self.vocabulary.kind)

    def evaluators(self) -> tuple[TranslationEvaluator]:
        """Perplexity on the development pairs, and when final BLEU on the test pairs."""
        return (
            TranslationEvaluator(
                dev=self.dev,
                test=self.test,
                search=self.search,
                target_language=self.languages[1],
            ),
        )

    def rehearsal(self) -> Translation:
        """Four thousand parameters and a few hundred bundled pairs."""
        model = replace(
            self.model,
            vocab_size=201,
            width=16,
            heads=4,
            feed_forward=32,
            encoder_layers=2,
            decoder_layers=2,
            decoder_heads=None,
            decoder_feed_forward=None,
        )
        pairs = BundledPairs(max_source_words=3, max_target_words=3)
        packed = isinstance(self.batching, Packing)
        return replace(
            self,
            model=model,
            data=pairs,
            dev=None,
            test=replace(pairs, split="held_out", max_source_words=2, max_target_words=1),
            batching=Packing(32, 32, 8) if packed else Bucketing(((8, 16, 16), (8, 48, 48))),
            vocabulary=Vocabulary("unigram", pairs=500),
            search=replace(self.search, rows=8),
            workers=0,
        )


@dataclass
class TranslationData(PlannedData):
    """Training pairs as ids, their plan, and the tokenizer."""

    def describe(self) -> str:
        """Pairs, steps an epoch, how full the rows are, what was left out."""
        plan = self.plan
        left = f", {plan.left_out:,} too long and left out" if plan.left_out else ""
        return (
            f"{len(self.store):,} pairs{left}; {plan.steps_per_epoch:,} steps an epoch, "
            f"batches {plan.fill:.0%} full of target tokens"
        )
