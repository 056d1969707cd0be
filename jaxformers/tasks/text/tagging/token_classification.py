"""Tags of words, such as named entities ("BERT", section 5.3): CoNLL-2003 and one's own.

[CLS] EU rejects German call to boycott British lamb [SEP]
      B-ORG  O   B-MISC  O  O  O   B-MISC   O

The first piece of a word stands for it; the other pieces have no label. As in the paper there is no
CRF: each tag is predicted by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.pipeline.fixed_length import RowPlan
from jaxformers.data.text.tags.sources import BundledEntities
from jaxformers.data.text.tags.tagged_rows import UNLABELLED, TaggedRows
from jaxformers.data.text.tags.tagged_sentences import TaggedSentences
from jaxformers.errors import ConfigError
from jaxformers.fields import NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, BertForTokenClassification
from jaxformers.tasks.base import Loss, Variables
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.published_comparison import compare_with_published_conll
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.bert_inputs import (
    INPUTS,
    FineTunedBert,
    check_inputs,
    random_inputs,
    small_bert,
)
from jaxformers.tasks.text.tagging.tag_evaluation import TagEvaluator, TagsConfig, read_tags
from jaxformers.tasks.text.vocabulary import EncoderTokenizer, run_tokenizer, word_pieces

SHORTEST = 3  # [CLS] word [SEP]


@dataclass(frozen=True)
class TokenClassification(FineTunedBert):
    """Learns to tag every word of a sentence."""

    unit: ClassVar[str] = "sentences"
    verb: ClassVar[str] = "tag"
    line: ClassVar[str] = "Ada Lovelace was born in London."

    model: BertConfig
    """Without `label_names` the classes are those of the data: "O", then "B-" and "I-" of each
    type, sorted."""
    data: TagsConfig
    """Training sentences."""
    dev: TagsConfig | None = None
    """Development sentences."""
    test: TagsConfig | None = None
    """Further sentences, scored at the end."""
    length: PositiveInt = 128
    """Tokens of a row, special ones included; longer sentences are cut at their end."""
    rows: PositiveInt = 32
    """Sentences in a batch."""
    weights: str | None = None
    """Pre-trained BERT to start from: a published folder, a run, or a hub's name; None: none."""
    vocabulary: str | None = None
    """Folder of the tokenizer; None: that of `weights`, or a cased one trained on the data."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""

    def __post_init__(self):
        super().__post_init__()
        if not SHORTEST <= self.length <= self.model.max_length:
            raise ConfigError(
                f"length is {self.length}; it lies between {SHORTEST} and the model's "
                f"{self.model.max_length} positions: set --task.length"
            )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes in the classifier's order; empty where only the data's files name them."""
        return self.model.label_names or self.data.tag_names

    @property
    def best(self) -> str:
        """F1 of entities on the development set, or accuracy for tags that mark none."""
        return self.evaluators()[0].selection_metric()

    # ------------------------------------------------------------------ model and loss

    def resolved(self) -> TokenClassification:
        """The task with the classes of all its sets, where the configuration names none."""
        if self.label_names:
            return self
        sources = [source for source in (self.data, self.dev, self.test) if source is not None]
        sets = [read_tags(source) for source in sources]
        names = dict.fromkeys(name for sentences in sets for name in sentences.tag_names)
        return replace(self, model=self._with_classes(tuple(names)))

    def _with_classes(self, names: tuple[str, ...]) -> BertConfig:
        return replace(self.model, labels=len(names), label_names=names)

    def module(self, execution: Execution) -> BertForTokenClassification:
        """BERT under a classifier of every token."""
        config = self._with_classes(self.label_names) if self.label_names else self.model
        return BertForTokenClassification(config, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape: `rows` sentences of `length` tokens."""
        wide = jax.ShapeDtypeStruct((self.rows, self.length), jnp.int32)
        return (dict.fromkeys((*INPUTS, "labels"), wide),)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """Mean cross-entropy over labelled tokens, and their `accuracy`."""
        inputs = (batch[name] for name in INPUTS)
        logits = model.apply(variables, *inputs, train=train, rngs=rngs)  # [B, L, N]
        labels = batch["labels"]
        labelled = labels != UNLABELLED
        nll = negative_log_likelihood(logits, jnp.maximum(labels, 0))
        correct = (logits.argmax(-1) == labels) & labelled
        weight = labelled.sum().astype(jnp.float32)
        metrics = {"accuracy": correct.sum().astype(jnp.float32)}
        return Loss(jnp.where(labelled, nll, 0.0).sum(), weight, metrics, {})

    def example(self, seed: int) -> Batch:
        """Random tokens, every second one labelled, padding at the end of most rows."""
        rng = np.random.default_rng(seed)
        inputs = random_inputs(rng, self.rows, self.length, self.model)
        classes = len(self.label_names) or self.model.labels
        labels = rng.integers(0, classes, (self.rows, self.length), np.int32)
        labelled = (inputs["attention_mask"] > 0) & (np.arange(self.length)[None] % 2 == 1)
        return inputs | {"labels": np.where(labelled, labels, UNLABELLED).astype(np.int32)}

    # ------------------------------------------------------------------ data

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> TagData:
        """Opens the sentences, loads or trains the tokenizer, and makes rows of all sets.

        Development and test sets too, for their faults to show before training.
        """
        sentences = read_tags(self.data)
        tokenizer = run_tokenizer(
            folder,
            host,
            self.model.vocab_size,
            lambda: self._new_tokenizer(sentences),
            spare_rows=self.weights is not None,
        )
        check_inputs(self.model, tokenizer, pairs=False)
        self.evaluators()[0].open_sets(tokenizer, final=True)
        store = TaggedRows.build(sentences, self.label_names, tokenizer, self.length)
        return TagData(store, RowPlan(store, self.rows), Processor(tokenizer), self.workers)

    def _new_tokenizer(self, sentences: TaggedSentences) -> EncoderTokenizer:
        texts = [" ".join(words) for words in sentences.words]
        size = self.model.vocab_size
        return word_pieces(self.vocabulary, self.weights, texts, size, lowercase=False)

    # ------------------------------------------------------------------ evaluation

    def evaluators(self) -> tuple[TagEvaluator]:
        """seqeval's scores of the development sentences, and when final of the test sentences."""
        return (
            TagEvaluator(
                dev=self.dev,
                test=self.test,
                names=self.label_names,
                length=self.length,
                rows=self.rows,
            ),
        )

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """CoNLL-2003's table of the paper; none for other sets."""
        return compare_with_published_conll(self.data, self.dev, self.test, metrics)

    # ------------------------------------------------------------------ rehearsal

    def rehearsal(self) -> TokenClassification:
        """The task with a few thousand parameters on bundled sentences."""
        model = small_bert(self.model, vocab_size=201, max_length=32)
        return replace(
            self,
            model=replace(model, labels=2, label_names=()),
            data=BundledEntities("train", 96),
            dev=BundledEntities("held_out", 16),
            test=None,
            length=32,
            rows=8,
            weights=None,
            vocabulary=None,
            workers=0,
        )


@dataclass
class TagData(PlannedData):
    """Training sentences as rows, their plan, and the tokenizer."""

    def describe(self) -> str:
        """Sentences, how many of them were cut, classes, and steps an epoch."""
        store: TaggedRows = self.store
        cut = f", {store.cut:,} cut to {store.length} tokens" * bool(store.cut)
        return f"{len(store):,} sentences{cut}; {self.steps_per_epoch:,.1f} steps an epoch"
