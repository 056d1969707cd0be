"""BERT's tokenizer: words split greedily into the longest pieces of a vocabulary ("BERT", 3)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxformers.errors import DataError, UserError
from jaxformers.text import huggingface_files, word_piece_files
from jaxformers.text.base import (
    InputTemplate,
    Spans,
    iterate_texts,
    listed_rows,
    listed_texts,
    until_eos,
)
from jaxformers.text.bert_words import NO_CHARACTER, WordRules, is_chinese

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
# Of so many characters a trained vocabulary holds each alone; rarer ones are unknown.
ALPHABET = 1_000
# A word is fed to the trainer as often as it occurred, in lines of at most so many.
REPEATS = 10_000


class WordPiece:
    """A WordPiece vocabulary behind the `Tokenizer` interface, by the rules of Google's code.

    A special token that is written in a text is read as plain characters; `encode_with_masks`
    reads [MASK].

    Attributes:
        vocabulary: the piece of each id; empty where an id has none.
        template: the special tokens around a text or a pair of texts.
        cls_id, eos_id, mask_id, pad_id, sep_id, start_id, unk_id: `eos_id` is `sep_id`, `start_id`
            is `cls_id`.
        continues: `continues[i]` says whether piece i goes on with a word ("##ing").
        continuation_prefix: the mark of the pieces that do, "##".
        mask_token: how a mask is written in a text.
    """

    mask_token, continuation_prefix = MASK, CONTINUES

    FILE_NAMES: ClassVar[str] = word_piece_files.VOCABULARY_FILE

    def __init__(
        self,
        vocabulary: Sequence[str],
        lowercase: bool = True,
        longest_word: int = 200,
        strip_accents: bool | None = None,
        split_chinese: bool = True,
    ):
        """Take the vocabulary and the rules for words.

        Args:
            vocabulary: the piece with id i at index i. An empty one matches nothing; of a repeated
                one the last id counts, as in Google's and Hugging Face's code.
            lowercase: whether the vocabulary is an uncased one.
            longest_word: a word of more characters is unknown: 200 in Google's code, 100 in
                Hugging Face's.
            strip_accents: whether accents are dropped; None: as `lowercase`.
            split_chinese: whether each Chinese character is a word.

        Raises:
            UserError: a piece holds a line break, or a special token is missing.
        """
        ids = _checked_ids(vocabulary)
        self.vocabulary = tuple(
            token if ids.get(token) == index else "" for index, token in enumerate(vocabulary)
        )
        self._state = (self.vocabulary, lowercase, longest_word, strip_accents, split_chinese)
        self.lowercase, self.longest_word = lowercase, longest_word
        self.rules = WordRules(
            lowercase, lowercase if strip_accents is None else strip_accents, split_chinese
        )
        self.vocab_size = len(self.vocabulary)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in SPECIAL
        )
        self.eos_id, self.start_id = self.sep_id, self.cls_id
        cls, sep = (self.cls_id,), (self.sep_id,)
        self.template = InputTemplate((cls, sep), (cls, sep, sep), second_type=1)
        self.continues = np.array([token.startswith(CONTINUES) for token in self.vocabulary])
        self.fingerprint = hashlib.sha256(
            json.dumps([self.vocabulary, longest_word, *_fields(self.rules)]).encode()
        ).hexdigest()
        self._tokenizer = _tokenizer(ids, longest_word)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        longest_word: int = 200,
    ) -> WordPiece:
        """Learn `vocab_size` pieces from `texts`; the same texts give the same vocabulary.

        Special tokens have ids 0 to 4. The vocabulary holds the 1,000 most frequent characters,
        each at the start of a word and within one, so that none of them is ever unknown. Chinese
        characters, each of which is a word, take up to half of the remaining rows, the most
        frequent first.

        Raises:
            UserError: `texts` hold no text, or cannot fill or fit into `vocab_size` pieces.
        """
        rules = WordRules(lowercase, lowercase)
        lines = map(rules.words, iterate_texts(texts))
        words = Counter(chain.from_iterable(map(str.split, lines)))
        vocabulary = _learn(words, vocab_size, longest_word)
        if len(vocabulary) < vocab_size:
            raise UserError(
                f"the text is too small for a vocabulary of {vocab_size:,}: "
                f"the largest that works is {len(vocabulary):,}"
            )
        return cls(vocabulary, lowercase, longest_word)

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether a `vocab.txt` lies in `folder`."""
        return (folder / word_piece_files.VOCABULARY_FILE).exists()

    @classmethod
    def load(cls, folder: Any) -> WordPiece:
        """The tokenizer of the `vocab.txt` in `folder`.

        Case, accents and the longest word are those that `tokenizer_config.json` states. Where it
        does not, a vocabulary with capitals is a cased one, and the longest word is 100 in Hugging
        Face's folders (with a config.json or tokenizer_config.json), else 200.

        Raises:
            UserError: a file is missing or damaged, the vocabulary cannot be used, or the folder
                states more than `vocab.txt` (`load_tokenizer` reads that).
        """
        folder = epath.Path(folder)
        if huggingface_files.needs_tokenizers_library(folder):
            raise UserError(
                f"{folder} has a tokenizer.json or added tokens, which a WordPiece cannot obey: "
                "load it by load_tokenizer"
            )
        vocabulary, options = word_piece_files.read(folder)
        try:
            return cls(vocabulary, **options)
        except UserError as error:
            raise UserError(f"the vocabulary in {folder}: {error}") from None

    def save(self, folder: Any) -> None:
        """Write `vocab.txt` and `tokenizer_config.json`.

        transformers reads them too, all but the longest word, which is always 100 there.
        """
        _, lowercase, longest_word, strip_accents, split_chinese = self._state
        options = dict(
            lowercase=lowercase,
            longest_word=longest_word,
            strip_accents=strip_accents,
            split_chinese=split_chinese,
        )
        word_piece_files.write(epath.Path(folder), self.vocabulary, options)

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of the pieces of each text, without special tokens; threads share many texts."""
        words = [self.rules.words(text) for text in listed_texts(texts)]
        return [row.ids for row in self._tokenizer.encode_batch_fast(words)]

    def encode_target(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids as of `encode`: both sides share the vocabulary."""
        return self.encode(texts)

    def encode_with_masks(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The same, with `mask_id` where [MASK] is written in a text."""
        segments = [text.split(MASK) for text in listed_texts(texts)]
        rows = iter(self.encode(list(chain.from_iterable(segments))))
        return [self._joined([next(rows) for _ in row]) for row in segments]

    def _joined(self, rows: list[list[int]]) -> list[int]:
        return rows[0] + [index for row in rows[1:] for index in (self.mask_id, *row)]

    def spans(self, texts: str | Sequence[str]) -> list[Spans]:
        """Ids as of `encode`, with the offsets of each piece in its text.

        A span takes in the accents that were dropped behind its last letter. Pieces of one
        character that was decomposed (a Hangul syllable) share its span.
        """
        aligned = [self.rules.aligned(text) for text in listed_texts(texts)]
        rows = self._tokenizer.encode_batch([words.words for words in aligned])
        return [
            Spans(row.ids, *_original(row.offsets, words.starts, words.ends))
            for row, words in zip(rows, aligned, strict=True)
        ]

    def token_text(self, index: int) -> str:
        """The piece of one token ("##ing"); empty: there is none."""
        return self.vocabulary[index] if 0 <= index < self.vocab_size else ""

    def decode(self, ids: Sequence[int] | Sequence[Sequence[int]]) -> list[str]:
        """Texts of `ids` up to the first [SEP]; special ids and ids without a piece are dropped.

        Pieces of a word are joined, and punctuation joins its word as `tokenizers` has it.
        """
        dropped = {self.pad_id, self.unk_id, self.cls_id, self.mask_id}
        rows = [until_eos(row, self.sep_id, dropped) for row in listed_rows(ids)]
        rows = [[self.vocabulary[i] for i in row if 0 <= i < self.vocab_size] for row in rows]
        rows = [list(filter(None, row)) for row in rows]
        return [self._tokenizer.decoder.decode(row) for row in rows]

    def __getstate__(self) -> tuple:
        return self._state

    def __setstate__(self, state: tuple) -> None:
        self.__init__(*state)


def _tokenizer(ids: dict[str, int], longest_word: int) -> tokenizers.Tokenizer:
    """`tokenizers`' greedy search for pieces in words that blanks separate."""
    model = models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=longest_word)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES)
    return tokenizer


def _learn(words: Counter[str], vocab_size: int, longest_word: int) -> list[str]:
    """`vocab_size` tokens, or fewer where the words give no more."""
    ideographs = _ranked({word: count for word, count in words.items() if is_chinese(word[0])})
    words = Counter({word: count for word, count in words.items() if not is_chinese(word[0])})
    alphabet = sorted(_ranked(_character_counts(words))[:ALPHABET])
    if not alphabet and not ideographs:
        raise DataError("no text to train a tokenizer on: every text is empty")
    inner = [CONTINUES + character for character in alphabet]
    size, least = len(SPECIAL) + 2 * len(alphabet), min(len(ideographs), ALPHABET - len(alphabet))
    if vocab_size < size + least:
        raise UserError(
            f"a vocabulary of {vocab_size:,} cannot hold the characters of the text: "
            f"the smallest that works is {size + least:,}"
        )
    num_ideographs = min(len(ideographs), max(least, (vocab_size - size) // 2))
    vocabulary = _learn_words(words, alphabet, inner, vocab_size - num_ideographs, longest_word)
    # Where the words give fewer tokens than there is room for, the rarest ideographs follow.
    return vocabulary + ideographs[: vocab_size - len(vocabulary)]


def _learn_words(
    words: Counter[str], alphabet: list[str], inner: list[str], vocab_size: int, longest_word: int
) -> list[str]:
    """Special tokens, the alphabet in both forms, and the merges of `tokenizers`' trainer."""
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        # Given as special, inner characters get their ids in this order, not in the random one
        # of the trainer's table of words.
        special_tokens=[*SPECIAL, *inner],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer = _tokenizer({UNK: 0}, longest_word)
    tokenizer.train_from_iterator(_lines(words, set(alphabet), longest_word), trainer)
    ids = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(ids, key=ids.get)


def _checked_ids(vocabulary: Sequence[str]) -> dict[str, int]:
    """The last id of each piece."""
    for index, token in enumerate(vocabulary):
        if "\n" in token or "\r" in token:
            raise UserError(f"token {index} of the vocabulary holds a line break")
    ids = {token: index for index, token in enumerate(vocabulary) if token}
    if missing := [token for token in SPECIAL if token not in ids]:
        raise UserError(f"the vocabulary lacks the special tokens {', '.join(missing)}")
    return ids


def _fields(rules: WordRules) -> tuple[bool, bool, bool]:
    return rules.lowercase, rules.strip_accents, rules.split_chinese


def _original(
    offsets: list[tuple[int, int]], starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets in the words as offsets in the text."""
    bounds = np.array(offsets, int).reshape(-1)
    # Of every other slice: those between the bounds of a piece. One more element lets the last
    # bound lie at the end.
    first = np.minimum.reduceat(np.append(starts, 0), bounds)[::2]
    last = np.maximum.reduceat(np.append(ends, 0), bounds)[::2]
    return first, last


def _character_counts(words: Counter[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    del counts[NO_CHARACTER]
    return counts


def _ranked(counts: Mapping[str, int]) -> list[str]:
    """The keys, the most frequent first."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def _lines(words: Counter[str], alphabet: set[str], longest: int) -> Iterator[str]:
    """Every word of known characters, as often as it occurred."""
    for word, count in words.items():
        if len(word) <= longest and alphabet.issuperset(word):
            for done in range(0, count, REPEATS):
                yield " ".join([word] * min(REPEATS, count - done))
