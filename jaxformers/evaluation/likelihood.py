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


def mean_binary_cross_entropy(
    logits: Float[np.ndarray, "B N"], labels: Int[np.ndarray, "B"] | Int[np.ndarray, "B N"]
) -> float:
    """The mean over examples of the sum over classes of sigmoid cross-entropies, in nats.

    Args:
        logits: one for each class.
        labels: the class of each example, or 0 and 1 for each class.
    """
    if labels.ndim == 1:
        labelled = np.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    else:
        labelled = (logits * labels).sum(-1)
    return float((np.logaddexp(0.0, logits).sum(-1) - labelled).mean())


def perplexity(total_nll: float, tokens: float) -> float:
    """Perplexity of `tokens` tokens whose negative log-likelihoods (nats) sum to `total_nll`.

    Raises:
        DataError: there are no tokens.

    Example:
        >>> jf.evaluation.perplexity(total_nll=8 * np.log(2), tokens=8)
        2.0
    """
    if tokens <= 0:
        raise DataError(f"perplexity over {tokens} tokens; the evaluation data is empty")
    try:
        return math.exp(total_nll / tokens)
    except OverflowError:
        return math.inf
