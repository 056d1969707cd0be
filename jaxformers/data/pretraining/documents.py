"""Sources of documents, each a list of sentences: what BERT is pre-trained on."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from etils import epath

from jaxformers.data.files.line_index import Lines, NoText
from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.pipeline.subsets import split_by_hash
from jaxformers.data.pretraining.sentence_splitting import RULES, count_words, split_sentences
from jaxformers.data.translation.sources import BUNDLED, bundled_rows, held_out
from jaxformers.errors import DataError, folder_contents
from jaxformers.fields import CheckedFields, NonNegativeInt
from jaxformers.text import listed_texts
from jaxformers.text.base import without_half_pairs

Document = list[str]
SPLITS = ("train", "held_out", "all")
NOTHING_IN_TFDS = "for BooksCorpus, which TFDS does not have, any folder of books as text stands in"


class Documents(Sequence[Document]):
    """A sequence of documents, each a list of sentences, that is read when asked for.

    `fingerprint` tells the set apart from any other: `source` (its name), `documents` (how many)
    and `content` (a hash). Subclasses give `__len__` and `read`.
    """

    fingerprint: Mapping[str, str | int]

    def read(self, indices: Sequence[int]) -> list[Document]:
        """The documents at `indices`, each within 0 and the length."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.read(range(len(self))[index])
        return self.read([range(len(self))[index]])[0]

    def __iter__(self) -> Iterator[Document]:
        for start in range(0, len(self), 64):
            yield from self[start : start + 64]


@runtime_checkable
class DocumentSource(Protocol):
    """Configuration of a source of documents: a frozen dataclass."""

    def open(self) -> Documents:
        """The documents; raises DataError where they are missing or malformed."""
        ...


class ListedDocuments(Documents):
    """Documents held in memory, for small sets; `name` stands in their fingerprint.

    Raises:
        DataError: `documents` is no sequence of sequences of sentences.
    """

    def __init__(self, documents: Sequence[Sequence[str]], name: str):
        if not isinstance(documents, Sequence) or any(isinstance(d, str) for d in documents):
            raise DataError(
                "documents are lists of sentences, not texts: cut a text by split_sentences"
            )
        self._documents = [list(map(without_half_pairs, listed_texts(d))) for d in documents]
        content = json.dumps(self._documents, ensure_ascii=False).encode()
        self.fingerprint = _fingerprint(name, len(self._documents), content)

    def __len__(self) -> int:
        return len(self._documents)

    def read(self, indices: Sequence[int]) -> list[Document]:
        """The documents at `indices`."""
        return [self._documents[index] for index in indices]


def document_sentences(documents: Documents, limit: int | None = 10_000_000) -> Iterator[str]:
    """Sentences to train a vocabulary on: those of evenly spaced documents, about `limit` of them.

    The same ones every time. The length of documents is estimated from the first 64.
    """
    chosen = range(len(documents))
    if limit is not None and len(documents):
        sample = documents[:64]
        size = max(1.0, sum(map(len, sample)) / len(sample))
        chosen = range(0, len(documents), max(1, round(len(documents) * size / limit)))
    for start in range(0, len(chosen), 64):
        for document in documents.read(chosen[start : start + 64]):
            yield from document


@dataclass(frozen=True)
class BundledDocuments:
    """The addresses on the state of the union inside the package (bundled/NOTICE.md)."""

    split: Literal["train", "held_out", "all"] = "train"
    """`held_out`: the addresses whose text's MD5 is 0 modulo 20; `train`: the others."""

    def open(self) -> Documents:
        """The addresses, held in memory (10 MB)."""
        if self.split not in SPLITS:
            raise DataError(f"split {self.split!r} is not known: use train, held_out or all")
        chosen = [
            [sentence for line in lines for sentence in split_sentences(line)]
            for lines in _addresses()
            if self.split == "all" or held_out("\n".join(lines)) == (self.split == "held_out")
        ]
        return ListedDocuments(chosen, f"bundled state of the union, {self.split}")


@lru_cache(maxsize=1)
def _addresses() -> list[list[str]]:
    """The lines of each address."""
    lines = Lines(BUNDLED / "state_of_the_union.txt.gz")
    spans = _spans_between_blank_lines(lines)
    return [[lines[k] for k in range(*span)] for span in spans]


@dataclass(frozen=True)
class BundledHelpPages(CheckedFields):
    """LibreOffice's help pages and interface texts inside the package (bundled/NOTICE.md).

    The English side of the bundled pairs: 2,405 documents of 43,078 lines, 0.53 million words. The
    split is that of `BundledHelp`, the labelled lines, so that pre-training reads no test page.
    """

    split: Literal["train", "dev", "test"] = "train"
    """By the MD5 of the page's name modulo 10: `test` 0, `dev` 1, `train` the others."""

    def open(self) -> Documents:
        """The pages, held in memory (4 MB); each line is one sentence."""
        pages: dict[str, list[str]] = {}
        for name, line, _ in bundled_rows("en-de"):
            if split_by_hash(name) == self.split:
                pages.setdefault(name, []).append(line)
        return ListedDocuments(list(pages.values()), f"bundled help pages, {self.split}")


@dataclass(frozen=True)
class TextFolder:
    """One's own documents: a folder of text files, plain or .gz, sub-folders included.

    BooksCorpus comes this way (one book a file, or one file of sentences with blank lines).
    """

    path: str
    """The folder, or one text file; local or gs://."""
    pattern: str = "*.txt"
    """Which files are read; `.gz` may stand behind it."""
    documents: Literal["files", "blank_lines"] = "files"
    """What a document is: a whole file, or what stands between blank lines."""
    sentences: Literal["split", "lines"] = "split"
    """`split`: lines are paragraphs and are cut into sentences; `lines`: each line is one."""

    def open(self) -> Documents:
        """The documents, read from the files when asked for.

        Raises:
            DataError: no such folder, no such file in it, or a file that is no UTF-8 text.
        """
        if self.documents not in ("files", "blank_lines"):
            raise DataError(f"documents {self.documents!r} is not known: use files or blank_lines")
        if self.sentences not in ("split", "lines"):
            raise DataError(f"sentences {self.sentences!r} is not known: use split or lines")
        return _TextDocuments(self, _text_files(epath.Path(self.path), self.pattern))


def _text_files(path: epath.Path, pattern: str) -> list[epath.Path]:
    """The files under `path` that match, by name, without empty ones."""
    if not path.exists():
        raise DataError(f"there is no folder {path} of text files; {NOTHING_IN_TFDS}")
    if not path.is_dir():
        return [path]
    matches = (f for f in _under(path) if fnmatch.fnmatch(f.name.removesuffix(".gz"), pattern))
    files = sorted(file for file in matches if file.stat().length)
    if not files:
        raise DataError(
            f"{path} holds no text file {pattern} or {pattern}.gz; {folder_contents(path)}"
        )
    return files


def _under(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _under(path)
        else:
            yield path


class _TextDocuments(Documents):
    """Which lines of which file are a document: three numbers each, and no text."""

    def __init__(self, config: TextFolder, files: list[epath.Path]):
        self._config, self._files = config, files
        self._lines = lru_cache(maxsize=4)(Lines)
        digests, spans = [], []
        for number, file in enumerate(files):
            try:
                lines = self._lines(file)
            except NoText:
                continue
            digests.append(lines.digest)
            line_spans = (
                _spans_between_blank_lines(lines) if self._by_blank_lines else [[0, len(lines)]]
            )
            spans += [np.array([[number, *span] for span in line_spans]).reshape(-1, 3)]
        if not spans:
            raise DataError(f"{config.path} holds no text: its files are empty or blank")
        self._spans = np.concatenate(spans)
        name = f"{config.path}, {config.pattern}"
        rules = f"split {RULES}" if config.sentences == "split" else config.sentences
        content = json.dumps([digests, config.documents, rules]).encode()
        self.fingerprint = _fingerprint(name, len(self._spans), content)

    @property
    def _by_blank_lines(self) -> bool:
        return self._config.documents == "blank_lines"

    def __len__(self) -> int:
        return len(self._spans)

    def read(self, indices: Sequence[int]) -> list[Document]:
        return [self._read(*map(int, self._spans[index])) for index in indices]

    def _read(self, file: int, start: int, stop: int) -> Document:
        lines = self._lines(self._files[file])
        if self._config.sentences == "lines":
            return [line for k in range(start, stop) if (line := lines[k].strip())]
        return [sentence for k in range(start, stop) for sentence in split_sentences(lines[k])]


def _spans_between_blank_lines(lines: Lines) -> np.ndarray:
    """First line and the line behind the last of every block of lines without a blank one."""
    filled = np.concatenate([[False], ~lines.blank(), [False]])
    return np.flatnonzero(filled[1:] != filled[:-1]).reshape(-1, 2)


@dataclass(frozen=True)
class TfdsDocuments(CheckedFields):
    """The texts of a TFDS set, such as Wikipedia, that lies prepared in `data_dir`."""

    name: str = "wikipedia/20230601.en"
    """TFDS name: builder/config, with `:version` behind it if not the newest is wanted."""
    split: str = "train"
    """Split, slices such as `train[:1%]` included."""
    feature: str = "text"
    """Feature that holds the text; each of its lines is cut into sentences."""
    min_words: NonNegativeInt = 4
    """Lines with fewer words are left out: headings and list items, as in BERT's section A.2. In
    scripts without white space every character counts as a word."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def open(self) -> Documents:
        """The documents, read from the files when asked for.

        Raises:
            DataError: the set is not there (with the command that prepares it), it is not in
                array_record, or it lacks the split or the feature.
        """
        if self.name.partition("/")[0] == "bookcorpus":
            raise DataError(f"TFDS has no bookcorpus: use TextFolder(path); {NOTHING_IN_TFDS}")
        return _TfdsDocuments(self)


class _TfdsDocuments(Documents):
    def __init__(self, config: TfdsDocuments):
        self._config = config
        self._rows = TfdsRows(config.name, config.split, (config.feature,), config.data_dir)
        content = json.dumps([self._rows.content, config.feature, config.min_words, RULES])
        name = f"{config.name} {self._rows.version}, {config.split}, {config.feature}"
        self.fingerprint = _fingerprint(name, len(self._rows), content.encode())

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Document]:
        rows = self._rows.read(indices)
        return [self._sentences(row[self._config.feature]) for row in rows]

    def _sentences(self, text: str) -> Document:
        lines = (line for line in text.splitlines() if count_words(line) >= self._config.min_words)
        return [sentence for line in lines for sentence in split_sentences(line)]


@dataclass(frozen=True)
class JoinedDocuments:
    """Several sources as one, such as BooksCorpus and Wikipedia, of which BERT learned."""

    sources: tuple[BundledDocuments | BundledHelpPages | TextFolder | TfdsDocuments, ...] = ()
    """The sources, whose documents come one after the other; batches mix them all."""

    def open(self) -> Documents:
        """The documents of all sources; raises DataError where one of them does."""
        if not self.sources:
            raise DataError("joined documents need at least one source")
        return _JoinedDocuments([source.open() for source in self.sources])


class _JoinedDocuments(Documents):
    def __init__(self, sources: Sequence[Documents]):
        self._parts = sources
        self._ends = np.cumsum([len(source) for source in sources])
        content = json.dumps([source.fingerprint["content"] for source in sources]).encode()
        name = " and ".join(str(source.fingerprint["source"]) for source in sources)
        self.fingerprint = _fingerprint(name, len(self), content)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Sequence[int]) -> list[Document]:
        numbers = np.searchsorted(self._ends, indices, side="right")
        documents: dict[int, Document] = {}
        for number, source in enumerate(self._parts):
            positions = np.flatnonzero(numbers == number)
            inside = [indices[k] - (int(self._ends[number]) - len(source)) for k in positions]
            documents |= zip(positions.tolist(), source.read(inside), strict=True)
        return [documents[position] for position in range(len(indices))]


def _fingerprint(source: str, documents: int, content: bytes) -> dict[str, Any]:
    return {
        "source": source,
        "documents": documents,
        "content": hashlib.sha256(content).hexdigest(),
    }
