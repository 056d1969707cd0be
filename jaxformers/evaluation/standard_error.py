"""Standard errors of metrics that need not be means over examples, such as CIDEr."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

GROUPS = 32


def jackknife_error(
    metric: Callable[[Int[np.ndarray, "n"]], float], num_examples: int, groups: int = GROUPS
) -> float:
    """Standard error of a metric by the delete-a-group jackknife (Efron 1982).

    Examples are divided into G groups of every G-th example; with the metric m_g of all examples
    but those of group g, the error is sqrt((G - 1) / G sum_g (m_g - mean)^2). For a mean over
    independent examples it is an estimate of deviation / sqrt(examples).

    Args:
        metric: of the examples with these indices.
        num_examples: in all.
        groups: G; at most as many as there are examples.

    Returns:
        NaN for fewer than two examples.
    """
    groups = min(groups, num_examples)
    if groups < 2:
        return float("nan")
    indices = np.arange(num_examples)
    values = np.array([metric(indices[indices % groups != group]) for group in range(groups)])
    return float(np.sqrt((groups - 1) / groups * np.square(values - values.mean()).sum()))
