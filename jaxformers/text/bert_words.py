"""BERT's cutting of text into words, with offsets back into the text (Google's tokenization.py).

In this order: control characters go and white space becomes a blank; Chinese characters stand
alone; uncased models lower the case and take accents off; every mark of punctuation stands alone.
The `tokenizers` library has these steps too, but classes characters by an older Unicode, drops
private and unassigned ones, misses a block of Chinese and does not know the final sigma. So they
are done here, by the Unicode tables of the running Python, as in Google's code. Python 3.11 has
Unicode 14: a character that is newer counts as a letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# The blocks that Google's code calls Chinese: ideographs, not kana or Hangul.
CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
# Stands for half a surrogate pair, which no UTF-8 holds; it is in no vocabulary either.
NO_CHARACTER = "\U0010ffff"


class AlignedWords(NamedTuple):
    """Words, and from where each of their characters comes.

    Attributes:
        words: the text's words with blanks between them.
        starts, ends: of each character of `words`, its first and one past its last in the text.
    """

    words: str
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class WordRules:
    """How text is cut into words."""

    lowercase: bool = True
    """Lower the case."""
    strip_accents: bool = True
    """Decompose (NFD) and drop accents, the marks of Unicode's class Mn."""
    split_chinese: bool = True
    """Let each Chinese character be a word."""

    def words(self, text: str) -> str:
        """The words and marks of punctuation of `text`, with blanks between them."""
        text = text.translate(_CLEAN[self.split_chinese])
        text = text.lower() if self.lowercase else text
        text = unicodedata.normalize("NFD", text) if self.strip_accents else text
        return text.translate(_SPLIT[self.strip_accents])

    def aligned(self, text: str) -> AlignedWords:
        """The same with the way back: an accent that was dropped belongs to its letter."""
        decomposed = [self._decomposed(character) for character in text]
        origins = np.repeat(np.arange(len(text)), np.array(list(map(len, decomposed)), int))
        characters = np.array(list("".join(decomposed)))
        if self.strip_accents and not text.isascii():
            order = _canonical_order(characters)
            origins, characters = origins[order], characters[order]
        split = _SPLIT[self.strip_accents]
        copies = np.array([len(split[ord(character)]) for character in characters], int)
        origins = np.repeat(origins, copies)
        return AlignedWords(self.words(text), origins, self._ends(text)[origins])

    def _decomposed(self, character: str) -> str:
        """What `words` makes of one character before accents go and punctuation is split."""
        text = _CLEAN[self.split_chinese][ord(character)]
        text = text.lower() if self.lowercase else text
        return unicodedata.normalize("NFD", text) if self.strip_accents else text

    def _ends(self, text: str) -> np.ndarray:
        """One past each character, with the dropped accents that follow it."""
        ends = np.arange(1, len(text) + 1)
        if self.strip_accents and not text.isascii():
            accents = [i for i, c in enumerate(text) if i and unicodedata.category(c) == "Mn"]
            for index in reversed(accents):
                ends[index - 1] = ends[index]
        return ends


class _Table(dict):
    """A table for `str.translate` that works out a character when it is first met."""

    def __init__(self, rule: Callable[[str], str]):
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = replacement = self._rule(chr(code))
        return replacement


def is_punctuation(character: str) -> bool:
    """Whether Google's code splits at it: ASCII that is no letter or digit, and Unicode's P*."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def is_chinese(character: str) -> bool:
    """Whether it lies in one of the blocks of Chinese ideographs."""
    return any(first <= ord(character) <= last for first, last in CHINESE)


def _clean(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r" or category in ("Zs", "Zl", "Zp"):
        return " "
    if category == "Cs":
        return NO_CHARACTER
    return "" if category in ("Cc", "Cf") or character == "\ufffd" else character


def _clean_and_split_chinese(character: str) -> str:
    return f" {character} " if is_chinese(character) else _clean(character)


def _split(character: str) -> str:
    return f" {character} " if is_punctuation(character) else character


def _split_and_strip(character: str) -> str:
    return "" if unicodedata.category(character) == "Mn" else _split(character)


def _canonical_order(characters: np.ndarray) -> np.ndarray:
    """Where Unicode's canonical ordering takes each of the decomposed `characters` from.

    Marks are sorted by their combining class behind the character they belong to.
    """
    classes = np.array([unicodedata.combining(character) for character in characters], int)
    return np.lexsort((classes, np.cumsum(classes == 0)))


_CLEAN = {False: _Table(_clean), True: _Table(_clean_and_split_chinese)}
_SPLIT = {False: _Table(_split), True: _Table(_split_and_strip)}
