"""Endless shuffled streams with random access: entry i is computed from (seed, i) alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle

ROUNDS = 4


@lru_cache(maxsize=1024)
def mixed_seed(*numbers: int) -> int:
    """A 31-bit seed from several numbers, so that seed 1's epoch 0 is not seed 0's epoch 1."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


SHORT = 2**14  # items of which the orders of many epochs are held
MAX_SORTED_ITEMS = 2**22  # up to which an epoch's order is held as an array


def permuted(start: int, count: int, size: int, *seeds: int) -> np.ndarray:
    """As `shuffled`, in another order and faster: an epoch is sorted at once.

    Above `MAX_SORTED_ITEMS` items it is `shuffled`.

    `shuffled` costs a millisecond an entry where there are few items.
    """
    if size > MAX_SORTED_ITEMS:
        return shuffled(start, count, size, *seeds)
    epoch, rank = divmod(start, size)
    chunks: list[np.ndarray] = []
    while count:
        order = _short_order if size <= SHORT else _order
        chunks.append(order(size, *seeds, epoch)[rank : rank + count])
        count, epoch, rank = count - len(chunks[-1]), epoch + 1, 0
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int64)


@lru_cache(maxsize=256)  # tasks of a mixture
def _short_order(size: int, *seeds: int) -> np.ndarray:
    return _order.__wrapped__(size, *seeds)


@lru_cache(maxsize=4)
def _order(size: int, *seeds: int) -> np.ndarray:
    words = np.random.Philox(mixed_seed(*seeds)).random_raw(size)
    return np.argsort(words, kind="stable")


def shuffled(start: int, count: int, size: int, *seeds: int) -> np.ndarray:
    """Entries `start` to `start + count` of the endless stream of `size` items, int64 [count].

    The stream is one permutation of all items after the other, each of them drawn by `seeds` and
    its number (epoch); an entry costs the same at any position.
    """
    # batch = f(seed, step): `index_shuffle` is a keyed permutation of [0, size), evaluated at one
    # index. No iterator state is saved, and resuming at any step costs the same.
    epoch, rank = divmod(start, size)
    entries: list[int] = []
    while len(entries) < count:
        seed, stop = mixed_seed(*seeds, epoch), min(size, rank + count - len(entries))
        # By position: by name, each call costs half as much again.
        entries += [index_shuffle(k, size - 1, seed, ROUNDS) for k in range(rank, stop)]
        epoch, rank = epoch + 1, 0
    return np.array(entries, np.int64)
