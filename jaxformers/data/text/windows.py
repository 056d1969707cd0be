"""Sliding windows over contexts: [CLS] question [SEP] piece of the context [SEP].

The special tokens are those of the tokenizer's template: RoBERTa has two between the texts. The
arrangement is that of BERT's published `run_squad.py`: windows of one length, each `stride` pieces
behind the one before, and an answer counts in the windows that hold all of it. Where that script
goes from characters to words between blanks and from there to pieces, the pieces' own offsets are
used here: the same where an answer begins and ends with a piece, and closer to the annotation where
the script falls back to whole words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxformers.data.pipeline.fixed_length import Batch
from jaxformers.data.text.labelled_rows import tokenized
from jaxformers.data.text.questions import Question, Questions
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt

CHUNK = 1024  # texts that are tokenized at once
SPECIAL = 3  # [CLS] and two [SEP]; RoBERTa has one more


@dataclass(frozen=True)
class WindowSize(CheckedFields):
    """Length and stride of the windows that contexts are cut into."""

    length: PositiveInt = 384
    """Tokens of a window, the question and three special ones included."""
    stride: PositiveInt = 128
    """Pieces from the start of one window to that of the next."""
    query_length: NonNegativeInt = 64
    """Pieces that a question is cut to."""

    def __post_init__(self):
        super().__post_init__()
        check_room(self, SPECIAL)


def check_room(size: WindowSize, num_special: int) -> None:
    """Raises ConfigError where a question and special tokens leave no room for a context."""
    if size.length <= size.query_length + num_special:
        raise ConfigError(
            f"windows of {size.length} tokens leave no room for the context beside a question "
            f"of {size.query_length} and {num_special} special ones; raise length"
        )


class Pieces(NamedTuple):
    """The pieces of many texts in one row: ids and offsets `[P]`, where each text's begin."""

    ids: np.ndarray
    starts: np.ndarray
    """Of each piece in its text, in characters."""
    ends: np.ndarray
    """Behind each piece."""
    bounds: np.ndarray
    """Text t's pieces are `bounds[t] : bounds[t + 1]`."""

    @property
    def counts(self) -> np.ndarray:
        """Number of pieces of each text."""
        return np.diff(self.bounds)


class ContextWindows:
    """All windows of contexts, each for its question, as flat arrays.

    `first` and `count` `[W]` are the pieces of the context that a window shows, `begin` `[W]` the
    place of the first of them, `question` `[W]` whose window it is.

    Attributes:
        size: of the windows.
        contexts: the distinct contexts.
        context: `[Q]` index of each question's context.
        bounds: question q's windows are `bounds[q] : bounds[q + 1]`; there is at least one.
    """

    def __init__(
        self, questions: Sequence[str], contexts: Sequence[str], tokenizer: Any, size: WindowSize
    ):
        self.size, self._template, self._pad_id = size, tokenizer.template, tokenizer.pad_id
        check_room(size, self._template.pair_size)
        self._set_texts(questions, contexts, tokenizer)
        self._cut()

    def _set_texts(self, questions: Sequence[str], contexts: Sequence[str], tokenizer: Any) -> None:
        """Tokenizes each context once, and the questions."""
        index: dict[str, int] = {}
        self.context = np.array([index.setdefault(text, len(index)) for text in contexts])
        self.contexts = list(index)
        self.pieces = _pieces(self.contexts, tokenizer)
        rows = [row[: self.size.query_length] for row in tokenized(questions, tokenizer)]
        self.query_bounds = np.cumsum([0, *map(len, rows)])
        self.query_ids = np.concatenate([[0], *rows]).astype(np.int32)[1:]

    def _cut(self) -> None:
        """Where every window begins, and how much it shows."""
        queries, total = np.diff(self.query_bounds), self.pieces.counts[self.context]
        before, between, _ = map(len, self._template.pair)
        room = self.size.length - self._template.pair_size - queries
        # Window r of a question shows context pieces [r * step, r * step + room). A stride larger
        # than the room would skip pieces, and the last window is the first that reaches the end:
        # 1 + ceil((total - room) / step) windows.
        step = np.minimum(room, self.size.stride)
        windows = 1 + np.maximum(0, -(-(total - room) // step))
        self.bounds = np.concatenate([[0], np.cumsum(windows)])
        self.question = np.repeat(np.arange(len(windows)), windows)
        rank = np.arange(len(self.question)) - self.bounds[self.question]
        self.first = rank * step[self.question]
        self.count = np.minimum(room[self.question], total[self.question] - self.first)
        # Index of the first piece in the window.
        self.begin = before + queries[self.question] + between

    def __len__(self) -> int:
        return len(self.question)

    @property
    def used_length(self) -> int:
        """Tokens of the longest window, special ones included."""
        return int((self.begin + self.count).max()) + len(self._template.pair[2])

    def inputs(self, indices: np.ndarray) -> Batch:
        """What BERT reads of the windows at `indices`, int32 `[n, L]` each."""
        at = np.arange(self.size.length)[None]
        question = self.question[indices]
        begin, end = self.begin[indices][:, None], (self.begin + self.count)[indices][:, None]
        before, between, behind = (np.array(tokens, int) for tokens in self._template.pair)
        mask = at < end + len(behind)
        ids = np.full(mask.shape, self._pad_id)
        ids[:, : len(before)] = before
        rows = np.arange(len(ids))[:, None]
        ids[rows, begin - len(between) + np.arange(len(between))] = between
        ids[rows, end + np.arange(len(behind))] = behind
        asking = (at >= len(before)) & (at < begin - len(between))
        showing = (at >= begin) & (at < end)
        token = self.query_bounds[question][:, None] + at - len(before)
        ids[asking] = self.query_ids[token[asking]]
        token = (self.pieces.bounds[self.context[question]] + self.first[indices])[:, None]
        ids[showing] = self.pieces.ids[(token + at - begin)[showing]]
        return {
            "input_ids": ids.astype(np.int32),
            "token_type_ids": ((at >= begin) & mask) * np.int32(self._template.second_type),
            "attention_mask": mask.astype(np.int32),
        }

    @cached_property
    def best_context(self) -> np.ndarray:
        """`[W, 2]`: from which of its pieces, up to which, a window shows more around than others.

        A piece that several windows show counts where the smaller of what stands left and right
        of it is largest; longer windows and then earlier ones win ties, as in the published
        script. Those pieces are always neighbours: as one moves on, a later window only gains.
        """
        ranges = np.stack([self.first, self.first + self.count], axis=1)
        for q in np.flatnonzero(np.diff(self.bounds) > 1):
            where = slice(*self.bounds[q : q + 2])
            best = _best_window(self.first[where], self.count[where])
            ranges[where] = np.searchsorted(
                best, np.arange(ranges[where].shape[0])[:, None] + [0, 1]
            )
        return ranges

    def document(self, windows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Places `[n, L]` where an answer may start, and where it may end."""
        at = np.arange(self.size.length)[None]
        begin = self.begin[windows][:, None]
        ranges = self.best_context[windows] - self.first[windows][:, None] + begin
        starts = (at >= ranges[:, :1]) & (at < ranges[:, 1:])
        return starts, (at >= begin) & (at < begin + self.count[windows][:, None])

    def characters(self, window: Any, start: Any, end: Any) -> tuple[np.ndarray, np.ndarray]:
        """Where the answers from place `start` to place `end` of windows stand in their context."""
        base = self.pieces.bounds[self.context[self.question[window]]]
        base = base + self.first[window] - self.begin[window]
        return self.pieces.starts[base + start], self.pieces.ends[base + end]


class Windows(ContextWindows):
    """The windows of questions that have answers: a store of `Rows`.

    `labels` `[W, 2]` are the places in the window where the answer starts and ends, 0 where the
    window does not hold all of it (SQuAD 1.1 included).

    Attributes:
        asked: the questions that the windows belong to.
        spans: `[Q, 2]` first and last piece of the annotated answer; -1: there is none.
        exact: `[Q]` whether the text of those pieces is the answer, white space around it apart.
        skipped: questions left out of training because no piece stands for their answer.
    """

    def __init__(self, questions: Questions, tokenizer: Any, size: WindowSize, *, training: bool):
        self.asked: list[Question] = list(questions)
        texts, contexts = zip(*((q.question, q.context) for q in questions), strict=True)
        super().__init__(texts, contexts, tokenizer, size)
        self._set_answers()
        lost = (self.spans[:, 0] < 0) & ~np.array([q.impossible for q in questions], bool)
        self.skipped = int(lost.sum()) if training else 0
        if self.skipped == len(self.asked):
            raise DataError(f"{questions.fingerprint['source']} holds no question to learn from")
        if self.skipped:
            self._keep(np.flatnonzero(~lost))
        self._set_labels()
        self.fingerprint = {
            **questions.fingerprint,
            "tokenizer": tokenizer.fingerprint,
            "windows": f"{size.length} tokens every {size.stride}, question {size.query_length}",
        }

    def _set_answers(self) -> None:
        answers = [self._answer(q, c) for q, c in zip(self.asked, self.context, strict=True)]
        self.spans = np.array([answer[:2] for answer in answers], np.int64)
        self.exact = np.array([answer[2] for answer in answers], bool)

    def _answer(self, question: Question, context: int) -> tuple[int, int, bool]:
        """First and last piece that share a character with the answer; whether they spell it."""
        if not question.starts:
            return -1, -1, False
        begin, end = question.starts[0], question.starts[0] + len(question.answers[0])
        where = slice(*self.pieces.bounds[context : context + 2])
        starts, ends = self.pieces.starts[where], self.pieces.ends[where]
        first = int(np.searchsorted(ends, begin, side="right"))
        last = int(np.searchsorted(starts, end, side="left")) - 1
        if first > last or begin == end:
            return -1, -1, False
        text = question.context[starts[first] : ends[last]]
        return first, last, text == question.answers[0].strip()

    def _keep(self, chosen: np.ndarray) -> None:
        """Leaves out all questions but the chosen ones."""
        lengths = np.diff(self.query_bounds)[chosen]
        rows = [self.query_ids[slice(*self.query_bounds[q : q + 2])] for q in chosen]
        self.query_ids = np.concatenate([self.query_ids[:0], *rows])
        self.query_bounds = np.concatenate([[0], np.cumsum(lengths)])
        self.asked = [self.asked[q] for q in chosen]
        self.context, self.spans, self.exact = (
            array[chosen] for array in (self.context, self.spans, self.exact)
        )
        self._cut()

    def _set_labels(self) -> None:
        spans = self.spans[self.question]
        inside = (spans[:, 0] >= self.first) & (spans[:, 1] < self.first + self.count)
        labels = spans - self.first[:, None] + self.begin[:, None]
        self.labels = np.where(inside[:, None], labels, 0).astype(np.int32)

    def gather(self, indices: np.ndarray) -> Batch:
        """The windows at `indices`: what BERT reads, the labels, and the indices themselves."""
        return self.inputs(indices) | {
            "starts": self.labels[indices, 0],
            "ends": self.labels[indices, 1],
            "window": np.asarray(indices, np.int32),
        }


def _best_window(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The window that counts for each piece of one context [pieces]; never falling."""
    best = np.zeros(first[-1] + count[-1], np.int64)
    most = np.full(len(best), -np.inf)
    for window, (begin, length) in enumerate(zip(first, count, strict=True)):
        left, here = np.arange(length), slice(begin, begin + length)
        score = np.minimum(left, length - 1 - left) + 0.01 * length
        best[here] = np.where(score > most[here], window, best[here])
        most[here] = np.maximum(most[here], score)
    return best


def _pieces(texts: Sequence[str], tokenizer: Any) -> Pieces:
    ids, starts, ends, counts = [], [], [], [0]
    for start in range(0, len(texts), CHUNK):
        for encoding in tokenizer.spans(texts[start : start + CHUNK]):
            ids.append(np.asarray(encoding.ids, np.int32))
            starts.append(np.asarray(encoding.starts, np.int32))
            ends.append(np.asarray(encoding.ends, np.int32))
            counts.append(len(encoding.ids))
    none = np.zeros(0, np.int32)
    flat = (np.concatenate([none, *arrays]) for arrays in (ids, starts, ends))
    return Pieces(*flat, np.cumsum(counts))
