"""Answers to questions about images: VQA's accuracy with its normalisation (Antol et al. 2015)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
    )
} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"(\d)(,)(\d)")
PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am
    mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't she'd've
    should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've
    you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
# A form that lacks one of its apostrophes is written with all of them.
CONTRACTIONS = {
    form[:index] + form[index + 1 :]: form
    for form in CONTRACTED
    for index, char in enumerate(form)
    if char == "'"
}


def normalised_answer(answer: str) -> str:
    """An answer without articles and punctuation, numbers as digits, as VQA's evaluation has it."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    keep_gap = bool(COMMA_IN_NUMBER.search(text))
    original = text
    for char in PUNCTUATION:
        # Punctuation beside a blank of the answer as it was given goes, any other becomes one; all
        # of it goes beside a number that has a comma.
        alone = f"{char} " in original or f" {char}" in original or keep_gap
        text = text.replace(char, "" if alone else " ")
    words = [NUMBERS.get(word, word) for word in PERIOD.sub("", text).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """The mean over the references of min(1, matches among the others / 3).

    Answers are compared after normalisation. With fewer than four references, which no set of
    VQA's kind has, 1 where the answer is one of them.
    """
    answer = normalised_answer(answer)
    matches = [normalised_answer(reference) == answer for reference in references]
    if len(matches) < 4:
        return float(any(matches))
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words of two normalised answers."""
    words, expected = normalised_answer(answer).split(), normalised_answer(reference).split()
    common = (Counter(words) & Counter(expected)).total()
    if not words or not expected:
        return float(words == expected)
    return 2 * common / (len(words) + len(expected))
