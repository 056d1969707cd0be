"""Tokenizers of Hugging Face's `tokenizer.json`, run by the `tokenizers` library.

What the file states (normalizer, pre-tokenizer, model, added tokens, post-processor) is obeyed as
that library obeys it: WordPiece with added tokens, RoBERTa's byte-level pairs, Unigram models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tokenizers
from etils import epath

from jaxformers.errors import DataError, UserError
from jaxformers.text import huggingface_files
from jaxformers.text.base import (
    InputTemplate,
    Spans,
    listed_rows,
    listed_texts,
    until_eos,
    without_half_pairs,
)
from jaxformers.text.post_processor import read_template
from jaxformers.text.word_piece_files import MODEL_FILE, SETTINGS_FILE

# How the piece that begins a word is marked, by the type of the decoder.
WORD_STARTS = {"ByteLevel": "Ġ", "Metaspace": "▁"}
NO_ID = -1
PROBE = "a B\u00e9 \u4e2d 1."  # encoded once, so that a tokenizer that cannot work is refused


@contextmanager
def _library_errors(failure: str) -> Iterator[None]:
    """Raises UserError in one line for what the tokenizers library raises, panics included."""
    try:
        yield
    except BaseException as error:
        # A panic of Rust code is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"the tokenizers library {failure}: {reason:.200}") from None


class HuggingFaceTokenizer:
    """The tokenizer of a `tokenizer.json` behind the `Tokenizer` interface.

    Added tokens are recognised in a text with their `lstrip`, `rstrip`, `single_word` and
    `normalized`. The names of the special tokens that have a role ("[SEP]", "<mask>") are not: in a
    text they are plain characters; `encode_with_masks` recognises the mask. Truncation and padding
    that the file states are left to the caller.

    Attributes:
        vocab_size: the largest id and one.
        vocabulary: the piece of each id; empty where an id has none.
        template: the special tokens around a text or a pair of texts.
        cls_id, eos_id, sep_id, mask_id, pad_id, unk_id, start_id: `eos_id` is `sep_id`, `start_id`
            is `cls_id`; -1: there is no such token (mask and unk only).
        continues: `continues[i]` says whether piece i goes on with a word.
        continuation_prefix: the mark of the pieces that do ("##"); empty: those that begin a word
            are marked, or none.
    """

    FILE_NAMES: ClassVar[str] = (
        f"{MODEL_FILE}, for {huggingface_files.BPE_FILE} with {huggingface_files.MERGES_FILE}"
    )

    def __init__(self, content: str, roles: dict[str, str], settings: dict[str, Any] | None = None):
        """Build the tokenizer.

        Args:
            content: of a `tokenizer.json` with every added token.
            roles: special tokens by "unk", "sep", "pad", "cls", "mask"; "bos" and "eos" stand for
                a missing "cls" and "sep".
            settings: of a `tokenizer_config.json`, which `save` writes again.

        Raises:
            UserError: the tokenizers library cannot use it, or it states what is not supported.
        """
        self._state = (content, dict(roles), settings or {})
        self._content: dict[str, Any] = json.loads(content)
        unknown = self._content["model"].get("unk_token")
        self._roles = {"cls": roles.get("bos"), "sep": roles.get("eos"), "unk": unknown} | roles
        self._backend = self._build(set(roles.values()))
        ids = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        vocabulary = [""] * self.vocab_size
        for token, index in ids.items():
            vocabulary[index] = token
        self.vocabulary = tuple(vocabulary)
        self.pad_id, self.cls_id, self.sep_id = (self._role_id(r) for r in ("pad", "cls", "sep"))
        self.unk_id, self.mask_id = (ids.get(self._roles.get(r), NO_ID) for r in ("unk", "mask"))
        self.eos_id, self.start_id = self.sep_id, self.cls_id
        self.template: InputTemplate = read_template(self._content.get("post_processor"), ids)
        special = [token["id"] for token in self._content["added_tokens"] if token["special"]]
        self._special_ids = {*special, self.pad_id, self.unk_id, self.cls_id, self.mask_id}
        model = self._content["model"]
        self.continuation_prefix: str = model.get("continuing_subword_prefix") or ""
        self.continues = np.array([self._continues(token) for token in vocabulary], bool)
        stated = json.dumps([content, sorted(roles.items()), self._splits_special_tokens])
        self.fingerprint = hashlib.sha256(stated.encode()).hexdigest()

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether the files in `folder` state more than a `WordPiece` can obey."""
        return huggingface_files.needs_tokenizers_library(folder)

    @classmethod
    def load(cls, folder: Any) -> HuggingFaceTokenizer:
        """The tokenizer in `folder`: `tokenizer.json`, or older files, merged as in transformers.

        Raises:
            UserError: a file is missing or damaged, or states what is not supported.
        """
        folder = epath.Path(folder)
        files = huggingface_files.read(folder)
        try:
            return cls(json.dumps(files.content), files.roles, files.settings)
        except UserError as error:
            raise UserError(f"the tokenizer in {folder}: {error}") from None

    def save(self, folder: Any) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers reads too."""
        content, roles, settings = self._state
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Named by its generic class, the tokenizer goes by tokenizer.json alone.
        settings = settings | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.pop("added_tokens_decoder", None)
        settings |= {f"{role}_token": token for role, token in roles.items()}
        (folder / MODEL_FILE).write_text(content)
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, without special tokens; threads share many texts."""
        return self._ids(self._backend, texts)

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids as of `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def encode_with_masks(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The same, with `mask_id` where the mask token is written in a text.

        Raises:
            DataError: the tokenizer has no mask token.
        """
        if self.mask_id == NO_ID:
            raise DataError("the tokenizer states no mask_token, so no text can hold a mask")
        return self._ids(self._masking_backend, texts)

    def spans(self, texts: str | Sequence[str]) -> list[Spans]:
        """Ids as of `encode`, with the offsets of each piece in its text."""
        texts = list(map(without_half_pairs, listed_texts(texts)))
        with _library_errors("cannot cut these texts"):
            rows = self._backend.encode_batch(texts, add_special_tokens=False)
        offsets = [np.array(row.offsets, int).reshape(-1, 2) for row in rows]
        return [Spans(row.ids, *bounds.T) for row, bounds in zip(rows, offsets, strict=True)]

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first `sep_id`, without special ids and ids without a piece."""
        rows = [until_eos(row, self.sep_id, self._special_ids) for row in listed_rows(ids)]
        rows = [[i for i in row if 0 <= i < self.vocab_size and self.vocabulary[i]] for row in rows]
        return self._backend.decode_batch(rows, skip_special_tokens=False)

    def token_text(self, index: int) -> str:
        """The text of one token, as transformers' pipelines show it; empty: there is none."""
        name = self.vocabulary[index] if 0 <= index < self.vocab_size else ""
        if not name or any(token["id"] == index for token in self._content["added_tokens"]):
            return name
        return self._backend.decode([index], skip_special_tokens=False)

    @property
    def mask_token(self) -> str:
        """How a mask is written in a text; empty: there is none."""
        return self._roles.get("mask", "")

    @property
    def _splits_special_tokens(self) -> bool:
        """Whether every special token in a text is plain characters, those without a role too."""
        return self._state[2].get("split_special_tokens") is True

    @cached_property
    def _masking_backend(self) -> tokenizers.Tokenizer:
        return self._build(set(self._state[1].values()) - {self.mask_token})

    def _build(self, plain: set[str]) -> tokenizers.Tokenizer:
        """The library's tokenizer, to which the names in `plain` are plain characters."""
        split = self._splits_special_tokens
        tokens = [
            token | {"special": token["content"] in plain or (split and token["special"])}
            for token in self._content["added_tokens"]
        ]
        changed = {"added_tokens": tokens, "truncation": None, "padding": None}
        with _library_errors("cannot use it"):
            backend = tokenizers.Tokenizer.from_str(json.dumps(self._content | changed))
            backend.encode_special_tokens = True  # special tokens in a text are not recognised
            backend.encode(PROBE, PROBE)
        for token in tokens:
            if (index := backend.token_to_id(token["content"])) != token["id"]:
                raise UserError(
                    f"the added token {token['content']!r:.80} has the id {token['id']}, but the "
                    f"tokenizers library gives it {index}; give each id before it a token of its "
                    "own, where a line of the vocabulary is repeated or an id is missing"
                )
        return backend

    def _ids(self, backend: tokenizers.Tokenizer, texts: str | Sequence[str]) -> list[list[int]]:
        texts = list(map(without_half_pairs, listed_texts(texts)))
        with _library_errors("cannot cut these texts"):
            return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _role_id(self, role: str) -> int:
        name = self._roles.get(role)
        if name is None:
            raise UserError(f"no file names its {role}_token: state it in {SETTINGS_FILE}")
        return self._backend.token_to_id(name)

    def _continues(self, token: str) -> bool:
        if self.continuation_prefix:
            return token.startswith(self.continuation_prefix)
        kind = (self._content.get("decoder") or {}).get("type")
        return kind in WORD_STARTS and not token.startswith(WORD_STARTS[kind])

    def __getstate__(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        return self._state

    def __setstate__(self, state: tuple[str, dict[str, str], dict[str, Any]]) -> None:
        self.__init__(*state)
