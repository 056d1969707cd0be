"""Token ids of all pairs, written once and then memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxformers.data.pipeline.memmap_store import (
    Appended,
    Progress,
    cache_folder,
    id_type,
    mapped,
    meta,
    write_once,
)
from jaxformers.data.translation.parallel_text import Pairs, PairSource
from jaxformers.errors import DataError
from jaxformers.text.base import Tokenizer

CHUNK = 4096
SIDES = ("source", "target")


class Side(NamedTuple):
    """All examples of one side: `ids` [tokens], eos included, and `offsets` [examples + 1]."""

    ids: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of ids of each example, eos included [examples]."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class SpecialIds:
    """The ids that batches add to the text: padding, end of sentence, the decoder's start."""

    pad: int
    eos: int
    start: int


class TokenizedPairs:
    """Flat ids and offsets of both sides of all pairs, from `build` or `from_ids`.

    `fingerprint` is that of the pairs with `tokenizer` (the hash of its model) added.
    """

    def __init__(self, source: Side, target: Side, special: SpecialIds, fingerprint: dict):
        self.source, self.target = source, target
        self.special = special
        self.fingerprint: dict[str, str | int] = fingerprint
        self._folder: Path | None = None

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    @classmethod
    def build(
        cls,
        pairs: Pairs | PairSource,
        tokenizer: Tokenizer,
        cache: Any = None,
        progress: Progress | None = None,
    ) -> TokenizedPairs:
        """Tokenizes `pairs`, or loads the result of an earlier call for the same pairs and model.

        Of several processes on a machine one writes and the others wait. An unfinished or damaged
        folder is written again.

        Args:
            pairs: opened pairs or their configuration.
            tokenizer: encodes the texts, on several threads.
            cache: folder for the ids; None means $JAXFORMERS_CACHE, else ~/.cache/jaxformers.
            progress: called with the number of encoded pairs and the number of all pairs.

        Raises:
            DataError: there is no pair, or the cache cannot be written.
        """
        pairs = pairs if isinstance(pairs, Pairs) else pairs.open()
        if not len(pairs):
            raise DataError(f"{pairs.fingerprint['source']} holds no pair")
        fingerprint = {**pairs.fingerprint, "tokenizer": tokenizer.fingerprint}
        key = f"{fingerprint['content']} {fingerprint['tokenizer']}"
        folder = cache_folder(cache) / "pairs" / hashlib.sha256(key.encode()).hexdigest()[:24]
        write_once(
            folder,
            "the ids of the pairs",
            lambda unfinished: _write(unfinished, pairs, tokenizer, fingerprint, progress),
        )
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Any) -> TokenizedPairs:
        """The pairs that `build` wrote into `folder`, memory-mapped."""
        folder = Path(folder)
        metadata = meta(folder)
        sides = [Side(*(mapped(file) for file in _files(folder, s))) for s in SIDES]
        pairs = cls(*sides, SpecialIds(**metadata["special"]), metadata["fingerprint"])
        pairs._folder = folder
        return pairs

    @classmethod
    def from_ids(
        cls,
        source: Iterable[Sequence[int]],
        target: Iterable[Sequence[int]],
        special: SpecialIds,
    ) -> TokenizedPairs:
        """Pairs held in memory, of token ids without eos."""
        sides = [_side(rows, special.eos) for rows in (source, target)]
        if len(sides[0].offsets) != len(sides[1].offsets):
            raise DataError("sources and targets differ in number")
        content = hashlib.sha256(b"".join(array.tobytes() for side in sides for array in side))
        fingerprint = {
            "source": "ids in memory",
            "pairs": len(sides[0].offsets) - 1,
            "content": content.hexdigest(),
            "tokenizer": "none",
        }
        return cls(*sides, special, fingerprint)

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of sources and of targets, eos included, int64 [examples] each."""
        return self.source.lengths, self.target.lengths

    def gather(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of one example's source and target, eos included."""
        spans = (
            (s.ids, s.offsets[index], s.offsets[index + 1]) for s in (self.source, self.target)
        )
        source, target = (np.asarray(ids[start:stop], np.int32) for ids, start, stop in spans)
        return source, target

    def __reduce__(self):
        # Worker processes map the files themselves; the ids are not pickled.
        if self._folder is not None:
            return TokenizedPairs.load, (self._folder,)
        return TokenizedPairs, (self.source, self.target, self.special, self.fingerprint)


def _side(rows: Iterable[Sequence[int]], eos: int) -> Side:
    rows = [[*row, eos] for row in rows]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Side(np.fromiter((i for row in rows for i in row), np.int32, offsets[-1]), offsets)


def _files(folder: Path, side: str) -> tuple[Path, Path]:
    return folder / f"{side}_ids.npy", folder / f"{side}_offsets.npy"


def _write(
    folder: Path,
    pairs: Pairs,
    tokenizer: Tokenizer,
    fingerprint: dict,
    progress: Progress | None,
) -> dict[str, Any]:
    _write_ids(folder, pairs, tokenizer, progress)
    special = SpecialIds(tokenizer.pad_id, tokenizer.eos_id, tokenizer.start_id)
    return {"fingerprint": fingerprint, "special": asdict(special)}


def _write_ids(folder: Path, pairs: Pairs, tokenizer: Tokenizer, progress: Progress | None) -> None:
    kind = id_type(tokenizer.vocab_size)
    encoders = (tokenizer.encode, getattr(tokenizer, "encode_target", tokenizer.encode))
    lengths: tuple[list, list] = ([], [])
    with (
        Appended(_files(folder, "source")[0], kind) as source,
        Appended(_files(folder, "target")[0], kind) as target,
    ):
        for start in range(0, len(pairs), CHUNK):
            texts = zip(*pairs[start : start + CHUNK], strict=True)
            sides = zip(texts, encoders, (source, target), lengths, strict=True)
            for side, encode, file, side_lengths in sides:
                rows = [[*row, tokenizer.eos_id] for row in encode(list(side))]
                file.append([index for row in rows for index in row])
                side_lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            if progress is not None:
                progress(min(start + CHUNK, len(pairs)), len(pairs))
    for name, side_lengths in zip(SIDES, lengths, strict=True):
        np.save(
            _files(folder, name)[1], np.cumsum(np.concatenate([[0], *side_lengths]), dtype=np.int64)
        )
