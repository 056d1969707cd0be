"""SigLIP's tokenizer: text lower-cased and without punctuation, then SentencePiece (Zhai et al.).

What the paper leaves open follows big_vision's `canonicalize_text` and transformers'
`SiglipTokenizer`.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from typing import Any, ClassVar

import sentencepiece
from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import added_tokens
from jaxformers.text.base import (
    InputTemplate,
    listed_rows,
    listed_texts,
    until_eos,
    without_half_pairs,
)
from jaxformers.text.json_files import read_bytes, read_optional_json
from jaxformers.text.word_piece_files import CONFIG_FILE, SETTINGS_FILE, tokenizer_class

MODEL_FILE = "spiece.model"
CLASS = "SiglipTokenizer"
CONTEXT_LENGTH = 64
EOS, UNK = "</s>", "<unk>"
BLANK = "\u2581"  # SentencePiece's sign of a blank
# Field 3 of the model, the normaliser's rules, with their field 3, `add_dummy_prefix`, false: a
# message that comes twice in a protocol buffer is merged, and the last value of a field counts.
WITHOUT_FIRST_BLANK = b"\x1a\x02\x18\x00"
PUNCTUATION = str.maketrans("", "", string.punctuation)
SPACES = re.compile(r"\s+")
EXTRA_ID = re.compile(f"{BLANK}?<extra_id_[0-9]+>")


class SigLIPTokenizer:
    """SigLIP's `spiece.model` behind the `Tokenizer` interface.

    The names of special tokens in a text, such as "</s>", are read as plain characters, of which
    canonicalisation leaves "s"; transformers takes them for the tokens.

    Attributes:
        vocab_size: number of pieces; 32,000 as published, 250,000 of the multilingual models.
        eos_id, pad_id: of "</s>", which ends a text and, unless the files say otherwise, pads it.
        template: nothing before a text, the end behind it.
    """

    FILE_NAMES: ClassVar[str] = f"{MODEL_FILE} with a {SETTINGS_FILE} that names {CLASS}"

    def __init__(
        self, model: bytes, *, lowercase: bool = True, pad: str = EOS, legacy: bool = True
    ):
        """Build the tokenizer.

        Args:
            model: content of `spiece.model`.
            lowercase: `do_lower_case` of the settings.
            pad: the piece that fills up a text.
            legacy: transformers' field: whether the model's own rule of a blank before the text
                holds, which tells in ties between pieces of equal probability alone.

        Raises:
            UserError: the model lacks the piece of the end, of the unknown, or `pad`.
        """
        if not model:  # sentencepiece would take it for no model at all
            raise UserError("the file is empty")
        self._state = (model, lowercase, pad, legacy)
        model = model if legacy else model + WITHOUT_FIRST_BLANK
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._count_pieces()
        self.eos_id, self.unk_id, self.pad_id = map(self._piece_id, (EOS, UNK, pad))
        self.start_id = self.pad_id
        self.template = InputTemplate(((), (self.eos_id,)), ((), (), (self.eos_id,)), 0)
        # Texts are cut behind the name of the unknown piece, whose pieces are then dropped: so a
        # blank at a text's start is kept, whatever the model's own rule of a first blank.
        self._lead = len(self._processor.encode(UNK))
        stated = json.dumps([hashlib.sha256(model).hexdigest(), lowercase, pad, legacy])
        self.fingerprint = hashlib.sha256(stated.encode()).hexdigest()

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether SigLIP's SentencePiece model lies in `folder`: T5's has the same file name."""
        if not (folder / MODEL_FILE).exists():
            return False
        if name := tokenizer_class(folder):
            return name == CLASS
        model_type = read_optional_json(folder / CONFIG_FILE).get("model_type")
        return isinstance(model_type, str) and model_type.startswith("siglip")

    @classmethod
    def load(cls, folder: Any) -> SigLIPTokenizer:
        """The tokenizer in `folder`.

        Raises:
            UserError: a file is damaged, or states what is not supported.
        """
        folder = epath.Path(folder)
        settings = read_optional_json(folder / SETTINGS_FILE)
        options = {}
        for field, name in (("do_lower_case", "lowercase"), ("legacy", "legacy")):
            options[name] = settings.get(field, True)
            if type(options[name]) is not bool:
                raise UserError(f"{folder / SETTINGS_FILE}: {field} is {options[name]!r:.80}")
        roles = {role: token.content for role, token in added_tokens.read_roles(folder).items()}
        for role, name in (("eos", EOS), ("unk", UNK)):
            if roles.get(role, name) != name:
                raise UserError(
                    f"{folder} names {roles[role]!r:.80} as its {role}_token; SigLIP's is {name}"
                )
        try:
            return cls(read_bytes(folder / MODEL_FILE), pad=roles.get("pad", EOS), **options)
        except RuntimeError:
            raise UserError(
                f"{folder / MODEL_FILE} is not a SentencePiece model, or it is damaged"
            ) from None
        except UserError as error:
            raise UserError(f"{folder / MODEL_FILE}: {error}") from None

    def save(self, folder: Any) -> None:
        """Write `spiece.model` and the settings, which transformers reads too."""
        model, lowercase, pad, legacy = self._state
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"tokenizer_class": CLASS, "do_lower_case": lowercase}
        settings |= {"eos_token": EOS, "unk_token": UNK, "pad_token": pad}
        settings |= {"model_max_length": CONTEXT_LENGTH, "legacy": legacy}
        (folder / MODEL_FILE).write_bytes(model)
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")

    def _count_pieces(self) -> int:
        """The number of pieces without T5's extra ids at the end.

        The multilingual models' file has 100 of them, for which their weights have no rows. Texts
        never contain them, since their brackets are punctuation.
        """
        size = self._processor.get_piece_size()
        while size and EXTRA_ID.fullmatch(self._processor.id_to_piece(size - 1)):
            size -= 1
        return size

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, canonicalised, without the end."""
        lines = [UNK + self._canonical(text) for text in listed_texts(texts)]
        return [ids[self._lead :] for ids in self._processor.encode(lines)]

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids as of `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first end; ids that are no piece of text are dropped."""
        dropped = {self.pad_id, self.unk_id}
        rows = [until_eos(row, self.eos_id, dropped) for row in listed_rows(ids)]
        rows = [[index for index in row if 0 <= index < self.vocab_size] for row in rows]
        return self._processor.decode(rows) if rows else []

    def _canonical(self, text: str) -> str:
        """The text in lower case without punctuation, single blanks between its words."""
        text = BLANK + without_half_pairs(text).replace(BLANK, " ")
        text = (text.lower() if self._state[1] else text).translate(PUNCTUATION)
        return SPACES.sub(" ", text).strip()

    def _piece_id(self, name: str) -> int:
        index = self._processor.piece_to_id(name)
        if self._processor.id_to_piece(index) != name:
            raise UserError(f"the vocabulary lacks the piece {name!r:.80}")
        return index

    def __getstate__(self) -> tuple[bytes, bool, str, bool]:
        return self._state

    def __setstate__(self, state: tuple[bytes, bool, str, bool]) -> None:
        model, lowercase, pad, legacy = state
        self.__init__(model, lowercase=lowercase, pad=pad, legacy=legacy)
