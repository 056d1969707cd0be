"""Learning rates: a linear warm-up, then a decay. Each is a small dataclass with one method.

`rate(count, steps)` is the rate of the update made after `count` earlier ones, in a run of `steps`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

Count = jax.Array | int | float


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules."""

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate."""
        raise NotImplementedError


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    """scale * width^-0.5 * min(n^-0.5, n * warmup^-1.5), n = count + 1.

    "Attention Is All You Need", section 5.3, equation 3; the first update is n = 1.
    """

    width: int = 512
    warmup: int = 4000
    scale: float = 1.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate; it does not depend on `steps`."""
        n = jnp.asarray(count, jnp.float32) + 1.0
        decay = jnp.minimum(n**-0.5, n * self.warmup**-1.5)
        return self.scale * self.width**-0.5 * decay


@dataclass(frozen=True)
class Linear(Schedule):
    """Linear from 0 to `peak` over `warmup` updates, then linear to `end` at the last step."""

    peak: float = 1e-3
    warmup: int = 1000
    end: float = 0.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate."""
        up, progress = _progress(count, self.warmup, steps)
        return jnp.where(up < 1.0, self.peak * up, self.peak + (self.end - self.peak) * progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear from 0 to `peak` over `warmup` updates, then half a cosine to `end`."""

    peak: float = 1e-3
    warmup: int = 1000
    end: float = 0.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate (Loshchilov and Hutter 2016, equation 5, without restarts)."""
        up, progress = _progress(count, self.warmup, steps)
        wave = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(up < 1.0, self.peak * up, self.end + (self.peak - self.end) * wave)


def _progress(count: Count, warmup: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """Shares of the warm-up and of the decay after it that are done by this update."""
    n = jnp.asarray(count, jnp.float32) + 1.0
    up = n / max(warmup, 1)
    return up, jnp.clip((n - warmup) / max(steps - warmup, 1), 0.0, 1.0)
