"""Ids of all sentences of all documents, written once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int

from jaxformers.data.pipeline.memmap_store import (
    Appended,
    Progress,
    cache_folder,
    id_type,
    mapped,
    meta,
    write_once,
)
from jaxformers.data.pretraining.documents import Documents, DocumentSource
from jaxformers.errors import DataError

DOCUMENTS_AT_A_TIME = 64
SENTENCES_AT_A_TIME = 4096
ARRAYS = ("ids", "sentences", "documents", "continues")


class PieceTokenizer(Protocol):
    """What pre-training needs of a tokenizer: WordPiece has it."""

    vocab_size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    continues: np.ndarray
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, without special tokens."""
        ...


@dataclass(frozen=True)
class SpecialPieces:
    """The ids that batches add to the text: padding, [CLS], [SEP], [MASK]."""

    pad: int
    cls: int
    sep: int
    mask: int


class TokenizedDocuments:
    """Flat ids of all sentences, from `build` or `from_ids`; no sentence or document is empty.

    Attributes:
        ids: the pieces of all sentences, without special tokens [tokens].
        sentences: where each sentence begins in `ids`, and their end [sentences + 1].
        documents: where each document begins in `sentences`, and their end [documents + 1].
        continues: whether a piece continues the word before it ("##") [V].
        special: ids of the special tokens.
        fingerprint: that of the documents with `tokenizer` (the hash of its model) added.
    """

    def __init__(
        self,
        ids: Int[np.ndarray, "tokens"],
        sentences: Int[np.ndarray, "sentences+1"],
        documents: Int[np.ndarray, "documents+1"],
        continues: Bool[np.ndarray, "V"],
        special: SpecialPieces,
        fingerprint: dict[str, str | int],
    ):
        self.ids, self.sentences, self.documents = ids, sentences, documents
        self.continues, self.special, self.fingerprint = continues, special, fingerprint
        self._folder: Path | None = None

    def __len__(self) -> int:
        """Number of documents in the store."""
        return len(self.documents) - 1

    @property
    def vocab_size(self) -> int:
        """Number of entries of the vocabulary."""
        return len(self.continues)

    @classmethod
    def build(
        cls,
        documents: Documents | DocumentSource,
        tokenizer: PieceTokenizer,
        cache: Any = None,
        progress: Progress | None = None,
    ) -> TokenizedDocuments:
        """Tokenize `documents`, or reuse what an earlier call with the same ones wrote.

        Sentences without a piece and documents without a sentence are dropped. Processes of one
        machine may call this at once: one writes, the others wait for it.

        Args:
            documents: opened documents or their configuration.
            tokenizer: cuts the sentences; shares the work among threads itself.
            cache: folder for the ids; None means $JAXFORMERS_CACHE, else ~/.cache/jaxformers.
            progress: called with the number of documents done and the number of all.

        Raises:
            DataError: there is no text, or the cache cannot be written.
        """
        documents = documents if isinstance(documents, Documents) else documents.open()
        fingerprint = {**documents.fingerprint, "tokenizer": tokenizer.fingerprint}
        key = f"{fingerprint['content']} {fingerprint['tokenizer']}"
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        folder = cache_folder(cache) / "documents" / name
        write_once(
            folder,
            "the ids of the documents",
            lambda unfinished: _write(unfinished, documents, tokenizer, fingerprint, progress),
        )
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Any) -> TokenizedDocuments:
        """The documents that `build` wrote into `folder`, memory-mapped."""
        folder = Path(folder)
        metadata = meta(folder)
        arrays = (mapped(folder / f"{name}.npy") for name in ARRAYS)
        store = cls(*arrays, SpecialPieces(**metadata["special"]), metadata["fingerprint"])
        store._folder = folder
        return store

    @classmethod
    def from_ids(
        cls,
        documents: Iterable[Iterable[Sequence[int]]],
        special: SpecialPieces,
        continues: Bool[np.ndarray, "V"],
    ) -> TokenizedDocuments:
        """Documents held in memory, from the ids of the pieces of their sentences."""
        nonempty = [
            [list(sentence) for sentence in document if len(sentence)] for document in documents
        ]
        nonempty = [document for document in nonempty if document]
        if not nonempty:
            raise DataError("the given documents hold no text")
        sentences = [sentence for document in nonempty for sentence in document]
        ids = np.array([index for sentence in sentences for index in sentence], np.int32)
        arrays = ids, _offsets(sentences), _offsets(nonempty)
        content = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        name = {"source": "ids in memory", "documents": len(nonempty), "content": content}
        return cls(*arrays, np.asarray(continues), special, {**name, "tokenizer": "none"})

    def sentence(self, index: int) -> Int[np.ndarray, "pieces"]:
        """Ids of the sentence at `index`, without special tokens."""
        return np.asarray(self.ids[self.sentences[index] : self.sentences[index + 1]], np.int32)

    def __reduce__(self):
        # Worker processes map the files anew instead of being sent the ids.
        if self._folder is not None:
            return TokenizedDocuments.load, (self._folder,)
        arrays = (getattr(self, name) for name in ARRAYS)
        return TokenizedDocuments, (*arrays, self.special, self.fingerprint)


def _offsets(sequences: Sequence[Sequence]) -> np.ndarray:
    return np.cumsum([0, *map(len, sequences)], dtype=np.int64)


def _write(
    folder: Path,
    documents: Documents,
    tokenizer: PieceTokenizer,
    fingerprint: dict,
    progress: Progress | None,
) -> dict[str, Any]:
    """Write the arrays and return what `meta` keeps."""
    _write_ids(folder, documents, tokenizer, progress)
    np.save(folder / "continues.npy", np.asarray(tokenizer.continues, bool))
    names = {name: getattr(tokenizer, f"{name}_id") for name in ("pad", "cls", "sep", "mask")}
    return {"fingerprint": fingerprint, "special": asdict(SpecialPieces(**names))}


def _write_ids(
    folder: Path, documents: Documents, tokenizer: PieceTokenizer, progress: Progress | None
) -> None:
    with (
        Appended(folder / "ids.npy", id_type(tokenizer.vocab_size)) as ids,
        _Offsets(folder / "sentences.npy") as sentences,
        _Offsets(folder / "documents.npy") as ends,
    ):
        for start in range(0, len(documents), DOCUMENTS_AT_A_TIME):
            read = documents[start : start + DOCUMENTS_AT_A_TIME]
            lengths = _lengths_and_ids(read, tokenizer, ids)
            document_of = np.repeat(np.arange(len(read)), [len(document) for document in read])
            filled = lengths > 0
            sentences.append(lengths[filled])
            counts = np.bincount(document_of[filled], minlength=len(read))
            ends.append(counts[counts > 0])
            if progress is not None:
                progress(min(start + DOCUMENTS_AT_A_TIME, len(documents)), len(documents))
        if not ends.total:
            raise DataError(f"{documents.fingerprint['source']} holds no text")


def _lengths_and_ids(
    documents: list[list[str]], tokenizer: PieceTokenizer, ids: Appended
) -> Int[np.ndarray, "sentences"]:
    """Append the ids of all sentences to `ids` and return how many each has."""
    texts = [sentence for document in documents for sentence in document]
    lengths = [np.zeros(0, np.int64)]
    for start in range(0, len(texts), SENTENCES_AT_A_TIME):
        rows = tokenizer.encode(texts[start : start + SENTENCES_AT_A_TIME])
        ids.append([index for row in rows for index in row])
        lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
    return np.concatenate(lengths)


class _Offsets:
    """A file of offsets that grows by lengths."""

    def __init__(self, path: Path):
        self._file, self.total = Appended(path, np.int64), 0

    def __enter__(self) -> _Offsets:
        self._file.__enter__().append([0])
        return self

    def append(self, lengths: Int[np.ndarray, "N"]) -> None:
        ends = self.total + np.cumsum(lengths, dtype=np.int64)
        self._file.append(ends)
        self.total = int(ends[-1]) if len(ends) else self.total

    def __exit__(self, *error) -> None:
        self._file.__exit__(*error)
