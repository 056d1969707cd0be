"""Decodes any number of sources of any lengths with few compiled programs.

A program is compiled for each shape, so batches are padded to a few numbers of rows and a few
lengths. Padding changes no translation: each sentence's limit counts its own tokens.
"""

from __future__ import annotations

import numbers
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.decoding.search import BEAMS, DEFAULT_SCORING, Decoded
from jaxformers.decoding.translation import EXTRA_LENGTH, search_to_end
from jaxformers.errors import ConfigError
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.sharding import batch_multiple

SHORTEST = 16
WINDOW = 16  # a stream sorts the sentences of so many batches by length


def length_step(length: int, longest: int) -> int:
    """`length` rounded up to one of 16, 24, 32, 48, 64, 96, ..., never above `longest`.

    A `length` above `longest` stays as it is: refusing it is left to the model.
    """
    step = SHORTEST
    while step < length:
        # A power of two times 3/2, and that times 4/3, the next power of two.
        step = step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return min(step, longest) if length <= longest else length


def row_step(count: int, rows: int) -> int:
    """`count` rounded up to `rows`, or to a quarter of it, a sixteenth, and so on down to 1.

    Within a mesh the result is a multiple of what it divides a batch into.
    """
    step = rows
    while step > 1 and -(-step // 4) >= count:
        step = -(-step // 4)
    return -(-step // batch_multiple()) * batch_multiple()


def batches(
    sources: Sequence[Sequence[int]], rows: int, longest: int, pad_id: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Groups sources of similar lengths, longest first: yields their indices, ids and mask.

    Added rows repeat the last source, so that they are done when it is: a row of padding alone
    would run to the maximum length.
    """
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    for start in range(0, len(order), rows):
        indices = order[start : start + rows]
        length = length_step(max(len(sources[indices[0]]), 1), longest)
        shape = (row_step(len(indices), rows), length)
        ids, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32)
        for row in range(shape[0]):
            source = sources[indices[min(row, len(indices) - 1)]]
            ids[row, : len(source)], mask[row, : len(source)] = source, 1
        yield indices, ids, mask


class Hypothesis(NamedTuple):
    """A translation that a search has found."""

    ids: list[int]
    """Without start token and padding; the end of sentence is included."""
    score: float
    """Log-probability over the length penalty."""


def decode_texts(
    model: Transformer, variables: dict, sources: Sequence[Sequence[int]], **options
) -> list[list[int]]:
    """The best translation of each source, token ids in and out, in the order of the sources.

    Translations are without start token and padding, and include the end of sentence. Options and
    errors are those of `decode_n_best`.
    """
    return [best.ids for best, *_ in decode_n_best(model, variables, sources, **options)]


def decode_n_best(
    model: Transformer,
    variables: dict,
    sources: Sequence[Sequence[int]],
    n_best: Any = 1,
    *,
    rows: int = 32,
    max_length: int | None = None,
    longest: int | None = None,
    **search,
) -> list[list[Hypothesis]]:
    """The `n_best` best translations of each source, best first, in the order of the sources.

    Args:
        sources: token ids.
        n_best: hypotheses of each source, at most `beams`; a small vocabulary may give fewer.
        rows: sentences of similar lengths that are decoded at once.
        max_length: as for `beam_search`.
        longest: where `max_length` is None, what is `max_length` for sentences whose search has not
            ended at the length of their source + 50, and at most for all; None: those end there.
        search: `beams`, `alpha` and `scoring` of `beam_search`.

    Raises:
        ConfigError: as `beam_search`, or more translations than beams.
        DataError: as `beam_search`.
        WeightsError: scores that are not finite.
    """
    beams, c = search.get("beams", BEAMS), model.config
    if not isinstance(n_best, numbers.Integral) or not 1 <= n_best <= beams:
        raise ConfigError(
            f"n_best is {n_best!r}; it is a whole number from 1 to the number of beams, {beams}"
        )
    if longest is not None and max_length is None:
        longest = min(longest, c.max_length)
        if search.get("scoring", DEFAULT_SCORING).stopping == "exact":
            # When such a search ends depends on its limit. Its cache is large, so rows are fewer.
            max_length, rows = longest, -(-rows // 8)
    results: list[list[Hypothesis]] = [[] for _ in sources]
    unfinished: list[int] = []
    for indices, ids, mask in batches(sources, rows, c.max_length, c.pad_id):
        decoded, ended = search_to_end(
            model, variables, ids, mask, max_length, longest, all_beams=n_best > 1, **search
        )
        # Not strict: rows that `batches` added come last and are dropped.
        for index, hypotheses, was_ended in zip(
            indices, _hypotheses(decoded, n_best, c), np.asarray(ended), strict=False
        ):
            results[index] = hypotheses
            if not was_ended and longest and len(sources[index]) + EXTRA_LENGTH < longest:
                unfinished.append(index)
    if max_length is None and unfinished:
        longer = [sources[index] for index in unfinished]
        # A longer search needs more memory for its cache, so fewer rows are decoded at once.
        options = dict(rows=-(-rows // 8), max_length=longest, **search)
        again = decode_n_best(model, variables, longer, n_best, **options)
        for index, hypotheses in zip(unfinished, again, strict=True):
            results[index] = hypotheses
    return results


def _hypotheses(decoded: Decoded, n_best: int, config: TransformerConfig) -> list[list[Hypothesis]]:
    """The `n_best` first hypotheses of each row."""
    ids, scores = np.asarray(decoded.ids), np.asarray(decoded.scores)
    if scores.ndim == 1:
        ids, scores = ids[:, None], scores[:, None]
    check_finite(scores[:, 0])  # a later score of -inf says that there are fewer hypotheses
    return [
        [
            Hypothesis(_without_padding(row, config.eos_id, config.pad_id), float(score))
            for row, score in zip(beams[:n_best], beam_scores[:n_best], strict=True)
            if np.isfinite(score)
        ]
        for beams, beam_scores in zip(ids.tolist(), scores, strict=True)
    ]


def _without_padding(row: list[int], eos_id: int, pad_id: int) -> list[int]:
    if eos_id in row:
        return row[: row.index(eos_id) + 1]
    while row and row[-1] == pad_id:
        row = row[:-1]
    return row


def decode_stream(
    model: Transformer,
    variables: dict,
    sources: Iterable[Sequence[int]],
    *,
    rows: int = 32,
    **search,
) -> Iterator[list[int]]:
    """`decode_texts` for sources that arrive one by one; translations in their order.

    Never waits for input while a source is queued: a sentence typed alone is decoded alone; when
    many are queued they are decoded `rows` at a time, sorted by length.
    """
    for queued in _take_queued(sources, WINDOW * rows):
        yield from decode_texts(model, variables, queued, rows=rows, **search)


def _take_queued(items: Iterable, limit: int) -> Iterator[list]:
    """Yields lists of the items that have arrived since the last list was taken, in order.

    A thread reads `items` into a bounded queue, as (item, error) pairs; the last is (end, error).
    An error is raised here, after the items before it.
    """
    arrivals: queue.Queue = queue.Queue(2 * limit)
    stop = threading.Event()
    end = object()

    def put(item) -> None:
        # With a timeout, so that the thread ends when its consumer is gone and the queue is full.
        while not stop.is_set():
            try:
                return arrivals.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put((item, None))
                if stop.is_set():
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))

    threading.Thread(target=read, daemon=True).start()
    try:
        yield from _drain(arrivals, end, limit)
    finally:
        stop.set()


def _drain(arrivals: queue.Queue, end: object, limit: int) -> Iterator[list]:
    while True:
        queued = [arrivals.get()]  # waits for one, and takes the others only if they are there
        while len(queued) < limit and queued[-1][0] is not end and not arrivals.empty():
            queued.append(arrivals.get())
        last_item, error = queued[-1]
        if items := [item for item, _ in queued if item is not end]:
            yield items
        if error is not None:
            raise error
        if last_item is end:
            return
