"""`Pairs`, the interface of all sources of sentence pairs: random access and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, overload, runtime_checkable

from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DataError
from jaxformers.text import listed_texts
from jaxformers.text.base import without_half_pairs

Pair = tuple[str, str]


class Pairs(Sequence[Pair]):
    """A sequence of (source, target) texts, read on access.

    `fingerprint` identifies the set: `source` (its name), `pairs` (their number) and `content` (a
    hash). Subclasses define `__len__` and `read`.
    """

    fingerprint: Mapping[str, str | int]

    def read(self, indices: Sequence[int]) -> list[Pair]:
        """The pairs at `indices`, each within 0 and the length."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.read(range(len(self))[index])
        return self.read([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self), 1024):
            yield from self[start : start + 1024]


@runtime_checkable
class PairSource(Protocol):
    """Configuration of a source of pairs, a frozen dataclass."""

    def open(self) -> Pairs:
        """Opens the pairs; raises DataError if they are missing or malformed."""
        ...


class ListedPairs(Pairs):
    """Pairs held in memory, for small sets; `name` is the `source` of their fingerprint.

    Raises:
        DataError: an entry is no pair of texts.
    """

    def __init__(self, pairs: Sequence[Pair], name: str):
        self._pairs: list[Pair] = []
        for number, pair in enumerate(pairs, 1):
            if isinstance(pair, str) or len(listed_texts(pair)) != 2:
                raise DataError(f"pair {number} is {pair!r:.80}, not (source, target)")
            self._pairs.append(tuple(map(without_half_pairs, pair)))
        content = json.dumps(self._pairs, ensure_ascii=False).encode()
        self.fingerprint = {
            "source": name,
            "pairs": len(self._pairs),
            "content": hashlib.sha256(content).hexdigest(),
        }

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, indices: Sequence[int]) -> list[Pair]:
        """The pairs at `indices`."""
        return [self._pairs[index] for index in indices]


def sentences(pairs: Pairs, limit: int | None = 10_000_000) -> Iterator[str]:
    """Yields sources and targets in turn, to train a shared vocabulary on.

    Of more than `limit` sentences, an evenly spaced subset of pairs is used, always the same.
    """
    chosen = evenly_spaced(len(pairs), None if limit is None else max(1, limit // 2))
    for start in range(0, len(chosen), 1024):
        for pair in pairs.read(chosen[start : start + 1024].tolist()):
            yield from pair
