"""Recall of retrieval by similarity, for images by text and texts by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

BLOCK = 1024  # queries whose scores are held at once


def recall_at(
    queries: Float[np.ndarray, "Q E"],
    candidates: Float[np.ndarray, "N E"],
    positives: Bool[np.ndarray, "Q N"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """Percentage of queries with any of their positives among the k most similar candidates.

    This is the definition of the CLIP benchmarks, where an image has several captions. A negative
    that ties with a positive counts before it.

    Args:
        queries, candidates: unit vectors.
        positives: which candidates answer which query; each query has one at least.
        ks: numbers of candidates that are looked at.
    """
    ranks = []
    for start in range(0, len(queries), BLOCK):
        scores = queries[start : start + BLOCK] @ candidates.T
        answers = positives[start : start + BLOCK]
        best = np.where(answers, scores, -np.inf).max(1, keepdims=True)
        ranks.append(((scores >= best) & ~answers).sum(1))
    rank = np.concatenate(ranks)
    return {k: 100 * float((rank < k).mean()) for k in ks}
