"""The one interface that every tokenizer has, and the registry by which a folder's is found.

Model families register the classes of theirs, so that a plug-in's tokenizer is loaded as ours are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from etils import epath

from jaxformers.errors import DataError, UserError, folder_contents

HALF_PAIR = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    `start_id` is the id that the decoder starts from; `fingerprint` is the SHA-256 of the model.
    """

    vocab_size: int
    pad_id: int
    eos_id: int
    unk_id: int
    start_id: int
    fingerprint: str

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each (source) text, without special tokens.

        A single text is a list of one. Half of a surrogate pair is read as U+FFFD.

        Raises:
            DataError: `texts` is no text and no sequence of texts.
        """
        ...

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The same for texts of the target side, where the two sides differ."""
        ...

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Target texts: everything from the first eos on is cut, special ids are dropped.

        A single row of ids is a list of one.
        """
        ...

    def save(self, folder: Any) -> None:
        """Write the tokenizer's files into `folder` (local or gs://), for `load_tokenizer`."""
        ...


class Spans(NamedTuple):
    """The pieces of a text and where each lies in it.

    Attributes:
        ids: ids of the pieces, without special tokens.
        starts, ends: of each piece, its first character in the text and one past its last.
    """

    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


class InputTemplate(NamedTuple):
    """The special tokens that an encoder reads around one text and around a pair of texts.

    Attributes:
        single: ids before and behind one text: ([CLS],), ([SEP],) in BERT.
        pair: ids before the first text, between the texts, and behind the second.
        second_type: the segment of the second text and of what stands behind it, 1 in BERT and 0
            in RoBERTa; everything before it is segment 0.
    """

    single: tuple[tuple[int, ...], tuple[int, ...]]
    pair: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    second_type: int

    @property
    def single_size(self) -> int:
        """Number of special tokens around one text."""
        return sum(map(len, self.single))

    @property
    def pair_size(self) -> int:
        """Number of special tokens around a pair of texts."""
        return sum(map(len, self.pair))

    def arrange(self, first: Sequence[int], second: Sequence[int] = ()) -> list[int]:
        """Ids of one text or, where `second` has any, of a pair, special tokens included."""
        if not second:
            before, behind = self.single
            return [*before, *first, *behind]
        before, between, behind = self.pair
        return [*before, *first, *between, *second, *behind]


def listed_texts(texts: Any) -> list[str]:
    """`texts` as a list; a single text becomes a list of one.

    Raises:
        DataError: a dictionary, bytes, or anything else that is not a text or several texts.
    """
    return list(iterate_texts(texts))


def iterate_texts(texts: Any) -> Iterator[str]:
    """Yields each text, or the one; raises as `listed_texts`."""
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, Mapping | bytes | Set) or not isinstance(texts, Iterable):
        raise DataError(f"expected a text or a list of texts, not a {type(texts).__name__}")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"text {number} is {text!r:.80}, not a text")
        yield text


def listed_rows(ids: Any) -> list[list[int]]:
    """`ids` as a list of rows; a single row becomes a list of one."""
    rows = list(ids)
    if rows and np.ndim(rows[0]) == 0:
        rows = [rows]
    return [list(map(int, row)) for row in rows]


def without_half_pairs(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair, which no UTF-8 can hold.

    Offsets into the text stay as they were.
    """
    return HALF_PAIR.sub(REPLACEMENT, text)


def plain_text(text: str) -> str:
    """`text` in composed Unicode form (NFC), runs of any white space as one blank.

    Loses nothing that a translation's metrics measure, unlike sentencepiece's own NFKC rule, which
    makes three dots of an ellipsis and so keeps a model from ever writing one. Half of a surrogate
    pair becomes U+FFFD.
    """
    return " ".join(unicodedata.normalize("NFC", without_half_pairs(text)).split())


def until_eos(ids: Sequence[int], eos_id: int, dropped: set[int]) -> list[int]:
    """The ids before the first `eos_id`, without those in `dropped`."""
    tokens = []
    for index in map(int, ids):
        if index == eos_id:
            break
        if index not in dropped:
            tokens.append(index)
    return tokens


# ---------------------------------------------------------------- the registry of tokenizers


class TokenizerClass(Protocol):
    """The class attributes and methods that the registry needs of a tokenizer's class."""

    FILE_NAMES: ClassVar[str]
    """The files that it reads, for the message where a folder holds none."""

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether the files in `folder` are this class's."""
        ...

    @classmethod
    def load(cls, folder: Any) -> Tokenizer:
        """The tokenizer in `folder`; raises UserError where its files cannot be used."""
        ...


Class = TypeVar("Class", bound=type[TokenizerClass])
_classes: list[type[TokenizerClass]] = []


def register_tokenizer(tokenizer_class: Class) -> Class:
    """Makes a class known to `load_tokenizer`, behind those that are; a class may come again."""
    if tokenizer_class not in _classes:
        _classes.append(tokenizer_class)
    return tokenizer_class


def load_tokenizer(folder: Any) -> Tokenizer:
    """The tokenizer whose files lie in `folder`, recognised by their names.

    `vocab.txt` alone is a `WordPiece`; with a `tokenizer.json`, or with added tokens, it is a
    `HuggingFaceTokenizer`.

    Raises:
        UserError: `folder` holds none; the message names the files that were looked for.
    """
    folder = epath.Path(folder)
    if tokenizer_class := _class_for(folder):
        return tokenizer_class.load(folder)
    names = ", for ".join(tokenizer_class.FILE_NAMES for tokenizer_class in _classes)
    raise UserError(f"no tokenizer in {folder}: looked for {names}; {folder_contents(folder)}")


def holds_tokenizer(folder: Any) -> bool:
    """Whether `folder` has the files of a tokenizer."""
    return _class_for(epath.Path(folder)) is not None


def _class_for(folder: epath.Path) -> type[TokenizerClass] | None:
    return next((entry for entry in _classes if entry.recognises(folder)), None)
