"""Ids of all pairs, written once and memory-mapped from then on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxformers.data.pairs import Pairs, PairSource
from jaxformers.errors import DataError
from jaxformers.text.base import Tokenizer

CHUNK = 4096
SIDES = ("source", "target")
Progress = Callable[[int, int], None]


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
        """Tokenize `pairs`, or reuse what an earlier call with the same pairs and model wrote.

        Processes of one machine may call this at once: one writes, the others wait for it. A
        folder that was not finished or was damaged is written anew.

        Args:
            pairs: opened pairs or their configuration.
            tokenizer: cuts the texts; shares the work among threads itself.
            cache: folder for the ids; None means $JAXFORMERS_CACHE, else ~/.cache/jaxformers.
            progress: called with the number of pairs done and the number of all.

        Raises:
            DataError: there is no pair, or the cache cannot be written.
        """
        pairs = pairs if isinstance(pairs, Pairs) else pairs.open()
        if not len(pairs):
            raise DataError(f"{pairs.fingerprint['source']} holds no pair")
        fingerprint = {**pairs.fingerprint, "tokenizer": tokenizer.fingerprint}
        key = f"{fingerprint['content']} {fingerprint['tokenizer']}"
        folder = cache_folder(cache) / "pairs" / hashlib.sha256(key.encode()).hexdigest()[:24]
        try:
            with _locked(folder):
                if not _complete(folder):
                    _write(folder, pairs, tokenizer, fingerprint, progress)
        except OSError as error:
            raise DataError(
                f"the ids of the pairs cannot be kept in {folder.parent}: {error.strerror}; "
                "set JAXFORMERS_CACHE to a folder with room"
            ) from error
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Any) -> TokenizedPairs:
        """The pairs that `build` wrote into `folder`, memory-mapped."""
        folder = Path(folder)
        meta = json.loads((folder / "meta.json").read_text())
        sides = [Side(*(_mapped(file) for file in _files(folder, s))) for s in SIDES]
        pairs = cls(*sides, SpecialIds(**meta["special"]), meta["fingerprint"])
        pairs._folder = folder
        return pairs

    @classmethod
    def from_ids(
        cls,
        source: Iterable[Sequence[int]],
        target: Iterable[Sequence[int]],
        special: SpecialIds,
    ) -> TokenizedPairs:
        """Pairs held in memory, from the ids of their pieces without eos."""
        sides = [_side(rows, special.eos) for rows in (source, target)]
        if len(sides[0].offsets) != len(sides[1].offsets):
            raise DataError("sources and targets differ in number")
        content = hashlib.sha256(b"".join(part.tobytes() for side in sides for part in side))
        fingerprint = {
            "source": "given ids",
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
        # Worker processes map the files anew instead of being sent the ids.
        if self._folder is not None:
            return TokenizedPairs.load, (self._folder,)
        return TokenizedPairs, (self.source, self.target, self.special, self.fingerprint)


def cache_folder(cache: Any = None) -> Path:
    """`cache`, else $JAXFORMERS_CACHE, else ~/.cache/jaxformers."""
    default = os.environ.get("JAXFORMERS_CACHE") or Path.home() / ".cache" / "jaxformers"
    return Path(cache or default).expanduser()


def _side(rows: Iterable[Sequence[int]], eos: int) -> Side:
    rows = [[*row, eos] for row in rows]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Side(np.fromiter((i for row in rows for i in row), np.int32, offsets[-1]), offsets)


def _mapped(file: Path) -> np.ndarray:
    # A plain view: indexing np.memmap itself costs Python calls.
    return np.load(file, mmap_mode="r").view(np.ndarray)


def _files(folder: Path, side: str) -> tuple[Path, Path]:
    return folder / f"{side}_ids.npy", folder / f"{side}_offsets.npy"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against the other processes of this machine."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(folder: Path) -> bool:
    """Whether every file is there at the size that was noted when the folder was finished."""
    try:
        sizes = json.loads((folder / "meta.json").read_text())["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _write(
    folder: Path,
    pairs: Pairs,
    tokenizer: Tokenizer,
    fingerprint: dict,
    progress: Progress | None,
) -> None:
    """Write beside `folder` and rename at the end, so that it is whole or not there."""
    for abandoned in folder.parent.glob(f"{folder.name}.writing-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}.writing-{uuid.uuid4().hex}")
    unfinished.mkdir()
    try:
        _write_ids(unfinished, pairs, tokenizer, progress)
        special = SpecialIds(tokenizer.pad_id, tokenizer.eos_id, tokenizer.start_id)
        sizes = {file.name: file.stat().st_size for file in unfinished.iterdir()}
        meta = {"fingerprint": fingerprint, "special": asdict(special), "sizes": sizes}
        (unfinished / "meta.json").write_text(json.dumps(meta, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_ids(folder: Path, pairs: Pairs, tokenizer: Tokenizer, progress: Progress | None) -> None:
    small = tokenizer.vocab_size <= np.iinfo(np.uint16).max + 1
    encoders = (tokenizer.encode, getattr(tokenizer, "encode_target", tokenizer.encode))
    lengths: tuple[list, list] = ([], [])
    with (
        _Appended(_files(folder, "source")[0], np.uint16 if small else np.int32) as source,
        _Appended(_files(folder, "target")[0], np.uint16 if small else np.int32) as target,
    ):
        for start in range(0, len(pairs), CHUNK):
            texts = zip(*pairs[start : start + CHUNK], strict=True)
            sides = zip(texts, encoders, (source, target), lengths, strict=True)
            for side, encode, file, kept in sides:
                rows = [[*row, tokenizer.eos_id] for row in encode(list(side))]
                file.append([index for row in rows for index in row])
                kept.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            if progress is not None:
                progress(min(start + CHUNK, len(pairs)), len(pairs))
    for name, kept in zip(SIDES, lengths, strict=True):
        np.save(_files(folder, name)[1], np.cumsum(np.concatenate([[0], *kept]), dtype=np.int64))


class _Appended:
    """A one-dimensional .npy file that grows; its header gets the length when it is closed."""

    def __init__(self, path: Path, dtype: type):
        self._file, self._dtype, self._count = open(path, "wb"), np.dtype(dtype), 0  # noqa: SIM115

    def __enter__(self) -> _Appended:
        self._header()
        return self

    def append(self, values: Sequence[int]) -> None:
        self._count += len(values)
        np.asarray(values, self._dtype).tofile(self._file)

    def __exit__(self, *_) -> None:
        self._file.seek(0)
        self._header()
        self._file.close()

    def _header(self) -> None:
        # NumPy pads the header so that it keeps its size when this one axis grows.
        shape = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, shape)
