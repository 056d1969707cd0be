"""The tokenizer of published MarianMT folders: two SentencePiece models and one vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import sentencepiece
from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import added_tokens
from jaxformers.text.base import listed_rows, listed_texts, until_eos, without_half_pairs
from jaxformers.text.json_files import read_bytes

SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE = "source.spm", "target.spm", "vocab.json"
SEPARATE_FILE = "target_vocab.json"
EOS, UNK, PAD = "</s>", "<unk>", "<pad>"
FILES = (SOURCE_FILE, TARGET_FILE, VOCABULARY_FILE)


class Marian:
    """MarianMT's tokenizer: a SentencePiece model a side, `vocab.json` for the ids of both.

    Decoding starts from pad, whose embedding is all zeros (Marian's zero start vector). A source
    may begin with a language code, `>>de<<`. Like transformers' `MarianTokenizer` this applies no
    Moses punctuation normalisation; unlike it, it reads `</s>` inside a text as plain characters.
    """

    FILE_NAMES: ClassVar[str] = f"{SOURCE_FILE} with {TARGET_FILE} and {VOCABULARY_FILE}"

    def __init__(self, source: bytes, target: bytes, vocabulary: bytes):
        self._files = (source, target, vocabulary)
        self._ids: dict[str, int] = json.loads(vocabulary)
        self._tokens = {index: token for token, index in self._ids.items()}
        self._source = _Side(source, self._ids)
        self._target = _Side(target, self._ids)
        self.vocab_size = max(self._tokens) + 1
        self.eos_id, self.unk_id, self.pad_id = (self._ids[token] for token in (EOS, UNK, PAD))
        self.start_id = self.pad_id
        self.fingerprint = hashlib.sha256(b"".join(map(_digest, self._files))).hexdigest()

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether a SentencePiece model of either side lies in `folder`."""
        return any((folder / name).exists() for name in (SOURCE_FILE, TARGET_FILE))

    @classmethod
    def load(cls, folder: Any) -> Marian:
        """The tokenizer in `folder`.

        Raises:
            UserError: a file is missing or damaged, the vocabulary lacks a special token, or the
                files state added tokens.
        """
        folder = epath.Path(folder)
        if missing := [name for name in FILES if not (folder / name).exists()]:
            raise UserError(f"the MarianMT tokenizer in {folder} lacks {', '.join(missing)}")
        if (folder / SEPARATE_FILE).exists():
            raise UserError(
                f"{folder} holds separate source and target vocabularies ({SEPARATE_FILE}), "
                "which are not supported: use a model with a shared vocabulary"
            )
        _check_added_tokens(folder)
        files = [read_bytes(folder / name) for name in FILES]
        _check_vocabulary(files[2], folder / VOCABULARY_FILE)
        try:
            return cls(*files)
        except RuntimeError:
            raise UserError(
                f"{SOURCE_FILE} or {TARGET_FILE} in {folder} is not a SentencePiece model"
            ) from None

    def save(self, folder: Any) -> None:
        """Write the three files into `folder`, byte for byte as they were loaded."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in zip(FILES, self._files, strict=True):
            (folder / name).write_bytes(content)

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the source pieces of each text, without eos."""
        return self._encode(self._source, texts)

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the target pieces of each text, without eos."""
        return self._encode(self._target, texts)

    def _encode(self, side: _Side, texts: str | Sequence[str]) -> list[list[int]]:
        texts = list(map(without_half_pairs, listed_texts(texts)))
        codes, bodies = zip(*map(_split_code, texts), strict=True) if texts else ((), ())
        rows = side.encode(list(bodies))
        return [
            [self._ids.get(code, self.unk_id), *row] if code else row
            for code, row in zip(codes, rows, strict=True)
        ]

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first eos; special ids and ids without a piece are dropped."""
        dropped = {self.pad_id, self.unk_id, self.start_id}
        rows = [until_eos(row, self.eos_id, dropped) for row in listed_rows(ids)]
        tokens = [[self._tokens[i] for i in row if i in self._tokens] for row in rows]
        return [self._target.join(row) for row in tokens]

    def __getstate__(self) -> tuple[bytes, bytes, bytes]:
        return self._files

    def __setstate__(self, files: tuple[bytes, bytes, bytes]) -> None:
        self.__init__(*files)


class _Side:
    """One side's SentencePiece model, with a table from its ids to those of the vocabulary."""

    def __init__(self, model: bytes, ids: dict[str, int]):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._ids = ids
        tokens = map(self._processor.id_to_piece, range(self._processor.get_piece_size()))
        self._table = np.array([ids.get(token, ids[UNK]) for token in tokens])
        self._unknown = self._processor.unk_id()

    def encode(self, texts: list[str]) -> list[list[int]]:
        rows = self._processor.encode(texts)
        return [
            self._encode_by_name(text) if self._unknown in row else self._table[row].tolist()
            for text, row in zip(texts, rows, strict=True)
        ]

    def _encode_by_name(self, text: str) -> list[int]:
        # A token that this side's model does not know may be in the shared vocabulary, as one of
        # the other side's.
        tokens = self._processor.encode(text, out_type=str)
        return [self._ids.get(token, self._ids[UNK]) for token in tokens]

    def join(self, tokens: list[str]) -> str:
        return self._processor.decode_pieces(tokens).replace("▁", " ").strip()


def _split_code(text: str) -> tuple[str, str]:
    """Splits `>>de<< words` into the language code, empty if there is none, and the text."""
    if text.startswith(">>") and (end := text.find("<<")) != -1:
        return text[: end + 2], text[end + 2 :]
    return "", text


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _check_added_tokens(folder: epath.Path) -> None:
    """Refuses special tokens of other names, and tokens to be matched in the text itself."""
    names = {token.content for token in added_tokens.read_roles(folder).values()}
    names |= {token.content for token in added_tokens.extra_special_tokens(folder)}
    names |= set(added_tokens.read(folder, {}))
    if unknown := sorted(names - {EOS, UNK, PAD}):
        raise UserError(
            f"{folder} states the added tokens {', '.join(unknown[:5])}, which a MarianMT "
            f"tokenizer here cannot obey: only {EOS}, {UNK} and {PAD} are supported"
        )


def _check_vocabulary(content: bytes, file: epath.Path) -> None:
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not valid JSON, or it is damaged") from None
    if not isinstance(ids, dict) or not all(type(i) is int and i >= 0 for i in ids.values()):
        raise UserError(f"{file} must be a table of tokens and their ids")
    if missing := [token for token in (EOS, UNK, PAD) if token not in ids]:
        raise UserError(f"{file} lacks the special tokens {', '.join(missing)}")
