"""Tokenizers behind one small interface."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import clip, huggingface_files, marian, sentence_piece, word_piece_files
from jaxformers.text.base import InputTemplate, Spans, Tokenizer, listed_texts, plain_text
from jaxformers.text.clip import CLIPTokenizer
from jaxformers.text.huggingface import HuggingFaceTokenizer
from jaxformers.text.marian import Marian
from jaxformers.text.sentence_piece import SentencePiece
from jaxformers.text.word_piece import WordPiece

__all__ = [
    "CLIPTokenizer",
    "HuggingFaceTokenizer",
    "InputTemplate",
    "Marian",
    "SentencePiece",
    "Spans",
    "Tokenizer",
    "WordPiece",
    "holds_tokenizer",
    "listed_texts",
    "load_tokenizer",
    "plain_text",
]


def load_tokenizer(folder: Any) -> Tokenizer:
    """The tokenizer whose files lie in `folder`, recognised by their names.

    `vocab.txt` alone is a `WordPiece`; with a `tokenizer.json`, or with added tokens beside it, it
    is a `HuggingFaceTokenizer`.

    Raises:
        UserError: `folder` holds none; the message names the files that were looked for.
    """
    folder = epath.Path(folder)
    if kind := _kind(folder):
        return kind.load(folder)
    raise UserError(
        f"no tokenizer in {folder}: looked for {clip.FILE}, {sentence_piece.MODEL_FILE}, "
        f"for {marian.SOURCE_FILE} with {marian.TARGET_FILE} and {marian.VOCABULARY_FILE}, for "
        f"{word_piece_files.MODEL_FILE}, {word_piece_files.VOCABULARY_FILE}, and for "
        f"{huggingface_files.BPE_FILE} with {huggingface_files.MERGES_FILE}"
    )


def holds_tokenizer(folder: Any) -> bool:
    """Whether `folder` has the files of a tokenizer."""
    return _kind(epath.Path(folder)) is not None


def _kind(folder: epath.Path) -> type | None:
    """The class that reads the tokenizer's files in `folder`; None: there are none."""
    if (folder / clip.FILE).exists():
        return CLIPTokenizer
    if any((folder / name).exists() for name in (marian.SOURCE_FILE, marian.TARGET_FILE)):
        return Marian
    if huggingface_files.needs_tokenizers_library(folder):
        return HuggingFaceTokenizer
    if (folder / sentence_piece.MODEL_FILE).exists():
        return SentencePiece
    return WordPiece if (folder / word_piece_files.VOCABULARY_FILE).exists() else None
