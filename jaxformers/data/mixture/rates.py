"""From the sizes of data sets to the share that each has of all draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float

from jaxformers.errors import ConfigError, did_you_mean
from jaxformers.fields import Range

Temperature = Annotated[float, Range(gt=0)]
Rates = Literal["proportional", "equal", "sqrt"] | Temperature
"""`proportional` to the number of examples, `equal`, to its square root, or to its T-th root
(T5's temperature, Raffel et al. 2020, section 3.5.2)."""


EXPONENTS = {"proportional": 1.0, "equal": 0.0, "sqrt": 0.5}


def check_rates(rates: Rates | None) -> None:
    """Raises ConfigError for a name of rates that there is not."""
    if isinstance(rates, str) and rates not in EXPONENTS:
        raise ConfigError(
            f"rates is {rates!r}, not one of {', '.join(EXPONENTS)}, nor a temperature"
            f"{did_you_mean(rates, list(EXPONENTS))}"
        )


def task_shares(
    sizes: Sequence[int], weights: Sequence[float], rates: Rates, cap: int | None = None
) -> Float[np.ndarray, "T"]:
    """Shares that sum to 1.

    Args:
        sizes: examples of each of T tasks.
        weights: that the rates are multiplied by; 0 leaves a task out.
        rates: how a rate follows from a size.
        cap: examples beyond which a task counts as no larger; None: no bound.

    Raises:
        ConfigError: no weight is above 0.
    """
    counts = np.minimum(np.asarray(sizes, np.float64), np.inf if cap is None else cap)
    exponent = EXPONENTS[rates] if isinstance(rates, str) else 1 / rates
    factors = np.asarray(weights, np.float64)
    if not factors.any():
        raise ConfigError("every task of the mixture has the weight 0: give one of them a weight")
    # Relative to the largest, so that neither a small temperature nor a large weight overflows.
    counts = np.where(factors > 0, counts, 0)
    scaled = (counts / max(counts.max(), 1)) ** exponent * (factors / factors.max())
    return scaled / scaled.sum()
