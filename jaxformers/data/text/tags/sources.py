"""Sources of tagged sentences: CoNLL columns, TSV, JSON lines, TFDS, and a bundled set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from jaxformers.data.files.json_text import parse_json
from jaxformers.data.files.line_index import Lines
from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.data.text.labelled_texts import filled_lines
from jaxformers.data.text.tags.schemes import Scheme
from jaxformers.data.text.tags.tagged_sentences import (
    Sentence,
    TaggedSentences,
    TaggedSource,
    tagged_sentences,
)
from jaxformers.data.translation.sources import BundledPairs
from jaxformers.errors import DataError
from jaxformers.fields import NonNegativeInt, PositiveInt

BLANKS = re.compile(r"[ \t]+")
DOCUMENT_START = "-DOCSTART-"  # CoNLL-2003's first word of each document, which is no sentence
CHUNK = 1024
WORDS_AND_MARKS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class ConllFile(TaggedSource):
    """A file in CoNLL columns: a word and its annotations a line, a blank line behind a sentence.

    The word is the first column and the tag the last, as in CoNLL-2003; columns are divided by
    blanks or tabs. Lines that begin with -DOCSTART- are left out. Plain or `.gz`.
    """

    path: str = ""
    """The file, local or gs://."""
    scheme: Scheme = "IOB2"
    """Of the tags; that of CoNLL-2003's own files is IOB1."""
    word_column: NonNegativeInt = 0
    tag_column: NonNegativeInt | None = None
    """None: the last one."""
    comment: str = ""
    """What lines begin with that are left out, such as "# "; empty: none are."""

    def open(self) -> TaggedSentences:
        """The sentences of the file."""
        return tagged_sentences(self._sentences(), self.scheme, self.path)

    def _sentences(self) -> Iterator[Sentence]:
        lines, sentence, num_columns = _lines(self.path), Sentence("", [], []), 0
        for index in range(len(lines)):
            line, where = lines[index].strip(), f"{self.path}, line {index + 1:,}"
            if not line:
                yield sentence
                sentence = Sentence("", [], [])
            if not line or line.startswith(DOCUMENT_START) or self._is_comment(line):
                continue
            columns = BLANKS.split(line)
            num_columns = num_columns or self._checked_columns(columns, where)
            if len(columns) != num_columns:
                raise DataError(
                    f"{where}: {len(columns)} columns, but the lines before it have {num_columns}"
                )
            if not sentence.words:
                sentence = Sentence(where, [], [])
            sentence.words.append(columns[self.word_column])
            sentence.tags.append(columns[-1 if self.tag_column is None else self.tag_column])
        yield sentence

    def _is_comment(self, line: str) -> bool:
        return bool(self.comment) and line.startswith(self.comment)

    def _checked_columns(self, columns: list[str], where: str) -> int:
        """How many columns the first line has; raises DataError where one that is read lacks."""
        needed = 1 + max(self.word_column, self.tag_column or 0)
        if len(columns) < max(needed, 2):
            raise DataError(
                f"{where}: {len(columns)} column(s), but column {max(needed, 2) - 1} (counted from "
                "0) is read: set the data's word-column and tag-column"
            )
        return len(columns)


@dataclass(frozen=True)
class TsvTags(TaggedSource):
    """A sentence a line: its words, divided by blanks, a tab, and as many tags. Plain or `.gz`."""

    path: str = ""
    """The file, local or gs://."""
    scheme: Scheme = "IOB2"
    """Of the tags."""

    def open(self) -> TaggedSentences:
        """The sentences of the file."""
        return tagged_sentences(self._sentences(), self.scheme, self.path)

    def _sentences(self) -> Iterator[Sentence]:
        for number, line in filled_lines(self.path):
            where, columns = f"{self.path}, line {number:,}", line.split("\t")
            if len(columns) != 2:
                raise DataError(
                    f"{where}: {len(columns)} tab-separated column(s); a line has two, the words "
                    "and the tags, divided by blanks"
                )
            yield Sentence(where, *(column.split() for column in columns))


@dataclass(frozen=True)
class JsonlTags(TaggedSource):
    """A JSON object a line with a list of words and a list of tags. Plain or `.gz`."""

    path: str = ""
    """The file, local or gs://."""
    scheme: Scheme = "IOB2"
    """Of the tags."""
    words: str = "tokens"
    """Key of the words."""
    tags: str = "ner_tags"
    """Key of the tags: names, or numbers of `names`."""
    names: tuple[str, ...] = ()
    """The tags in the order of their numbers from 0; empty: the file holds names."""

    def open(self) -> TaggedSentences:
        """The sentences of the file."""
        rows = (self._sentence(*row) for row in filled_lines(self.path))
        return tagged_sentences(rows, self.scheme, self.path)

    def _sentence(self, number: int, line: str) -> Sentence:
        where = f"{self.path}, line {number:,}"
        try:
            row = parse_json(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{where}: no JSON object")
        words, tags = (_list_of(row, key, where) for key in (self.words, self.tags))
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{where}: {self.words!r} holds something else than texts")
        return Sentence(where, words, [self._tag(tag, where) for tag in tags])

    def _tag(self, value: Any, where: str) -> str:
        if isinstance(value, str):
            return value
        if type(value) is int and 0 <= value < len(self.names):
            return self.names[value]
        mend = "; set the data's names" * (type(value) is int)
        raise DataError(f"{where}: {value!r:.80} is no tag of {self.tags!r}{mend}")


@dataclass(frozen=True)
class TfdsTags(TaggedSource):
    """A tagged set as TFDS keeps it, prepared in `data_dir` as array_record."""

    name: str = "conll2003"
    """TFDS name: `conll2003`, `conll2002/es`, ..., with `:version` for another than the newest."""
    split: str = "train"
    """Split, slices such as `train[:1%]` included; CoNLL's are train, dev and test."""
    feature: str = "ner"
    """The annotation that is learned; CoNLL-2003 also has `chunks` and `pos`."""
    scheme: Scheme = "IOB2"
    """Of the tags; "none" for `pos`."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def open(self) -> TaggedSentences:
        """The sentences in the order of the prepared files."""
        rows = TfdsRows(self.name, self.split, ["tokens", self.feature], self.data_dir)
        feature = getattr(rows.info.features[self.feature], "feature", None)
        names = getattr(feature, "names", None)
        if names is None:
            raise DataError(f"{self.name}: the feature {self.feature!r} is no sequence of classes")
        source = f"{self.name} {rows.version}, {self.split}"
        return tagged_sentences(self._sentences(rows, names, source), self.scheme, source)

    def _sentences(self, rows: TfdsRows, names: list[str], source: str) -> Iterator[Sentence]:
        for start in range(0, len(rows), CHUNK):
            chunk = rows.read(range(start, min(start + CHUNK, len(rows))))
            for number, row in enumerate(chunk, start + 1):
                tags = [names[int(index)] for index in row[self.feature]]
                yield Sentence(f"{source}, sentence {number:,}", list(row["tokens"]), tags)


@dataclass(frozen=True)
class BundledEntities(TaggedSource):
    """Sentences inside the package whose capitalised words and numbers are tagged by rule.

    For rehearsals and tests, which must work offline: NAME is a run of capitalised words that are
    not the sentence's first, NUMBER a run of digits. The set measures nothing. It is the same every
    time.
    """

    split: Literal["train", "held_out"] = "train"
    """Sentences of different documents."""
    count: PositiveInt = 96
    """How many sentences."""

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The tags of words outside, of names, and of numbers."""
        return ("O", "B-NAME", "I-NAME", "B-NUMBER", "I-NUMBER")

    def open(self) -> TaggedSentences:
        """The sentences, tagged anew."""
        pairs = BundledPairs("en-de", self.split, min_source_words=5, max_source_words=14).open()
        texts = pairs.read(evenly_spaced(len(pairs), self.count).tolist())
        source = f"bundled entities, {self.split}"
        return tagged_sentences((_tag_by_rule(text, source) for text, _ in texts), "IOB2", source)


def _tag_by_rule(text: str, source: str) -> Sentence:
    words, tags, previous = WORDS_AND_MARKS.findall(text), [], "O"
    for index, word in enumerate(words):
        name = index > 0 and word[0].isupper()
        entity_type = "NUMBER" if word.isdecimal() else "NAME" if name else ""
        prefix = "I" if previous[2:] == entity_type else "B"
        previous = f"{prefix}-{entity_type}" if entity_type else "O"
        tags.append(previous)
    return Sentence(source, words, tags)


def _lines(path: str) -> Lines:
    if not path:
        raise DataError("no file is named: set the data's path")
    return Lines(path)


def _list_of(row: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(row.get(key), list):
        raise DataError(f"{where}: {key!r} holds no list; the keys are {', '.join(row)}")
    return row[key]
