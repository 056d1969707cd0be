"""Tokenizers behind one small interface."""

from __future__ import annotations

from jaxformers.text.base import (
    InputTemplate,
    Spans,
    Tokenizer,
    holds_tokenizer,
    listed_texts,
    load_tokenizer,
    plain_text,
    register_tokenizer,
)
from jaxformers.text.clip import CLIPTokenizer, SigLIPTokenizer
from jaxformers.text.huggingface import HuggingFaceTokenizer
from jaxformers.text.marian import Marian
from jaxformers.text.sentence_piece import SentencePiece
from jaxformers.text.unified_io import UnifiedIOTokenizer
from jaxformers.text.word_piece import WordPiece

__all__ = [
    "CLIPTokenizer",
    "HuggingFaceTokenizer",
    "InputTemplate",
    "Marian",
    "SentencePiece",
    "SigLIPTokenizer",
    "Spans",
    "Tokenizer",
    "UnifiedIOTokenizer",
    "WordPiece",
    "holds_tokenizer",
    "listed_texts",
    "load_tokenizer",
    "plain_text",
    "register_tokenizer",
]

# In the order in which a folder's files are asked for; families register further classes.
TOKENIZERS = (
    CLIPTokenizer,
    Marian,
    SigLIPTokenizer,
    HuggingFaceTokenizer,
    UnifiedIOTokenizer,
    SentencePiece,
    WordPiece,
)
for _class in TOKENIZERS:
    register_tokenizer(_class)
