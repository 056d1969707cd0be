"""Classes of texts and text pairs, or numbers for them ("BERT", section 4.1): GLUE and one's own.

[CLS] text [SEP]                 as CoLA and SST-2 have it
[CLS] text [SEP] second [SEP]    as the other tasks
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
from jaxformers.data.text.glue import Glue
from jaxformers.data.text.help_lines import BundledHelp
from jaxformers.data.text.labelled_rows import SHORTEST, LabelledRows
from jaxformers.data.text.labelled_texts import LabelledTexts, Labels
from jaxformers.data.text.movies import BundledMovies
from jaxformers.data.text.text_files import CsvTexts, JsonlTexts, TsvTexts
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, BertForSequenceClassification
from jaxformers.pretrained import stated_label_names
from jaxformers.tasks.base import Loss, Variables
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.published_comparison import compare_with_published_glue
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.bert_inputs import (
    INPUTS,
    FineTunedBert,
    check_inputs,
    random_inputs,
    small_bert,
)
from jaxformers.tasks.text.classification_evaluation import ClassificationEvaluator
from jaxformers.tasks.text.vocabulary import EncoderTokenizer, run_tokenizer, word_pieces

TextsConfig = Glue | BundledHelp | BundledMovies | TsvTexts | CsvTexts | JsonlTexts


@dataclass(frozen=True)
class SequenceClassification(FineTunedBert):
    """Learns to classify texts or pairs of texts, or to give each a number."""

    unit: ClassVar[str] = "examples"
    verb: ClassVar[str] = "classify"

    model: BertConfig
    """Data that brings its own classes (GLUE, the bundled sentences) decides `labels` and
    `label_names`; the classifier then keeps the order of `label_names` that are the same. Where
    neither states any, those that the configuration of `weights` names are taken."""
    data: TextsConfig
    """Training examples."""
    dev: TextsConfig | None = None
    """Development examples; None: the data's own, where it has such a set."""
    test: TextsConfig | None = None
    """Judged at the end, or predicted where the labels are not public; None: the data's own."""
    length: PositiveInt = 128
    """Tokens of a row, special ones included; the longer text of a longer pair is cut."""
    rows: PositiveInt = 32
    """Examples in a batch."""
    metrics: tuple[str, ...] = ()
    """Of accuracy, f1, matthews, pearson, spearman; empty: the GLUE task's, else accuracy, or
    both correlations for numbers."""
    predict: bool = True
    """Whether test sets without labels are predicted at the end, for a submission."""
    weights: str | None = None
    """Pre-trained BERT to start from: a published folder, a run, or a hub's name; None: none."""
    vocabulary: str | None = None
    """Folder of the WordPiece vocabulary; None: that of `weights`, or one trained on the data."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""

    def __post_init__(self):
        super().__post_init__()
        if not SHORTEST <= self.length <= self.model.max_length:
            raise ConfigError(
                f"length is {self.length}; it lies between {SHORTEST} and the model's "
                f"{self.model.max_length} positions: set --task.length"
            )
        if self.model.variant == "bert" and not self.model.pooler:
            raise ConfigError("the classifier reads the pooled [CLS]: set --task.model.pooler")
        if self.model.problem_type == "multi_label_classification":
            raise ConfigError("an example has one label here: leave out --task.model.problem-type")
        self.evaluators()  # checks the metrics' names

    @property
    def line(self) -> str:
        """A text of the data's kind for the run's verb."""
        return self.data.line

    @property
    def labels(self) -> Labels:
        """The classes, in the classifier's order."""
        return self.data.classes(Labels(self.model.labels, self.model.label_names))

    @property
    def best(self) -> str:
        """The development metric that a choice of hyper-parameters maximises."""
        return self.evaluators()[0].selection_metric()

    # ------------------------------------------------------------------ model and loss

    def resolved(self) -> SequenceClassification:
        """The task with the classes that the weights' configuration names (`id2label`).

        They are taken where neither the data nor `model` states any, unless the data's labels can
        be read without them and are of another number.
        """
        unstated = not self.model.label_names and self.model.labels == type(self.model)().labels
        if self.weights is None or self.data.own is not None or not unstated:
            return self
        names = stated_label_names(self.weights)
        if not names or (len(names) != self.model.labels and self._labels_are_read()):
            return self
        return replace(self, model=replace(self.model, labels=len(names), label_names=names))

    def _labels_are_read(self) -> bool:
        """Whether the data's labels are among those of the configuration as it is."""
        try:
            self.data.open(self.labels)
        except DataError:
            return False
        return True

    def module(self, execution: Execution) -> BertForSequenceClassification:
        """BERT under a classifier of the data's classes."""
        labels = self.labels
        config = replace(self.model, labels=labels.count, label_names=labels.names)
        return BertForSequenceClassification(config, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape of a batch."""
        kind = jnp.float32 if self.labels.count == 1 else jnp.int32
        wide = jax.ShapeDtypeStruct((self.rows, self.length), jnp.int32)
        labels = jax.ShapeDtypeStruct((self.rows,), kind)
        return (dict.fromkeys(INPUTS, wide) | {"labels": labels},)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """Cross-entropy and `accuracy`; for numbers the squared error."""
        inputs = (batch[name] for name in INPUTS)
        logits = model.apply(variables, *inputs, train=train, rngs=rngs)
        labels, weight = batch["labels"], jnp.asarray(logits.shape[0], jnp.float32)
        if self.labels.count == 1:
            return Loss(jnp.square(logits[:, 0] - labels).sum(), weight, {}, {})
        right = (logits.argmax(-1) == labels).astype(jnp.float32).sum()
        nll = negative_log_likelihood(logits, labels)
        return Loss(nll.sum(), weight, {"accuracy": right}, {})

    def example(self, seed: int) -> Batch:
        """Random pairs and labels, padding at the end of most rows."""
        rng, count = np.random.default_rng(seed), self.labels.count
        inputs = random_inputs(rng, self.rows, self.length, self.model)
        numbers = rng.standard_normal(self.rows).astype(np.float32)
        classes = rng.integers(0, count, self.rows).astype(np.int32)
        return inputs | {"labels": numbers if count == 1 else classes}

    def units(self, batch: Batch) -> int:
        """The number of examples."""
        return len(batch["labels"])

    # ------------------------------------------------------------------ data

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> ClassificationData:
        """Opens the examples, takes or trains the vocabulary, and cuts everything into pieces.

        Development and test sets are read here too, for their mistakes to show before training.
        """
        texts = self.data.open(self.labels)
        if texts.labels is None:
            raise DataError(f"{texts.source} has no labels to train on")
        self.evaluators()[0].open_sets(final=True)
        size = self.model.vocab_size
        tokenizer = run_tokenizer(
            folder,
            host,
            size,
            lambda: self._new_tokenizer(texts),
            spare_rows=self.weights is not None,
        )
        check_inputs(self.model, tokenizer, texts.pairs is not None)
        store = LabelledRows.build(texts, tokenizer, self.length)
        plan = RowPlan(store, self.rows)
        return ClassificationData(store, plan, Processor(tokenizer), self.workers, texts.skipped)

    def _new_tokenizer(self, texts: LabelledTexts) -> EncoderTokenizer:
        sentences = [*texts.texts, *(texts.pairs or ())]
        return word_pieces(self.vocabulary, self.weights, sentences, self.model.vocab_size)

    # ------------------------------------------------------------------ evaluation

    def evaluators(self) -> tuple[ClassificationEvaluator]:
        """GLUE's metrics of the development sets, and of the test sets or their predictions."""
        return (
            ClassificationEvaluator(
                dev=self.dev or self.data.other("dev"),
                test=self.test or self.data.other("test"),
                test_required=self.test is not None,
                labels=self.labels,
                length=self.length,
                rows=self.rows,
                metrics=self.metrics,
                predict=self.predict,
            ),
        )

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """GLUE's table of the paper, and what is known of the development sets."""
        (evaluator,) = self.evaluators()
        return compare_with_published_glue(self.data, evaluator.dev, evaluator.test, metrics)

    # ------------------------------------------------------------------ rehearsal

    def rehearsal(self) -> SequenceClassification:
        """A few thousand parameters and some dozens of bundled sentences."""
        model = small_bert(self.model, vocab_size=201, max_length=24)
        kind = "rating" if self.labels.count == 1 else "sign"
        changes = dict(data=BundledMovies(kind=kind, limit=96), dev=None, test=None, metrics=())
        small = dict(length=24, rows=8, weights=None, vocabulary=None, workers=0)
        return replace(self, model=model, **changes, **small)


@dataclass
class ClassificationData(PlannedData):
    """Training examples as ids, their plan, and the tokenizer."""

    skipped: int = 0
    """Damaged lines that were left out."""

    def describe(self) -> str:
        """Examples, steps an epoch, what was cut or left out."""
        cut = f", {self.store.cut:,} cut to {self.store.length} tokens" * bool(self.store.cut)
        left = f", {self.skipped:,} damaged lines left out" * bool(self.skipped)
        return (
            f"{len(self.store):,} examples{cut}{left}; {self.steps_per_epoch:,.1f} steps an epoch"
        )
