"""How likely a model finds what is right: perplexity, and the cross-entropy of classes."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from jaxformers.errors import DataError


def mean_cross_entropy(logits: Float[np.ndarray, "B N"], labels: Int[np.ndarray, "B"]) -> float:
    """The mean of -log p(label), in nats."""
    picked = np.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return float((logsumexp(logits, axis=-1) - picked).mean())


def perplexity(total_nll: float, tokens: float) -> float:
    """Perplexity of `tokens` tokens whose negative log-likelihoods (nats) sum to `total_nll`.

    Raises:
        DataError: there are no tokens.
    """
    if tokens <= 0:
        raise DataError(f"perplexity over {tokens} tokens; the evaluation data is empty")
    try:
        return math.exp(total_nll / tokens)
    except OverflowError:
        return math.inf
