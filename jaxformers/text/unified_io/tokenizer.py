"""T5's SentencePiece with 1,100 extra ids, and image codes behind it (Unified-IO, section 3.1).

The ids, with T5's 32,000 pieces:

    0 .. 31,999        pieces; 0 pads and starts the decoder, 1 ends a text, 2 is unknown
    32,000 .. 33,099   `<extra_id_k>` is 33,099 - k; k = 0 .. 99 stand for removed spans of text,
                       k = 100 + b for the location bin b = 0 .. 999
    33,100 .. 33,151   rows that fill the embedding up to a multiple of 128; the last one starts an
                       image in the decoder
    33,152 + c         code c of the image tokeniser
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import sentencepiece
from etils import epath

from jaxformers.errors import UserError
from jaxformers.text.base import listed_rows, listed_texts, until_eos, without_half_pairs
from jaxformers.text.json_files import read_bytes
from jaxformers.text.sentence_piece import SentencePiece

MODEL_FILE = "spiece.model"
PAD, EOS, UNK = 0, 1, 2
SENTINELS, BINS = 100, 1000
MULTIPLE = 128  # of the rows of the embedding
SPECIAL_PIECES = {"<pad>": PAD, "</s>": EOS, "<unk>": UNK}
SPECIAL = re.compile(r"<extra_id_(\d{1,4})>|(<pad>|</s>|<unk>)")


class UnifiedIOTokenizer:
    """Text and location tokens to ids and back.

    `<extra_id_k>` and T5's special pieces written in a text become their ids, blanks around them
    are dropped, and what stands between them is encoded for itself: as Hugging Face's
    `T5Tokenizer(extra_ids=1100)`, which the published weights were trained with.

    Args:
        model: a serialised SentencePiece model whose first pieces are `<pad>`, `</s>`, `<unk>`.

    Attributes:
        num_pieces: pieces of text, 32,000 in T5.
        vocab_size: ids of text, the filling rows included: 33,152 with T5's pieces.

    Raises:
        UserError: the first pieces are others, so the vocabulary is not T5's.
    """

    FILE_NAMES: ClassVar[str] = MODEL_FILE
    NUM_EXTRA_IDS: ClassVar[int] = SENTINELS + BINS

    def __init__(self, model: bytes):
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.num_pieces = self._processor.get_piece_size()
        first = [self._processor.id_to_piece(i) for i in range(min(3, self.num_pieces))]
        if first != list(SPECIAL_PIECES):
            raise UserError(
                f"the SentencePiece model begins with {', '.join(first)}, T5's with "
                f"{', '.join(SPECIAL_PIECES)}: use T5's {MODEL_FILE}"
            )
        self._end = self.num_pieces + SENTINELS + BINS  # one past <extra_id_0>
        self.vocab_size = -(-(self._end + 1) // MULTIPLE) * MULTIPLE
        self.pad_id, self.eos_id, self.unk_id, self.start_id = PAD, EOS, UNK, PAD
        self.fingerprint = hashlib.sha256(model).hexdigest()

    @property
    def image_start_id(self) -> int:
        """The id from which the decoder starts an image: the last of the text's."""
        return self.vocab_size - 1

    def sentinel_id(self, number: int) -> int:
        """The id that stands for removed span `number`, 0 to 99."""
        return self._end - 1 - number

    def location_id(self, index: int) -> int:
        """The id of location bin `index`, 0 to 999."""
        return self._end - 1 - SENTINELS - index

    def location_bin(self, index: int) -> int | None:
        """The bin that the id `index` stands for; None if it is no location."""
        number = self._end - 1 - SENTINELS - index
        return number if 0 <= number < BINS else None

    def image_code_id(self, code: int) -> int:
        """The id of code `code` of the image tokeniser, behind all ids of text."""
        return self.vocab_size + code

    @classmethod
    def train(cls, sentences: Iterable[str], num_pieces: int) -> UnifiedIOTokenizer:
        """Learns `num_pieces` pieces of a vocabulary with T5's layout; see `SentencePiece.train`.

        Location tokens and other special ones in `sentences` are left out.

        Raises:
            UserError: `sentences` hold no text, or cannot fill or fit into `num_pieces`.
        """
        texts = (SPECIAL.sub(" ", sentence) for sentence in sentences)
        return cls(SentencePiece.train(texts, num_pieces).model)

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether T5's SentencePiece model lies in `folder`."""
        return (folder / MODEL_FILE).exists()

    @classmethod
    def load(cls, path: Any) -> UnifiedIOTokenizer:
        """The model in the folder (its `spiece.model`) or file at `path`.

        Raises:
            UserError: there is no such file, it is damaged, or it is not T5's.
        """
        path = epath.Path(path)
        file = path / MODEL_FILE if path.is_dir() else path
        if not file.exists():
            raise UserError(f"no T5 vocabulary at {file}")
        try:
            return cls(read_bytes(file))
        except RuntimeError:
            raise UserError(f"{file} is not a SentencePiece model, or it is damaged") from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    def save(self, folder: Any) -> None:
        """Writes `spiece.model` into `folder`, byte for byte as it was loaded."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self._model)

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of each text, location tokens included, without eos."""
        return [self._encode(without_half_pairs(text)) for text in listed_texts(texts)]

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The same as `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for match in SPECIAL.finditer(text):
            if (special := self._special_id(match)) is None:
                continue
            # T5Tokenizer strips what stands beside a special token, then encodes it for itself.
            ids += self._processor.encode(text[start : match.start()].strip())
            ids.append(special)
            start = match.end()
        return ids + self._processor.encode(text[start:].strip() if start else text)

    def _special_id(self, match: re.Match) -> int | None:
        if match[2]:
            return SPECIAL_PIECES[match[2]]
        number = int(match[1])
        in_range = number < SENTINELS + BINS and str(number) == match[1]
        return self._end - 1 - number if in_range else None

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first eos; ids that are no piece of text are dropped."""
        rows = [until_eos(row, EOS, {PAD, UNK}) for row in listed_rows(ids)]
        rows = [[index for index in row if UNK < index < self.num_pieces] for row in rows]
        return self._processor.decode(rows) if rows else []

    def token_text(self, index: int) -> str:
        """The text of one id: a piece without its leading blank, `<extra_id_k>`, or the number."""
        if index < self.num_pieces:
            piece = self._processor.id_to_piece(index)
            return piece.replace("\u2581", " ").strip() or piece
        return f"<extra_id_{self._end - 1 - index}>" if index < self._end else f"<{index}>"

    def __getstate__(self) -> bytes:
        return self._model

    def __setstate__(self, model: bytes) -> None:
        self.__init__(model)
