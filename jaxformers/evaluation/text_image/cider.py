"""CIDEr-D of captions (Vedantam et al. 2015); pycocoevalcap computes the same, but needs Java."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

LONGEST, SIGMA = 4, 6.0
WORDS = re.compile(r"\w+(?:['-]\w+)*")

Vector = dict[tuple[str, ...], float]


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D times 100, document frequencies from the references of all images.

    Words are lower-cased and punctuation is dropped; PTB's tokenizer of the published evaluation
    treats some abbreviations otherwise.

    Args:
        captions: one of each image.
        references: one or more of each image.
    """
    counts = [_ngrams(caption) for caption in captions]
    reference_counts = [[_ngrams(text) for text in texts] for texts in references]
    frequency: Counter = Counter()
    for texts in reference_counts:
        frequency.update({ngram for text in texts for ngram in text})
    log_images = math.log(max(len(references), 1))
    scores = [
        np.mean([_similarity(count, text, frequency, log_images) for text in texts])
        for count, texts in zip(counts, reference_counts, strict=True)
    ]
    return 100 * float(np.mean(scores))


def _ngrams(text: str) -> Counter:
    words = WORDS.findall(text.lower())
    return Counter(
        tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1)
    )


def _similarity(count: Counter, reference: Counter, frequency: Counter, log_images: float) -> float:
    """10 x the mean over n of the clipped cosine, with a penalty for a different length."""
    vectors, norms, length = _vectors(count, frequency, log_images)
    references, reference_norms, reference_length = _vectors(reference, frequency, log_images)
    similarities = []
    for n in range(1, LONGEST + 1):
        product = sum(
            min(value, references[n].get(ngram, 0.0)) * references[n].get(ngram, 0.0)
            for ngram, value in vectors[n].items()
        )
        scale = norms[n] * reference_norms[n]
        similarities.append(product / scale if scale else product)
    penalty = math.exp(-((length - reference_length) ** 2) / (2 * SIGMA**2))
    return 10 * penalty * sum(similarities) / LONGEST


def _vectors(
    count: Counter, frequency: Counter, log_images: float
) -> tuple[dict[int, Vector], dict[int, float], int]:
    """TF-IDF of the n-grams by n, the norm for each n, and the length (in pairs of words)."""
    vectors: dict[int, Vector] = defaultdict(dict)
    for ngram, term in count.items():
        document = math.log(max(1.0, frequency[ngram]))
        vectors[len(ngram)][ngram] = term * (log_images - document)
    norms = {n: math.sqrt(sum(v * v for v in vectors[n].values())) for n in range(1, LONGEST + 1)}
    length = sum(term for ngram, term in count.items() if len(ngram) == 2)
    return vectors, norms, length
