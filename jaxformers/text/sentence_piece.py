"""A SentencePiece vocabulary shared by source and target ("Attention Is All You Need", 5.1)."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import sentencepiece
from etils import epath

from jaxformers.errors import DataError, UserError
from jaxformers.text.base import iterate_texts, listed_rows, listed_texts, plain_text, until_eos
from jaxformers.text.json_files import read_bytes

MODEL_FILE = "tokenizer.model"
PAD, EOS, UNK = 0, 1, 2
# From this size on, 256 pieces for single bytes are cheap and leave no character unknown.
BYTE_FALLBACK_FROM = 16_000
# Characters of a line: the trainer skips longer ones, and counts positions in 16 bits.
LONGEST_LINE = 8_192
# The trainer skips a line with U+2585, its own sign of the unknown, and the character U+0000.
RESERVED = re.compile("[\x00\u2585]")


class SentencePiece:
    """A trained SentencePiece model behind the `Tokenizer` interface.

    `start_id` is the pad id: the decoder starts from an all-zero vector (tensor2tensor's
    `shift_right`), and the embedding of pad is zero.
    """

    FILE_NAMES: ClassVar[str] = MODEL_FILE

    def __init__(self, model: bytes):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.get_piece_size()
        self.pad_id = self._processor.pad_id()
        self.eos_id = self._processor.eos_id()
        self.unk_id = self._processor.unk_id()
        if min(self.pad_id, self.eos_id, self.unk_id) < 0:
            raise UserError("the SentencePiece model lacks a pad, eos or unk piece: train it anew")
        self.start_id = self.pad_id
        self.fingerprint = hashlib.sha256(model).hexdigest()

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        kind: Literal["bpe", "unigram"] = "unigram",
    ) -> SentencePiece:
        """Learn `vocab_size` pieces from `sentences`; the same sentences give the same model.

        One thread only, since unigram's sums would depend on their number. Vocabularies below
        16,000 cover every character of the text; larger ones cover 99.95 % of it and spell the
        rest in bytes, so that nothing is ever unknown. Long lines are cut, at blanks where there
        are any. sentencepiece cannot learn U+0000 and U+2585, which are left out, and reads U+2581
        as a blank.

        Warns:
            UserWarning: how many lines hold such a character.

        Raises:
            UserError: `sentences` hold no text, or cannot fill or fit into `vocab_size` pieces.
        """
        if kind not in ("bpe", "unigram"):
            raise UserError(f"tokenizer kind {kind!r} is not known: use 'bpe' or 'unigram'")
        by_bytes = vocab_size >= BYTE_FALLBACK_FROM
        lines, model = _TrainingLines(sentences), io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=kind,
                pad_id=PAD,
                eos_id=EOS,
                unk_id=UNK,
                bos_id=-1,
                pad_piece="<pad>",
                num_threads=1,
                normalization_rule_name="identity",
                character_coverage=0.9995 if by_bytes else 1.0,
                byte_fallback=by_bytes,
                max_sentence_length=4 * LONGEST_LINE,  # bytes; UTF-8 takes up to four
                train_extremely_large_corpus=vocab_size >= BYTE_FALLBACK_FROM and kind == "unigram",
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            if lines.error is not None:
                raise lines.error from None
            raise _explain(str(error), vocab_size) from None
        if lines.num_reserved:
            warnings.warn(
                f"{lines.num_reserved:,} lines hold U+0000 or U+2585, which sentencepiece cannot "
                "learn: these characters are left out of the vocabulary",
                stacklevel=2,
            )
        return cls(model.getvalue())

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether a SentencePiece model of ours lies in `folder`."""
        return (folder / MODEL_FILE).exists()

    @classmethod
    def load(cls, path: Any) -> SentencePiece:
        """The model in the folder (its `tokenizer.model`) or file at `path`.

        Raises:
            UserError: there is no such file, or it is not a SentencePiece model.
        """
        path = epath.Path(path)
        file = path / MODEL_FILE if path.is_dir() else path
        if not file.exists():
            raise UserError(f"no SentencePiece model at {file}")
        try:
            return cls(read_bytes(file))
        except RuntimeError:
            raise UserError(f"{file} is not a SentencePiece model, or it is damaged") from None

    def save(self, folder: Any) -> None:
        """Write `tokenizer.model` into `folder`."""
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.model)

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, without eos; many texts are shared among threads."""
        return self._processor.encode(list(map(plain_text, listed_texts(texts))))

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The same as `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first eos; ids that are no piece of text are dropped."""
        dropped = {self.pad_id, self.unk_id, self.start_id}
        rows = [until_eos(row, self.eos_id, dropped) for row in listed_rows(ids)]
        # Ids of a padded vocabulary's added rows are no pieces either.
        rows = [[index for index in row if index < self.vocab_size] for row in rows]
        return self._processor.decode(rows) if rows else []

    def __getstate__(self) -> bytes:
        return self.model

    def __setstate__(self, model: bytes) -> None:
        self.__init__(model)


class _TrainingLines:
    """Sentences as sentencepiece's trainer takes them, none of which it would skip.

    Attributes:
        num_reserved: lines so far that held a reserved character, now a blank.
        error: what reading the sentences raised, of which sentencepiece passes on the text alone.
    """

    def __init__(self, sentences: Iterable[str]):
        self._sentences, self.num_reserved = sentences, 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._lines()
        except Exception as error:
            self.error = error
            raise

    def _lines(self) -> Iterator[str]:
        for sentence in iterate_texts(self._sentences):
            if RESERVED.search(sentence):
                self.num_reserved += 1
                sentence = RESERVED.sub(" ", sentence)
            yield from _cut(plain_text(sentence))


def _cut(line: str) -> Iterator[str]:
    """`line` in stretches of at most `LONGEST_LINE` characters, cut at blanks where possible."""
    start = 0
    while len(line) - start > LONGEST_LINE:
        blank = line.rfind(" ", start + 1, start + LONGEST_LINE + 1)
        end = blank if blank > 0 else start + LONGEST_LINE
        yield line[start:end]
        start = end + (blank > 0)
    if line[start:]:
        yield line[start:]


def _explain(message: str, vocab_size: int) -> UserError:
    """sentencepiece's message in words that say what to do."""
    if match := re.search(r"value <= (\d+)", message):
        largest = int(match[1])
        if largest < BYTE_FALLBACK_FROM <= vocab_size:  # so small a one has no pieces for bytes
            largest -= 256
        return UserError(
            f"the text is too small for a vocabulary of {vocab_size:,}: "
            f"the largest that works is {largest:,}"
        )
    if match := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return UserError(
            f"a vocabulary of {vocab_size:,} cannot hold the characters of the text: "
            f"the smallest that works is {int(match[1]):,}"
        )
    if "sentences_.empty()" in message:
        return DataError("no text to train a tokenizer on: every sentence is empty")
    return UserError(f"no tokenizer could be trained from this text: {message.strip()}")
