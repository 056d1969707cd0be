"""BERT's pre-training examples, drawn on the fly: every epoch pairs and masks anew."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np

from jaxformers.data.pipeline.collate import Batch, Shapes
from jaxformers.data.pipeline.epochs import EpochStream
from jaxformers.data.pipeline.stateless_random import RowDraws
from jaxformers.data.pretraining.document_store import TokenizedDocuments
from jaxformers.data.pretraining.masking import mask, prediction_counts
from jaxformers.data.pretraining.next_sentence import (
    COIN_WORDS,
    SentencePairs,
    lay_pairs,
    sentence_pairs,
)
from jaxformers.data.pretraining.sentence_chunks import PackedChunks, lay_chunks, packed_chunks
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, Fraction, PositiveFraction, PositiveInt, Range

SAMPLED = 1_000_000  # sentences from which the length of an epoch is estimated
SHORTEST = 5  # [CLS] A [SEP] B [SEP]
# What draws are for, so that no two uses share theirs.
PLAN, ORDER, MASKS = 1, 2, 3


@dataclass(frozen=True)
class Phase(CheckedFields):
    """Steps of one shape: BERT's first nine tenths are short rows, the rest long ones."""

    length: Annotated[int, Range(ge=SHORTEST)] = 128
    """Places of a row, special tokens included."""
    rows: PositiveInt = 256
    """Rows of a batch, over all hosts."""
    max_predictions: PositiveInt = 20
    """Most places of a row that are predicted; about 0.15 of the length."""
    steps: PositiveInt | None = None
    """Steps of this phase; None, in the last phase only, means all that are left."""


@dataclass(frozen=True)
class Pretraining(CheckedFields):
    """How documents become examples: the choices of Google's create_pretraining_data.py.

    Its copies of the data on disk ("dupe factor") are epochs here.
    """

    phases: tuple[Phase, ...] = (Phase(steps=900_000), Phase(512, 256, 77))
    """One after the other; the last one goes on for as long as steps are asked for."""
    short_sequences: Fraction = 0.1
    """Share of the documents that are cut into shorter rows, anew in each epoch."""
    masked_share: PositiveFraction = 0.15
    """Share of a row's tokens that are predicted."""
    whole_words: bool = False
    """Choose whole words to predict, not single pieces."""
    next_sentence: bool = True
    """Rows are pairs for next-sentence prediction; else packed chunks with `segments`."""

    def shapes(self) -> tuple[Shapes, ...]:
        """Name to (shape, type) of the arrays of a batch, for each phase."""
        return tuple(_shapes(self, phase) for phase in self.phases)

    def plan(self, store: TokenizedDocuments) -> PretrainingPlan:
        """The plan for the documents of `store`; raises ConfigError where a field is unusable."""
        return PretrainingPlan(self, store)


class PretrainingPlan:
    """The examples of every step, a pure function of (seed, step); steps count over all phases.

    A phase is an endless stream of rows. Making the rows of an epoch takes some seconds for ten
    million sentences, once an epoch, and as often at a late start as epochs of that phase went
    before; they take 17 bytes a row (pairs). Two epochs are kept, by every worker process.

    Attributes:
        shapes: name to (shape, type) of the arrays of a batch, for each phase.
        steps_per_epoch: of the first phase, about, for epochs differ in length.
        fill: share of the first phase's places that hold a token, about.
        left_out: documents left out: none.
        one_sentence: documents of one sentence, whose next sentence is always a random one; 0
            without next-sentence prediction.
        fingerprint: of the configuration.
    """

    def __init__(self, config: Pretraining, store: TokenizedDocuments):
        _check(config)
        self._config = config
        self._ends = list(itertools.accumulate(phase.steps or 0 for phase in config.phases[:-1]))
        self._streams = [
            EpochStream(partial(_epoch, store, config, number), ORDER, number)
            for number in range(len(config.phases))
        ]
        self.shapes = list(config.shapes())
        self.steps_per_epoch, self.fill = _estimate(config, store)
        self.left_out = 0
        single = np.count_nonzero(np.diff(store.documents) == 1)
        self.one_sentence = int(single) if config.next_sentence else 0
        self.fingerprint = str(config)

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the (global) batch of `step`."""
        return self._config.phases[self.phase(step)].rows

    def phase(self, step: int) -> int:
        """The phase of `step`, counted from 0."""
        return bisect.bisect_right(self._ends, step)

    def batch(
        self, store: TokenizedDocuments, seed: int, step: int, rows: slice = slice(None)
    ) -> Batch:
        """Those `rows` of the batch of `step`, for `store`, whose plan this is.

        Returns:
            `input_ids`, `token_type_ids`, `attention_mask` int32 [B, L]; `masked_positions`,
            `masked_ids` int32 and `masked_weights` float32 [B, M], 0 where unused;
            `next_sentence` int32 [B] (1 where text B is random), or `segments` and `positions`
            int32 [B, L].
        """
        number = self.phase(step)
        phase, first = self._config.phases[number], [0, *self._ends][number]
        batch_rows = range(phase.rows)[rows]
        examples = self._streams[number].rows(
            seed, (step - first) * phase.rows + batch_rows.start, len(batch_rows)
        )
        choices = phase.length + phase.max_predictions
        draws = RowDraws((MASKS, seed, step), batch_rows, choices + COIN_WORDS)
        if self._config.next_sentence:
            coins = slice(choices, None)
            batch, text = lay_pairs(store, examples, phase.length, draws, coins)
        else:
            batch, text = lay_chunks(store, examples, phase.length)
        lengths = batch["attention_mask"].sum(axis=1)
        counts = prediction_counts(lengths, self._config.masked_share, phase.max_predictions)
        words = draws.words[:, :choices]
        ids = batch["input_ids"]
        return batch | mask(store, ids, text, counts, words, self._config.whole_words)


def _epoch(
    store: TokenizedDocuments, config: Pretraining, number: int, seed: int, epoch: int
) -> SentencePairs | PackedChunks:
    """The rows of one epoch of phase `number`."""
    return _rows(config, number, store.sentences, store.documents, PLAN, seed, number, epoch)


def _rows(
    config: Pretraining, number: int, sentences: np.ndarray, documents: np.ndarray, *seeds: int
) -> SentencePairs | PackedChunks:
    make = sentence_pairs if config.next_sentence else packed_chunks
    length = config.phases[number].length
    return make(sentences, documents, length, config.short_sequences, *seeds)


def _estimate(config: Pretraining, store: TokenizedDocuments) -> tuple[float, float]:
    """Steps of an epoch and fill of the rows of the first phase, from the first documents."""
    count = max(1, int(np.searchsorted(store.documents, SAMPLED, side="right")) - 1)
    documents = store.documents[: count + 1]
    sentences = store.sentences[: documents[-1] + 1]
    rows = _rows(config, 0, sentences, documents, PLAN, 0, 0, 0)
    phase, share = config.phases[0], sentences[-1] / store.sentences[-1]
    if config.next_sentence:
        sizes = sentences[rows.a_stop] - sentences[rows.a_start]
        sizes = sizes + sentences[rows.b_stop] - sentences[rows.b_start]
        tokens = np.minimum(sizes + 3, phase.length).sum()
    else:
        tokens = (rows.sizes + 2).sum()
    return float(len(rows) / share / phase.rows), float(tokens / (len(rows) * phase.length))


def _shapes(config: Pretraining, phase: Phase) -> Shapes:
    row_shape, predictions = (phase.rows, phase.length), (phase.rows, phase.max_predictions)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    names += [] if config.next_sentence else ["segments", "positions"]
    int32 = np.dtype(np.int32)
    shapes = dict.fromkeys(names, (row_shape, int32))
    if config.next_sentence:
        shapes["next_sentence"] = ((phase.rows,), int32)
    shapes |= dict.fromkeys(("masked_positions", "masked_ids"), (predictions, int32))
    return shapes | {"masked_weights": (predictions, np.dtype(np.float32))}


def _check(config: Pretraining) -> None:
    if not config.phases:
        raise ConfigError("pre-training needs at least one phase")
    for number, phase in enumerate(config.phases):
        _check_phase(phase, is_last=number == len(config.phases) - 1)


def _check_phase(phase: Phase, is_last: bool) -> None:
    if phase.max_predictions > phase.length:
        raise ConfigError(f"{phase}: max_predictions must be at most the length of a row")
    if phase.steps is None and not is_last:
        raise ConfigError(f"{phase}: only the last phase may leave its steps open")
