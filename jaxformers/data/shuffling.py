"""Endless shuffled streams that are looked up by place, never walked through."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from grain.experimental import index_shuffle

ROUNDS = 4


@lru_cache(maxsize=1024)
def mixed_seed(*numbers: int) -> int:
    """A 31-bit seed from several numbers, so that seed 1's epoch 0 is not seed 0's epoch 1."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def shuffled(start: int, count: int, size: int, *seeds: int) -> np.ndarray:
    """Entries `start` to `start + count` of the endless stream of `size` items, int64 [count].

    The stream is one permutation of all items after the other, each of them drawn by `seeds` and
    its number (epoch); an entry costs the same wherever it stands.
    """
    epoch, rank = divmod(start, size)
    entries: list[int] = []
    while len(entries) < count:
        seed, stop = mixed_seed(*seeds, epoch), min(size, rank + count - len(entries))
        # By position: by name, each call costs half as much again.
        entries += [index_shuffle(k, size - 1, seed, ROUNDS) for k in range(rank, stop)]
        epoch, rank = epoch + 1, 0
    return np.array(entries, np.int64)
