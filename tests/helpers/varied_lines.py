"""Lines that try every rule of a tokenizer, the same ones each time."""

import random
import sys
import unicodedata

import numpy as np

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "running",
    "tokenization",
    "New",
    "York",
    "don't",
    "naïve",
    "café",
    "Zürich",
    "ΟΔΟΣ",
    "Σίσυφος",
    "İstanbul",
    "ISTANBUL",
    "ıŞık",
    "ﬁne",
    "Ⅷ",
    "½",
    "x²",
    "H₂O",
    "Ångström",
    "K",
    "½l",
    "ǅungla",
    "Straße",
    "ẞ",
    "東京",
    "中文字符",
    "日本語テキスト",
    "한국어",
    "हिन्दी",
    "العربية",
    "עברית",
    "ไทย",
    "ქართული",
    "Ελλάδα",
    "Привет",
    "😀",
    "👩\u200d👩\u200d👧",
    "🇩🇪",
    "✊🏽",
    "☃️",
    "$5.00",
    "C++",
    "a_b",
    "e-mail",
    "[MASK]",
    "[CLS]",
    "[UNK]",
    "##ing",
    "@user",
    "#tag",
    "http://x.y/z?q=1&r=2",
    "…",
    "“quoted”",
    "«x»",
    "¿qué?",
    "l’été",
]
BLANKS = " \t\n\r\u00a0\u1680\u2003\u2009\u2028\u2029\u202f\u205f\u3000\x0b\x0c\x85\x1c"
CONTROLS = "\x00\x01\x07\x1b\x7f\x9f\u00ad\u200b\u200d\u200e\u202e\u2060\ufeff\ufffd\ue000\uffff"
MARKS = "\u0300\u0301\u0307\u0308\u0323\u0327\u0338\u0344\u0345\u20dd\u302e\u302f\U0001d165\ufe0f"
LENGTHS = (1, 50, 99, 100, 101, 150, 199, 200, 201, 400)


def characters_of(*categories):
    """Every character of the given Unicode categories, or of those that begin so."""
    return [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character).startswith(categories)
    ]


def varied_lines(count, seed=0):
    """Words, odd blanks, marks, controls, punctuation of every class, long words, any character."""
    draw = random.Random(seed)
    punctuation = characters_of("P", "S")
    assigned = [*characters_of("L", "M", "N", "Z", "Cf"), *characters_of("Cn")[:500]]

    def fragment():
        kind = draw.randrange(9)
        if kind < 3:
            return draw.choice(WORDS) + draw.choice(["", "", *MARKS])
        if kind == 3:
            return draw.choice(punctuation) * draw.choice((1, 1, 3))
        if kind == 4:
            return draw.choice(CONTROLS) + draw.choice(MARKS) + draw.choice(MARKS)
        if kind == 5:
            return "".join(draw.choices(assigned, k=draw.randrange(1, 6)))
        if kind == 6 and draw.random() < 0.3:
            letters = draw.choice(("a", "é", "e\u0301", "ab", "Å", "한", "İ"))
            return (letters * 400)[: draw.choice(LENGTHS)]
        return "".join(draw.choices("abcdefghij XYZ0189éÉ'-,.", k=draw.randrange(1, 12)))

    lines = ["", " ", "\u00a0", "\u0301", "\x00", "\ud800 a", "a\udfff", *characters_of("P")]
    while len(lines) < count:
        fragments = [fragment() for _ in range(draw.randrange(1, 9))]
        lines.append("".join(p + draw.choice(["", " ", draw.choice(BLANKS)]) for p in fragments))
    return lines[:count]


def shares(lines):
    """Of `lines`: how many hold each kind of trouble, to show that none is missing."""
    kinds = {
        "accents": lambda c: unicodedata.category(c) == "Mn",
        "controls": lambda c: unicodedata.category(c) in ("Cc", "Cf"),
        "Chinese": lambda c: "\u4e00" <= c <= "\u9fff",
        "emoji": lambda c: "\U0001f300" <= c <= "\U0001faff",
        "blanks": lambda c: c in BLANKS[4:],
    }
    return {
        name: int(np.sum([any(map(holds, line)) for line in lines]))
        for name, holds in kinds.items()
    }
