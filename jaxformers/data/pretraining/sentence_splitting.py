"""Where sentences end in the scripts of the world: a few rules, no model."""

from __future__ import annotations

import re
import unicodedata

RULES = 2  # version of the rules below, for the fingerprints of what was split by them
LONGEST = 24  # characters before a full stop that are looked at

# Ranges of the scripts that are written without white space between words: Thai, Lao, Tibetan,
# Burmese, Khmer; kana, bopomofo; ideographs.
UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
    "\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
CHINESE_OR_JAPANESE = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
GEORGIAN = range(0x10D0, 0x1100)  # small letters by Unicode, in a script without capitals in use
CLOSING = """"'“”’)\\]»」』）》】〉］｣"""
OPENING = "\"'“‘„(\\[«¿¡「『（《【〈［｢"

_END = re.compile(
    # Marks that abbreviations and numbers hold too: they end a sentence before white space ...
    rf"(?P<shared>[.!?…]+(?:[{CLOSING}]|\s»)*\s+)"
    # ... or between ideographs or kana.
    rf"|(?<=[{CHINESE_OR_JAPANESE}])[.!?]+[{CLOSING}]*(?=[{OPENING}]*[{CHINESE_OR_JAPANESE}])"
    # Marks that only sentences have: Chinese and Japanese, Indic, Arabic, Ethiopic, Burmese, Khmer,
    # Armenian. The full-width full stop is a decimal point too.
    rf"|(?:[。！？｡।॥۔؟።፧။។։]|．(?!\d))+[{CLOSING}]*\s*"
)
_FIRST = re.compile(rf"(?:«\s|[{OPENING}])*(.)", re.DOTALL)
# In Japanese a quotation goes on: 「はい。」と言った。
_QUOTED = re.compile(r"[」』]\s*$")
_HIRAGANA = re.compile(r"[\u3041-\u309f]")
_LAST_WORD = re.compile(r"""([^\s"'“‘(\[]+)$""")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]$")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_TITLES = """
    Mr Mrs Ms Messrs Dr Prof Rev Hon Gov Sen Rep Pres Gen Col Maj Capt Cpt Lt Sgt Cmdr Adm Fr
    St Ste Mt Ft Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Fig Figs Eq Sec Ch Art Vol Nos
    No pp vs cf viz e.g i.e al approx ca Bros
"""
_ABBREVIATIONS = frozenset(_TITLES.split())


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped, without empty ones.

    A sentence ends, closing quotes and brackets included, at

    - `.`, `!`, `?` or `…` where white space follows and then, behind opening quotes or brackets, a
      capital letter, a digit, or a letter of a script without capitals;
    - a mark that only sentences have (`。`, `！`, `？`, `।`, `۔`, `؟`, `።`, `။`, `។`, `։`), and at
      `.`, `!` or `?` between ideographs or kana, white space or not.

    A single full stop ends none behind a common English abbreviation ("Mr.", "St.", "No.", "e.g.")
    or behind initials ("J.", "U.S."). A line end separates nothing by itself.

    Limits: a sentence that truly ends in such an abbreviation or in initials ("... of the U.S. It
    ...") is joined to the next, as is one that is followed by a small letter; an abbreviation
    outside the list ("Ltd. Company") splits; Thai and Lao have no mark, so they are never split.
    That is enough for next-sentence prediction, which asks for units of text and not for grammar.
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        before = text[max(start, end.start() - LONGEST) : end.start()]
        if _ends_sentence(before, end, text):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def count_words(line: str) -> int:
    """Words between white space; in scripts without it every character counts as one."""
    return len(_UNSPACED.sub(" x ", line).split())


def _ends_sentence(before: str, end: re.Match[str], text: str) -> bool:
    first = _FIRST.match(text, end.end())
    if first is None:  # the end of the text
        return True
    if end["shared"] is None:
        return not (_QUOTED.search(end.group()) and _HIRAGANA.match(text, end.end()))
    return _begins_sentence(first[1]) and not _is_abbreviation(before, end.group())


def _begins_sentence(character: str) -> bool:
    """Whether a sentence can begin with it: a capital, a digit, or a letter without case."""
    category = unicodedata.category(character)
    return category in ("Lu", "Lt", "Lo", "Nd") or ord(character) in GEORGIAN


def _is_abbreviation(before: str, mark: str) -> bool:
    """Whether the full stop `mark` behind `before` belongs to the word and ends no sentence."""
    if mark.strip() != ".":
        return False
    word = _LAST_WORD.search(before)
    if not word:
        return False
    initials = _INITIALS.match(word.group(1)) and word.group(1).isupper()
    return word.group(1) in _ABBREVIATIONS or (word.group(1) != "I" and bool(initials))
