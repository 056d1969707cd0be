"""The one interface that every tokenizer of the library has."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


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

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each (source) text, without special tokens."""
        ...

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for texts of the target side, where the two sides differ."""
        ...

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Target texts: everything from the first eos on is cut, special ids are dropped."""
        ...

    def save(self, folder: Any) -> None:
        """Write the tokenizer's files into `folder` (local or gs://), for `load_tokenizer`."""
        ...


def plain_text(text: str) -> str:
    """`text` in composed Unicode form (NFC), runs of any white space as one blank.

    Loses nothing that a translation is judged by, unlike sentencepiece's own NFKC rule, which
    makes three dots of an ellipsis and so keeps a model from ever writing one.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def until_eos(ids: Sequence[int], eos_id: int, dropped: set[int]) -> list[int]:
    """The ids before the first `eos_id`, without those in `dropped`."""
    tokens = []
    for index in map(int, ids):
        if index == eos_id:
            break
        if index not in dropped:
            tokens.append(index)
    return tokens
