"""Tokenizers behind one small interface."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import marian, sentence_piece, word_piece_files
from jaxformers.text.base import Tokenizer, plain_text
from jaxformers.text.marian import Marian
from jaxformers.text.sentence_piece import SentencePiece
from jaxformers.text.word_piece import Spans, WordPiece

__all__ = [
    "Marian",
    "SentencePiece",
    "Spans",
    "Tokenizer",
    "WordPiece",
    "load_tokenizer",
    "plain_text",
]


def load_tokenizer(folder: Any) -> Tokenizer:
    """The tokenizer whose files lie in `folder`, recognised by their names.

    Raises:
        UserError: `folder` holds none; the message names the files that were looked for.
    """
    folder = epath.Path(folder)
    if (folder / sentence_piece.MODEL_FILE).exists():
        return SentencePiece.load(folder)
    if any((folder / name).exists() for name in (marian.SOURCE_FILE, marian.TARGET_FILE)):
        return Marian.load(folder)
    if word_piece_files.holds_word_piece(folder):
        return WordPiece.load(folder)
    raise UserError(
        f"no tokenizer in {folder}: looked for {sentence_piece.MODEL_FILE}, "
        f"for {marian.SOURCE_FILE} with {marian.TARGET_FILE} and {marian.VOCABULARY_FILE}, and for "
        f"{word_piece_files.VOCABULARY_FILE} or a WordPiece {word_piece_files.MODEL_FILE}"
    )
