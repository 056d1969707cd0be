"""Tokenizers behind one small interface."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import marian, sentence_piece
from jaxformers.text.base import Tokenizer, plain_text
from jaxformers.text.marian import Marian
from jaxformers.text.sentence_piece import SentencePiece

__all__ = ["Marian", "SentencePiece", "Tokenizer", "load_tokenizer", "plain_text"]


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
    raise UserError(
        f"no tokenizer in {folder}: looked for {sentence_piece.MODEL_FILE}, "
        f"and for {marian.SOURCE_FILE} with {marian.TARGET_FILE} and {marian.VOCABULARY_FILE}"
    )
