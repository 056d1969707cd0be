"""ROUGE-L of summaries (Lin 2004)."""

from __future__ import annotations

import re

WORDS = re.compile(r"[a-z0-9]+")


def rouge_l(summary: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, without stemming."""
    words, expected = WORDS.findall(summary.lower()), WORDS.findall(reference.lower())
    if not words or not expected:
        return 0.0
    # lengths[j]: the longest common subsequence of the words so far and expected[:j].
    lengths = [0] * (len(expected) + 1)
    for word in words:
        diagonal = 0
        for j, other_word in enumerate(expected, 1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other_word else max(above, lengths[j - 1])
            diagonal = above
    return 2 * lengths[-1] / (len(words) + len(expected))
