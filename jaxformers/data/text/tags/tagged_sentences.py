"""What every source of tagged sentences gives, held in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from jaxformers.data.text.tags.schemes import Scheme, tag_names, to_iob2
from jaxformers.errors import DataError
from jaxformers.fields import CheckedFields


class Sentence(NamedTuple):
    """A sentence as it was read."""

    where: str
    """File and line, for messages."""
    words: list[str]
    tags: list[str]
    """Of the set's scheme, one for each word."""


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences as words and tags; the tags of entities are IOB2, whatever the source has."""

    source: str
    """File or data set."""
    words: list[list[str]]
    tags: list[list[str]]
    scheme: Scheme
    """Of the source."""

    def __len__(self) -> int:
        return len(self.words)

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The classes that the tags need, in a fixed order; see `schemes.tag_names`."""
        return tag_names(set(chain.from_iterable(self.tags)), self.scheme)

    @property
    def fingerprint(self) -> dict[str, str | int]:
        """Source, number and content hash of the sentences."""
        digest = hashlib.sha256(json.dumps([self.words, self.tags]).encode()).hexdigest()
        return {"source": self.source, "sentences": len(self), "content": digest}


class TaggedSource(CheckedFields):
    """Base class of the sources: configuration whose `open` reads the sentences."""

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The classes, where they are known without reading the set; else empty."""
        return ()

    def open(self) -> TaggedSentences:
        """Reads the sentences.

        Raises:
            DataError: missing or malformed data; the file and the line are named.
        """
        raise NotImplementedError


def tagged_sentences(sentences: Iterable[Sentence], scheme: Scheme, source: str) -> TaggedSentences:
    """The sentences with their tags in IOB2; sentences without a word are left out.

    Raises:
        DataError: no sentence, an empty word or tag, another number of tags than of words, or a
            tag that the scheme does not allow.
    """
    words, tags = [], []
    for sentence in sentences:
        if not (sentence.words or sentence.tags):
            continue
        if len(sentence.words) != len(sentence.tags):
            raise DataError(
                f"{sentence.where}: {len(sentence.words)} words, but {len(sentence.tags)} tags"
            )
        for number, (word, tag) in enumerate(zip(*sentence[1:], strict=True), 1):
            if not (word.strip() and tag.strip()):
                raise DataError(f"{sentence.where}: word {number} or its tag is empty")
        words.append(sentence.words)
        tags.append(to_iob2(sentence.tags, scheme, sentence.words, sentence.where))
    if not words:
        raise DataError(f"{source} holds no sentence")
    return TaggedSentences(source, words, tags, scheme)
