"""Where English sentences end: a few rules, no model."""

from __future__ import annotations

import re

LONGEST = 24  # characters before a full stop that are looked at

# Marks that end a sentence, with the quotes and brackets that close behind them, before what may
# begin the next one.
_END = re.compile(r"""[.!?…]+["'”’)\]]*\s+(?=["'“‘(\[]*[A-Z0-9À-ÖØ-Þ])""")
_LAST_WORD = re.compile(r"""([^\s"'“‘(\[]+)$""")
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]$")
_TITLES = """
    Mr Mrs Ms Messrs Dr Prof Rev Hon Gov Sen Rep Pres Gen Col Maj Capt Cpt Lt Sgt Cmdr Adm Fr
    St Ste Mt Ft Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Fig Figs Eq Sec Ch Art Vol Nos
    No pp vs cf viz e.g i.e al approx ca Bros
"""
_ABBREVIATIONS = frozenset(_TITLES.split())


def split_sentences(text: str) -> list[str]:
    """The sentences of English `text`, stripped, without empty ones.

    A sentence ends at `.`, `!`, `?` or `…`, with closing quotes and brackets, where white space
    and then a capital letter or a digit (behind opening quotes or brackets) follow. A single full
    stop ends none behind a common abbreviation ("Mr.", "St.", "No.", "e.g.") or behind initials
    ("J.", "U.S."). A line end separates nothing by itself.

    Limits: a sentence that truly ends in such an abbreviation or in initials ("... of the U.S. It
    ...") is joined to the next, as is one that is followed by a small letter; an abbreviation
    outside the list ("Ltd. Company") splits; scripts without capital letters are never split.
    That is enough for next-sentence prediction, which asks for units of text and not for grammar.
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        before = text[max(start, end.start() - LONGEST) : end.start()]
        if not _is_abbreviation(before, end.group()):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_abbreviation(before: str, mark: str) -> bool:
    """Whether the full stop `mark` behind `before` belongs to the word and ends no sentence."""
    if mark.strip() != ".":
        return False
    word = _LAST_WORD.search(before)
    return bool(word) and (
        word.group(1) in _ABBREVIATIONS
        or (word.group(1) != "I" and bool(_INITIALS.match(word.group(1))))
    )
