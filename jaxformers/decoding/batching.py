"""Any number of sources of any lengths, through few compiled programs.

A program is compiled for a shape; so rows are filled up to a few numbers and lengths to a few
steps. Filling changes no translation: each sentence's limit counts its own tokens.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxformers.decoding.search import beam_search
from jaxformers.models import Transformer

SHORTEST = 16
WINDOW = 16  # batches whose sentences a stream sorts by length together


def length_step(length: int, longest: int) -> int:
    """`length` rounded up to one of 16, 24, 32, 48, 64, 96, ..., never above `longest`."""
    step = SHORTEST
    while step < length:
        step = step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return min(step, longest) if length <= longest else length


def row_step(count: int, rows: int) -> int:
    """`count` rounded up to `rows`, or to a quarter of it, a sixteenth, and so on down to 1."""
    step = rows
    while step > 1 and -(-step // 4) >= count:
        step = -(-step // 4)
    return step


def batches(
    sources: Sequence[Sequence[int]], rows: int, longest: int, pad_id: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Sources of similar lengths together, longest first: their indices, ids and mask.

    Filled-up rows repeat the last source, so that they end when it does.
    """
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        length = length_step(max(len(sources[chosen[0]]), 1), longest)
        shape = (row_step(len(chosen), rows), length)
        ids, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32)
        for row in range(shape[0]):
            source = sources[chosen[min(row, len(chosen) - 1)]]
            ids[row, : len(source)], mask[row, : len(source)] = source, 1
        yield chosen, ids, mask


def decode_texts(
    model: Transformer,
    variables: dict,
    sources: Sequence[Sequence[int]],
    *,
    rows: int = 32,
    beams: int = 4,
    alpha: float = 0.6,
    max_length: int | None = None,
) -> list[list[int]]:
    """The best translation of each source, tokens in and tokens out, in the order given.

    `rows` sentences of similar lengths are decoded at once. What comes back is without start token
    and padding; the end of sentence is in it. Other arguments and errors are `beam_search`'s.
    """
    results: list[list[int]] = [[] for _ in sources]
    c = model.config
    for chosen, ids, mask in batches(sources, rows, c.max_length, c.pad_id):
        found = beam_search(model, variables, ids, mask, max_length, beams, alpha).ids
        for index, row in zip(chosen, np.asarray(found).tolist(), strict=False):
            results[index] = _without_padding(row, c.eos_id, c.pad_id)
    return results


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
    """`decode_texts` for sources that come one by one, in their order.

    Never waits for input while a source is at hand: a sentence typed alone is decoded alone; when
    many are waiting they are decoded `rows` at a time, those of similar lengths together.
    """
    for waiting in _whatever_waits(sources, WINDOW * rows):
        yield from decode_texts(model, variables, waiting, rows=rows, **search)


def _whatever_waits(items: Iterable, most: int) -> Iterator[list]:
    """Lists of the items that have come since the last list was taken; errors come in turn."""
    came: queue.Queue = queue.Queue(2 * most)
    stop = threading.Event()
    end = object()

    def put(item) -> None:
        while not stop.is_set():
            try:
                return came.put(item, timeout=0.1)
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
        yield from _drain(came, end, most)
    finally:
        stop.set()


def _drain(came: queue.Queue, end: object, most: int) -> Iterator[list]:
    while True:
        waiting = [came.get()]
        while len(waiting) < most and waiting[-1][0] is not end and not came.empty():
            waiting.append(came.get())
        last, error = waiting[-1]
        found = [item for item, _ in waiting if item is not end]
        if found:
            yield found
        if error is not None:
            raise error
        if last is end:
            return
