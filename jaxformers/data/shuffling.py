"""Endless shuffled streams that are looked up by place, never walked through."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle


@lru_cache(maxsize=1024)
def mixed_seed(*numbers: int) -> int:
    """A 31-bit seed from several numbers, so that seed 1's epoch 0 is not seed 0's epoch 1."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def shuffled(start: int, count: int, size: int, *seeds: int) -> np.ndarray:
    """Entries `start` to `start + count` of the endless stream of `size` items, int64 [count].

    The stream is one permutation of all items after the other, each of them drawn by `seeds` and
    its number (epoch); an entry costs the same wherever it stands.
    """
    return np.fromiter(
        (_entry(place, size, seeds) for place in range(start, start + count)), np.int64, count
    )


def _entry(place: int, size: int, seeds: tuple[int, ...]) -> int:
    epoch, rank = divmod(place, size)
    seed = mixed_seed(*seeds, epoch)
    return index_shuffle(rank, max_index=size - 1, seed=seed, rounds=4)
