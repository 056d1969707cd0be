"""From logits over windows back to text: the best spans of each question, and "no answer".

As in BERT's published `run_squad.py`, a span starts and ends inside the part of a window that shows
the context, its first piece must be one that this window shows the most context of, it has at
most `longest` pieces, and spans are ranked by the sum of the two logits. That script looks only at
pairs of the 20 best starts and the 20 best ends, question and padding among them, and may miss the
best span that is allowed; here every allowed span is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.data.text.windows import ContextWindows, Windows, WindowSize
from jaxformers.decoding.batching import length_step
from jaxformers.errors import DataError
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import apply_batched, every_output
from jaxformers.tasks.text.bert_inputs import INPUTS

CHUNK = 128  # windows whose spans are ranked together: 6 MB at length 384 and 30 pieces


class Answer(NamedTuple):
    """An answer, a span of its context."""

    text: str
    """As it stands in the context; empty: no answer."""
    score: float
    """The start's logit plus the end's."""
    start: int
    """Where it begins in the context, in characters."""
    end: int


class Spans(NamedTuple):
    """The best spans of each of n windows, best first `[n, k]`; score -inf: there is none."""

    scores: np.ndarray
    starts: np.ndarray
    """Places in the window."""
    ends: np.ndarray
    """The last place, which belongs to the span."""


def answer(
    model: Any,
    variables: Any,
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    size: WindowSize | None = None,
    rows: int = 8,
    longest: int = 30,
    null_threshold: float | None = None,
) -> list[Answer]:
    """The best answer to each question from its context.

    Args:
        model: a `BertForSpanExtraction`, with its `variables` and its tokenizer.
        questions: one for each context.
        contexts: of any length; they are read through sliding windows.
        size: of the windows; None: 384 tokens, or as many as the model has positions.
        rows: windows read at once.
        longest: most pieces of an answer.
        null_threshold: "no answer" (an empty text) where its score exceeds the best span's by more
            than this, for models trained on SQuAD 2.0; None: always a span.

    Raises:
        DataError: another number of questions than of contexts.
        WeightsError: outputs that are not finite.
    """
    if len(questions) != len(contexts):
        raise DataError(f"{len(questions)} questions but {len(contexts)} contexts: give one each")
    if not questions:
        return []
    size = size or default_size(model.config.max_length)
    windows = ContextWindows(questions, contexts, tokenizer, size)
    run, used = logits_program(model), length_step(windows.used_length, size.length)
    inputs = windows.inputs(np.arange(len(windows)))
    logits = apply_batched(
        lambda batch: run(variables, *(batch[name] for name in INPUTS)),
        {name: array[:, :used] for name, array in inputs.items()},
        rows,
    )  # [W, 2, used]
    check_finite(logits)
    logits = _padded(logits, size.length)
    answers = [best[0] for best in best_answers(windows, logits, n_best=1, longest=longest)]
    if null_threshold is None:
        return answers
    nulls = null_scores(windows, logits)
    return [
        Answer("", float(null), 0, 0) if null - best.score > null_threshold else best
        for null, best in zip(nulls, answers, strict=True)
    ]


def default_size(max_length: int) -> WindowSize:
    """The published windows, shrunk where a model has fewer positions."""
    length = min(384, max_length)
    return WindowSize(length, max(1, min(128, length // 3)), min(64, length // 4))


def window_logits(model: Any, variables: Any, windows: Windows, rows: int) -> np.ndarray:
    """Start and end logits of every window, float32 `[W, 2, L]`, `rows` of them at once.

    What all windows leave empty is not read, and has logits of 0.
    """
    run, used = logits_program(model), length_step(windows.used_length, windows.size.length)
    logits = every_output(
        lambda batch: run(variables, *(batch[name][:, :used] for name in INPUTS)), windows, rows
    )
    return _padded(logits, windows.size.length)


def _padded(logits: np.ndarray, length: int) -> np.ndarray:
    """`[W, 2, length]`, with 0 at places that were not read."""
    return np.pad(logits, ((0, 0), (0, 0), (0, length - logits.shape[2])))


@lru_cache(maxsize=4)
def logits_program(model: Any) -> Any:
    """Compiled start and end logits `[B, 2, L]` of (variables, *INPUTS)."""

    @jax.jit
    def run(variables, *inputs):
        out = model.apply(variables, *inputs)
        both = jnp.stack([out.start_logits, out.end_logits], axis=1).astype(jnp.float32)
        return constrain(both, None, None, None)

    return run


def best_answers(
    windows: ContextWindows, logits: np.ndarray, n_best: int = 20, longest: int = 30
) -> list[list[Answer]]:
    """Up to `n_best` answers of each question, best first, no text twice; at least one.

    Args:
        windows: what the logits are of.
        logits: `[W, 2, L]`.
        n_best: how many are kept of each window and of each question.
        longest: most pieces of an answer.

    A question without any allowed span, whose context has no piece, gets the empty text.
    """
    chunks = range(0, len(windows), CHUNK)
    spans = [_chunk_spans(windows, logits, slice(s, s + CHUNK), n_best, longest) for s in chunks]
    scores, starts, ends = (np.concatenate(array) for array in zip(*spans, strict=True))
    window, rank = np.nonzero(np.isfinite(scores))
    scores, starts, ends = (array[window, rank] for array in (scores, starts, ends))
    order = np.lexsort((-scores, windows.question[window]))
    begins, stops = windows.characters(window, starts, ends)
    bounds = np.searchsorted(windows.question[window[order]], np.arange(len(windows.context) + 1))
    results = []
    for q, context in enumerate(windows.context):
        ranked = order[bounds[q] : bounds[q + 1]]
        ranked_spans = zip(scores[ranked], begins[ranked], stops[ranked], strict=True)
        results.append(_distinct(windows.contexts[context], ranked_spans, n_best))
    return results


def _distinct(context: str, spans: Iterator, n_best: int) -> list[Answer]:
    by_text: dict[str, Answer] = {}
    for score, start, end in spans:
        text = context[start:end]
        by_text.setdefault(text, Answer(text, float(score), int(start), int(end)))
        if len(by_text) == n_best:
            break
    return list(by_text.values()) or [Answer("", float("-inf"), 0, 0)]


def _chunk_spans(windows: ContextWindows, logits, where: slice, n_best: int, longest: int) -> Spans:
    starts, ends = windows.document(where)
    start_logits = np.where(starts, logits[where, 0], -np.inf)
    end_logits = np.where(ends, logits[where, 1], -np.inf)
    return best_spans(start_logits, end_logits, n_best, longest)


def best_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, n_best: int = 20, longest: int = 30
) -> Spans:
    """The `n_best` spans of each window `[n, L]` by the sum of both logits.

    -inf in `start_logits` or `end_logits` forbids a place. A span's last place is at or behind its
    first, and it has at most `longest` places. Of equal ones the earlier comes first, then the
    shorter.
    """
    rows, length = start_logits.shape
    longest = min(longest, length)
    padded = np.pad(end_logits, ((0, 0), (0, longest - 1)), constant_values=-np.inf)
    behind = np.lib.stride_tricks.sliding_window_view(padded, longest, axis=1)
    sums = (start_logits[:, :, None] + behind).reshape(rows, length * longest)
    num_spans = min(n_best, length * longest)
    top = np.sort(np.argpartition(sums, -num_spans, axis=1)[:, -num_spans:], axis=1)
    order = np.argsort(-np.take_along_axis(sums, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    starts, extra = np.divmod(top, longest)
    return Spans(np.take_along_axis(sums, top, axis=1), starts, starts + extra)


def null_scores(windows: ContextWindows, logits: np.ndarray) -> np.ndarray:
    """The score of "no answer" for each question `[Q]`: of [CLS], the least over its windows."""
    return np.minimum.reduceat(logits[:, 0, 0] + logits[:, 1, 0], windows.bounds[:-1])
