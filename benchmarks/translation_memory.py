"""Scores translations of the bundled held-out pairs, and two baselines without a trained model.

    python benchmarks/translation_memory.py                 only the baselines
    python benchmarks/translation_memory.py FILE [FILE ..]  also files of translations, one per line
    python benchmarks/translation_memory.py --sources       prints the sentences to translate

The pairs have 2-10 English and at most 12 German words, which a small model learns in minutes:
24,240 for training and 749 from held-out documents. The translation memory returns the German
translation of the most similar training source; the copy baseline returns the source itself.
Similarity is 2 M / T in characters, where M is the length of the longest common subsequence and T
the sum of both lengths (as in Levenshtein.ratio and rapidfuzz). The 332 "dissimilar" held-out pairs
are those whose most similar lower-cased training source has a similarity below 0.75, where
memorisation does not help.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxformers.data import BundledPairs
from jaxformers.errors import DataError
from jaxformers.evaluation import chrf2, corpus_bleu

ALIKE = 0.75
Nearest = list[tuple[float, int]]  # similarity and index of the most similar, per query


def learnable(split: str) -> list[tuple[str, str]]:
    """The pairs of a split that are short enough for a small model to learn in minutes."""
    limits = dict(min_source_words=2, max_source_words=10, max_target_words=12)
    return list(BundledPairs("en-de", split, **limits).open())


def nearest(candidates: Sequence[str], queries: Sequence[str]) -> Nearest:
    """The most similar candidate of each query, the first one in case of a tie.

    The number of shared characters bounds the similarity of two sentences. Candidates are compared
    in descending order of that bound, until it drops below the best similarity.
    """
    alphabet = {c: i for i, c in enumerate(sorted(set("".join([*candidates, *queries]))))}
    counts, lengths = _characters(candidates, alphabet), np.array([len(c) for c in candidates])
    return [
        _nearest(query, row, candidates, counts, lengths)
        for query, row in zip(queries, _characters(queries, alphabet), strict=True)
    ]


def translation_memory(
    train: Sequence[tuple[str, str]], sources: Sequence[str], *, lower: bool = False
) -> tuple[list[str], list[float]]:
    """For each source, the target of the most similar training source, and their similarity."""
    normalize = str.lower if lower else str
    matches = nearest([normalize(pair[0]) for pair in train], [normalize(text) for text in sources])
    return [train[index][1] for _, index in matches], [ratio for ratio, _ in matches]


def similarity(a: str, b: str) -> float:
    """2 M / T of two texts, M the length of their longest common subsequence."""
    return 2 * _common(_masks(a), len(a), b) / max(1, len(a) + len(b))


def _nearest(query, row, candidates, counts, lengths) -> tuple[float, int]:
    shared = np.minimum(counts, row).sum(axis=1, dtype=np.int64)
    bound = 2 * shared / (lengths + len(query))
    masks, best = _masks(query), (-1.0, 0)
    for index in np.argsort(-bound, kind="stable"):
        if bound[index] < best[0]:
            break
        common = _common(masks, len(query), candidates[index])
        ratio = 2 * common / (len(query) + len(candidates[index]))
        if ratio > best[0] or (ratio == best[0] and index < best[1]):
            best = (ratio, int(index))
    return best


def _characters(texts: Sequence[str], alphabet: dict[str, int]) -> np.ndarray:
    """Counts of each character in each text, `[texts, characters]`."""
    counts = np.zeros((len(texts), len(alphabet)), np.uint8)
    for row, text in zip(counts, texts, strict=True):
        for character, count in Counter(text).items():
            row[alphabet[character]] = min(count, 255)
    return counts


def _masks(text: str) -> dict[str, int]:
    """Bit mask of the positions of each character."""
    masks: dict[str, int] = {}
    for position, character in enumerate(text):
        masks[character] = masks.get(character, 0) | 1 << position
    return masks


def _common(masks: dict[str, int], length: int, text: str) -> int:
    """Length of the longest common subsequence, by the bit-parallel algorithm of Hyyro (2004)."""
    ones = row = (1 << length) - 1
    for character in text:
        matched = row & masks.get(character, 0)
        row = ((row + matched) | (row - matched)) & ones
    return length - row.bit_count()


def report(files: Sequence[str]) -> list[str]:
    """Lines of the table of scores."""
    train, held_out = learnable("train"), learnable("held_out")
    sources, references = [pair[0] for pair in held_out], [pair[1] for pair in held_out]
    memory, _ = translation_memory(train, sources)
    lower, alike = translation_memory(train, sources, lower=True)
    hard = [i for i, ratio in enumerate(alike) if ratio < ALIKE]
    systems = {"copy of the source": sources, "translation memory": memory}
    systems["translation memory, lower-cased"] = lower
    systems |= {name: _read(name, len(sources)) for name in files}
    width = max(map(len, systems))
    lines = [f"{'':{width}}  BLEU  BLEU  chrF2", f"{'':{width}}  {len(sources):>4}  {len(hard):>4}"]
    for name, outputs in systems.items():
        scores = (
            corpus_bleu(outputs, references).score,
            corpus_bleu([outputs[i] for i in hard], [references[i] for i in hard]).score,
            chrf2(outputs, references).score,
        )
        lines.append(f"{name:{width}}  {scores[0]:4.1f}  {scores[1]:4.1f}  {scores[2]:5.1f}")
    return [*lines, corpus_bleu(sources, references).signature]


def _read(name: str, count: int) -> list[str]:
    lines = Path(name).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(lines) != count:
        raise DataError(f"{name} has {len(lines)} lines; the number of held-out pairs is {count}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="*", help="translations of the held-out sources, one per line"
    )
    parser.add_argument("--sources", action="store_true", help="print the held-out sources")
    arguments = parser.parse_args()
    if arguments.sources:
        print("\n".join(source for source, _ in learnable("held_out")))
        return
    try:
        print("\n".join(report(arguments.files)))
    except (DataError, OSError) as error:
        sys.exit(f"translation_memory: {error}")


if __name__ == "__main__":
    main()
