"""Random integers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int, UInt64

from jaxformers.data.pipeline.shuffling import mixed_seed

HALF = 32


class Draws:
    """A stream of random 64-bit words for `seeds`."""

    def __init__(self, *seeds: int):
        # Bit generators are stable between versions of NumPy; what `Generator` draws is not.
        self._bits = np.random.Philox(mixed_seed(*seeds))

    def words(self, *shape: int) -> UInt64[np.ndarray, "..."]:
        """The next words, in an array of `shape`."""
        return self._bits.random_raw(int(np.prod(shape))).reshape(shape)


class RowDraws:
    """Random words of each row of a batch, the same for any slice of rows.

    Args:
        seeds: of the batch.
        rows: range of row indices in the global batch.
        count: words per row in `words` [rows, count].
    """

    def __init__(self, seeds: tuple[int, ...], rows: range, count: int):
        self._seeds, self._rows = seeds, rows
        # Philox is counter based: advance(n) skips n blocks of four words at no cost, so a host
        # draws its own rows and gets the same words as a single host.
        stride = -(-count // 4) * 4
        bits = np.random.Philox(mixed_seed(*seeds)).advance(rows.start * stride // 4)
        self.words = bits.random_raw(len(rows) * stride).reshape(len(rows), stride)[:, :count]

    def more(self, row: int, count: int) -> UInt64[np.ndarray, "count"]:
        """`count` further words for one row (index within `rows`)."""
        return Draws(*self._seeds, self._rows[row] + 1).words(count)


def high(words: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """The upper half of each word: a number below 2^32."""
    return words >> np.uint64(HALF)


def low(words: UInt64[np.ndarray, "*N"]) -> UInt64[np.ndarray, "*N"]:
    """The lower half of each word: a number below 2^32."""
    return words & np.uint64(2**HALF - 1)


def below(halves: UInt64[np.ndarray, "*N"], limit: np.ndarray | int) -> Int[np.ndarray, "*N"]:
    """Uniform integers from 0 to `limit` - 1 (at most 2^32) out of half words."""
    # floor(h * limit / 2^32) for h in [0, 2^32): biased by at most limit / 2^32.
    scaled = halves * np.asarray(limit).astype(np.uint64)
    return (scaled >> np.uint64(HALF)).astype(np.int64)


def chance(halves: UInt64[np.ndarray, "*N"], probability: float) -> np.ndarray:
    """True with `probability`, out of half words."""
    return halves < probability * 2.0**HALF


def uniform(words: UInt64[np.ndarray, "*N"]) -> Float64[np.ndarray, "*N"]:
    """Uniform numbers from 0 to below 1."""
    return (words >> np.uint64(11)) * 2.0**-53
