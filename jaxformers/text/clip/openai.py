"""CLIP's tokenizer: byte-level pairs over cleaned, lower-cased words (Radford et al. 2021).

The vocabulary is fixed: 256 bytes, the same 256 at a word's end, 48,894 merges, and the marks of a
text's start and end. A text is cleaned and cut into words here, as OpenAI's code does; the
`tokenizers` library merges the pairs of each word. Its own splitting would differ on letters that
its Unicode tables lack, and Hugging Face's CLIP tokenizer on text that needs mending.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache, cached_property
from importlib import resources
from typing import Any, ClassVar

import ftfy
import numpy as np
import regex
from etils import epath
from jaxtyping import Int
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from jaxformers.errors import DataError, UserError
from jaxformers.text.base import (
    InputTemplate,
    Tokenizer,
    listed_rows,
    listed_texts,
    without_half_pairs,
)
from jaxformers.text.json_files import read_bytes

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
FILE = "openai_clip.json"
CONTEXT_LENGTH = 77
WORDS = regex.compile(
    rf"{regex.escape(START)}|{regex.escape(END)}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]"
    r"|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
SPACES = regex.compile(r"\s+")


class CLIPTokenizer:
    """OpenAI's tokenizer of CLIP.

    Attributes:
        vocab_size: 49,408.
        start_id, eos_id: ids of the marks of a text's start and end, 49,406 and 49,407.
        pad_id: 0, as in OpenAI's code; what follows the end of a text never counts.
        unk_id: `eos_id`; no text needs it, as every byte has a token.
        template: the start before a text and the end behind it.
    """

    FILE_NAMES: ClassVar[str] = FILE

    def __init__(self):
        self._backend = _backend()
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)
        self.start_id, self.eos_id = self.vocab_size - 2, self.vocab_size - 1
        self.pad_id, self.unk_id = 0, self.eos_id
        start, end = (self.start_id,), (self.eos_id,)
        self.template = InputTemplate((start, end), (start, (), end), 0)
        self.fingerprint = hashlib.sha256(_merges_file()).hexdigest()

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether `save` wrote the tokenizer into `folder`."""
        return (folder / FILE).exists()

    @classmethod
    def load(cls, folder: Any) -> CLIPTokenizer:
        """The tokenizer that `save` wrote into `folder`.

        Raises:
            UserError: the file is of another vocabulary.
        """
        file, tokenizer = epath.Path(folder) / FILE, cls()
        if read_bytes(file).decode(errors="replace").strip() != tokenizer._marker:
            raise UserError(f"{file}: not the CLIP vocabulary of this version")
        return tokenizer

    def save(self, folder: Any) -> None:
        """Write the tokenizer for `load_tokenizer`, and Hugging Face's `vocab.json` and files.

        transformers' CLIP tokenizer reads the latter; it cleans texts less (no mending of broken
        Unicode, no HTML entities).
        """
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        merges = gzip.decompress(_merges_file()).decode()
        vocabulary = sorted(self._backend.get_vocab().items(), key=lambda entry: entry[1])
        special = dict.fromkeys(("unk_token", "eos_token", "pad_token"), END)
        settings = {"tokenizer_class": "CLIPTokenizer", "bos_token": START} | special
        settings |= {"model_max_length": CONTEXT_LENGTH}
        (folder / FILE).write_text(self._marker + "\n")
        (folder / "vocab.json").write_text(json.dumps(dict(vocabulary)))
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, without start and end.

        The marks of start and end, written in a text, give their ids, as in OpenAI's code.
        """
        rows = [split_words(text) for text in listed_texts(texts)]
        encodings = self._backend.encode_batch_fast(
            rows, is_pretokenized=True, add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids as of `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Cleaned, lower-case texts up to the first end, with a blank after each word.

        Raises:
            DataError: an id beyond the vocabulary.
        """
        texts = []
        for row in listed_rows(ids):
            if row and not 0 <= min(row) <= max(row) < self.vocab_size:
                raise DataError(f"ids {row[:5]}... are not all below {self.vocab_size}")
            row = row[: row.index(self.eos_id)] if self.eos_id in row else row
            tokens = [self._vocabulary[i] for i in row if i != self.start_id]
            texts.append(decoders.ByteLevel().decode(tokens).replace(WORD_END, " ").strip())
        return texts

    @cached_property
    def _vocabulary(self) -> dict[int, str]:
        return {index: token for token, index in self._backend.get_vocab().items()}

    @property
    def _marker(self) -> str:
        return json.dumps({"tokenizer": "openai_clip", "merges": self.fingerprint})

    def __getstate__(self) -> tuple[()]:
        return ()

    def __setstate__(self, state: tuple[()]) -> None:
        self.__init__()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


def padded_rows(
    tokenizer: Tokenizer, texts: str | Sequence[str], length: int, *, truncate: bool = True
) -> Int[np.ndarray, "N L"]:
    """Ids of texts with their marks of start and end, padded to `length`: int32 `[N, length]`.

    Args:
        tokenizer: whose `template` says what stands around a text; without one, its end alone.
        texts: one or several.
        length: L.
        truncate: cut longer texts, the end of text kept; False: refuse them.

    Raises:
        DataError: a text is longer and may not be cut.
    """
    before, behind = _marks(tokenizer)
    space = length - len(before) - len(behind)
    rows = np.full((len(texts := listed_texts(texts)), length), tokenizer.pad_id, np.int32)
    for row, text, ids in zip(rows, texts, tokenizer.encode(texts), strict=True):
        if len(ids) > space and not truncate:
            raise DataError(f"{text!r:.60} has {len(ids)} tokens; the model takes {space}")
        tokens = [*before, *ids[:space], *behind]
        row[: len(tokens)] = tokens
    return rows


def count_cut(tokenizer: Tokenizer, texts: str | Sequence[str], length: int) -> int:
    """The number of texts that `padded_rows` cuts to `length` tokens, marks included."""
    space = length - sum(map(len, _marks(tokenizer)))
    return sum(len(ids) > space for ids in tokenizer.encode(texts))


def _marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and behind a text: those of the tokenizer's template, else its end alone."""
    template = getattr(tokenizer, "template", None)
    return template.single if template else ((), (tokenizer.eos_id,))


def clean(text: str) -> str:
    """OpenAI's cleaning: broken Unicode mended, HTML entities twice, white space, lower case."""
    text = ftfy.fix_text(without_half_pairs(text))
    text = html.unescape(html.unescape(text)).strip()
    return SPACES.sub(" ", text).strip().lower()


def split_words(text: str) -> list[str]:
    """The words of a text, cleaned: contractions, runs of letters, single digits, other runs."""
    return WORDS.findall(clean(text))


@cache
def _merges_file() -> bytes:
    return (resources.files("jaxformers.text") / "bundled" / "clip_merges.txt.gz").read_bytes()


@cache
def _backend() -> Backend:
    """Merges of a word already split: bytes as characters, `</w>` behind the last."""
    merges = [tuple(line.split()) for line in gzip.decompress(_merges_file()).decode().splitlines()]
    # Sorted, the characters that stand for bytes are in the order of OpenAI's vocabulary: the
    # printable bytes keep their code points, and the others follow from 256 on.
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*characters, *(c + WORD_END for c in characters), *map("".join, merges)]
    model = models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        end_of_word_suffix=WORD_END,
    )
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.add_special_tokens([AddedToken(START, special=True), AddedToken(END, special=True)])
    return backend
