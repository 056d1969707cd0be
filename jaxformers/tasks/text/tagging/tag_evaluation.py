"""Evaluates a classifier of tokens on tagged sentences: seqeval's F1, accuracy and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxformers.data.files.file_state import FileState, source_state
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.data.text.tags.schemes import OUTSIDE, marks_entities
from jaxformers.data.text.tags.sources import (
    BundledEntities,
    ConllFile,
    JsonlTags,
    TfdsTags,
    TsvTags,
)
from jaxformers.data.text.tags.tagged_rows import TaggedRows
from jaxformers.data.text.tags.tagged_sentences import TaggedSentences
from jaxformers.evaluation import (
    entity_scores,
    entity_spans,
    mean_cross_entropy,
    tag_accuracy,
)
from jaxformers.fields import PositiveInt
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import check_outputs, round_up_rows
from jaxformers.tasks.evaluator import Evaluation, OutputEvaluator
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text.bert_inputs import INPUTS

TagsConfig = ConllFile | TsvTags | JsonlTags | TfdsTags | BundledEntities
NO_TAG = "no tag"  # predicted for a word without a piece where no class means "outside"


class EvaluationSet(NamedTuple):
    """Sentences to score, and their rows."""

    name: str
    """dev or test."""
    sentences: TaggedSentences
    rows: TaggedRows


@dataclass(frozen=True, kw_only=True)
class TagEvaluator(OutputEvaluator):
    """`dev_precision`, `dev_recall` and `dev_f1` of entities in percent, as seqeval's (micro).

    With them `dev_accuracy` of words and `dev_loss`; for classes that mark no entities, such as
    parts of speech, these two alone. Of the test set `test_f1` and so on. A word that was cut off
    with the end of its row counts as predicted "O". `Evaluation.outputs` has a line of word, tag
    and predicted tag each, a blank one behind a sentence, as conlleval reads it.
    """

    name: str = "tags"
    dev: TagsConfig | None
    test: TagsConfig | None = None
    names: tuple[str, ...]
    """Classes in the classifier's order."""
    length: PositiveInt = 128
    """Tokens of a row."""
    rows: PositiveInt = 32
    """Rows of a batch."""

    def selection_metric(self) -> str:
        """The development metric to choose by; empty without a development set."""
        if self.dev is None:
            return ""
        return "dev_f1" if marks_entities(self.names) else "dev_accuracy"

    def open_sets(self, tokenizer: Any, *, final: bool) -> list[EvaluationSet]:
        """The development set, and when `final` the test set.

        Raises:
            DataError: a set that cannot be read, or with tags that are not among `names`.
        """
        sources = [("dev", self.dev), ("test", self.test if final else None)]
        return [
            EvaluationSet(name, read_tags(source), self._rows(source, tokenizer))
            for name, source in sources
            if source is not None
        ]

    def _rows(self, source: TagsConfig, tokenizer: Any) -> TaggedRows:
        return _build_rows(source, source_state(source), self.names, tokenizer, self.length)

    def outputs(self, model, variables, processor: Processor, *, final: bool) -> list[np.ndarray]:
        """Logits `[W, N]` at the first piece of each of a set's W words; 0 where it has none."""
        return [
            _word_logits(model, variables, entry.rows, self.rows, len(self.names))
            for entry in self.open_sets(processor.tokenizer, final=final)
        ]

    def score(
        self, outputs: Sequence[np.ndarray], processor: Processor, *, final: bool
    ) -> Evaluation:
        """Metrics of all sets; samples and predicted tags of the last.

        Raises:
            DataError: the outputs' shapes are not those of the sets.
        """
        sets, evaluation = self.open_sets(processor.tokenizer, final=final), Evaluation({})
        shapes = [(sum(map(len, entry.rows.words)), len(self.names)) for entry in sets]
        check_outputs(outputs, shapes)
        for entry, logits in zip(sets, outputs, strict=True):
            predictions = self._predicted_tags(entry.rows, logits)
            self._add_scores(evaluation, entry, logits, predictions)
            evaluation.samples = [
                (" ".join(words), _entities_text(words, tags), _entities_text(words, predicted))
                for words, tags, predicted in zip(
                    entry.sentences.words, entry.sentences.tags, predictions, strict=True
                )
            ]
            evaluation.outputs = _conll_lines(entry.sentences, predictions)
        return evaluation

    def ensemble_requirements(self, processor: Processor) -> dict[str, Any]:
        """The classes, the sets, and what cuts words off."""
        return {
            "classes": self.names,
            "development sentences": self.dev,
            "test sentences": self.test,
            "vocabulary": processor.tokenizer.fingerprint,
            "length": self.length,
        }

    def _predicted_tags(self, rows: TaggedRows, logits: np.ndarray) -> list[list[str]]:
        """The likeliest tag of each word of each sentence."""
        missing = OUTSIDE if OUTSIDE in self.names else NO_TAG
        positions = np.concatenate(rows.words)
        tags = [
            self.names[index] if position >= 0 else missing
            for index, position in zip(logits.argmax(-1).tolist(), positions, strict=True)
        ]
        ends = np.cumsum([len(words) for words in rows.words]).tolist()
        return [tags[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _add_scores(
        self,
        evaluation: Evaluation,
        entry: EvaluationSet,
        logits: np.ndarray,
        predictions: list[list[str]],
    ) -> None:
        """Adds the metrics and notes of a set."""
        name, tags, metrics = entry.name, entry.sentences.tags, evaluation.metrics
        if marks_entities(self.names):
            scores = entity_scores(tags, predictions)
            for metric in ("precision", "recall", "f1"):
                metrics[f"{name}_{metric}"] = 100 * getattr(scores[""], metric)
            evaluation.lists[f"Entities of the {name} set by type, in percent"] = [
                f"{entity_type}: precision {100 * row.precision:.2f}, recall "
                f"{100 * row.recall:.2f}, F1 {100 * row.f1:.2f} of {row.count:,}"
                for entity_type, row in scores.items()
                if entity_type
            ]
        metrics[f"{name}_accuracy"] = 100 * tag_accuracy(tags, predictions)
        real = np.concatenate(entry.rows.words) >= 0
        classes = {tag: index for index, tag in enumerate(self.names)}
        labels = np.array([classes[tag] for sentence in tags for tag in sentence], np.int32)
        metrics[f"{name}_loss"] = mean_cross_entropy(logits[real], labels[real])
        if not real.all():
            evaluation.notes.append(
                f"{name}: {(~real).sum():,} words have no token in their row, most of them cut "
                f"off at {self.length} tokens; they count as predicted outside of all entities"
            )
        if not np.isfinite(logits).all():
            evaluation.notes.append(f"{name}: outputs are not finite; the model diverged")


def read_tags(source: TagsConfig) -> TaggedSentences:
    """The sentences of a source, read once as long as its file stays as it is."""
    return _read_tags(source, source_state(source))


@lru_cache(maxsize=4)
def _read_tags(source: TagsConfig, state: FileState) -> TaggedSentences:
    return source.open()


@lru_cache(maxsize=4)
def _build_rows(
    source: TagsConfig, state: FileState, names: tuple[str, ...], tokenizer: Any, length: int
) -> TaggedRows:
    return TaggedRows.build(_read_tags(source, state), names, tokenizer, length)


def _word_logits(
    model: Any, variables: Any, rows: TaggedRows, batch_rows: int, classes: int
) -> np.ndarray:
    """Float32 logits `[W, N]` at the first piece of each word of all rows."""
    run, logits, start = logits_program(model), [], 0
    for batch, count in every_row(rows, round_up_rows(batch_rows)):
        token_logits = np.asarray(run(variables, *(batch[name] for name in INPUTS)))  # [B, L, N]
        for row, positions in enumerate(rows.words[start : start + count]):
            values = token_logits[row, np.maximum(positions, 0)]
            logits.append(np.where(positions[:, None] >= 0, values, 0))
        start += count
    return np.concatenate(logits)


@lru_cache(maxsize=4)
def logits_program(model: Any) -> Any:
    """Compiled logits `[B, L, N]` of (variables, input_ids, token_type_ids, attention_mask)."""

    @jax.jit
    def run(variables, *inputs):
        return constrain(model.apply(variables, *inputs), None, None, None)

    return run


def _entities_text(words: Sequence[str], tags: Sequence[str]) -> str:
    """The entities of a sentence in one line; the tags where these mark none."""
    if not marks_entities({OUTSIDE, *tags}):
        return " ".join(tags)
    spans = entity_spans(tags)
    texts = [f"{' '.join(words[span.start : span.end])} ({span.type})" for span in spans]
    return "; ".join(texts) or "no entity"


def _conll_lines(sentences: TaggedSentences, predictions: list[list[str]]) -> list[str]:
    lines = []
    for columns in zip(sentences.words, sentences.tags, predictions, strict=True):
        lines += [" ".join(row) for row in zip(*columns, strict=True)]
        lines.append("")
    return lines
