"""Learning-rate schedules: a warm-up, then a decay. Each is a dataclass with one method.

`rate(count, steps)` is the learning rate of the update that follows `count` earlier ones, in a run
of `steps` updates.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxformers.fields import (
    CheckedFields,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
)

Count = jax.Array | int | float


@dataclass(frozen=True)
class Schedule(CheckedFields):
    """Base class of the schedules."""

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate of update `count` (from 0) of `steps`, float32."""
        raise NotImplementedError


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    """scale * width^-0.5 * min(n^-0.5, n * warmup^-1.5), n = count + 1.

    "Attention Is All You Need", section 5.3, equation 3; the first update is n = 1.
    """

    width: PositiveInt = 512
    warmup: PositiveInt = 4000
    scale: PositiveFloat = 1.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate, whatever `steps`."""
        n = jnp.asarray(count, jnp.float32) + 1.0  # the paper counts updates from 1
        decay = jnp.minimum(n**-0.5, n * self.warmup**-1.5)
        return self.scale * self.width**-0.5 * decay


@dataclass(frozen=True)
class T5Schedule(Schedule):
    """scale / sqrt(max(n, constant)), n = count + 1 (Raffel et al. 2020, section 3.1.2).

    With the defaults 0.01 for 10,000 updates, then the inverse square root, as T5 and Unified-IO
    were trained; for Adafactor, whose rates are relative to the parameters.
    """

    constant: PositiveInt = 10_000
    """Updates of constant learning rate."""
    scale: PositiveFloat = 1.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate, whatever `steps`."""
        n = jnp.asarray(count, jnp.float32) + 1.0
        return self.scale * jnp.maximum(n, float(self.constant)) ** -0.5


@dataclass(frozen=True)
class Linear(Schedule):
    """Linear from 0 to `peak` over `warmup` updates, then linear to `end` at the last step."""

    peak: NonNegativeFloat = 1e-3
    warmup: NonNegativeInt = 1000
    end: NonNegativeFloat = 0.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate of update `count`."""
        up, progress = _progress(count, self.warmup, steps)
        return jnp.where(up < 1.0, self.peak * up, self.peak + (self.end - self.peak) * progress)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear from 0 to `peak` over `warmup` updates, then half a cosine to `end`."""

    peak: NonNegativeFloat = 1e-3
    warmup: NonNegativeInt = 1000
    end: NonNegativeFloat = 0.0

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate (Loshchilov and Hutter 2016, equation 5, without restarts)."""
        up, progress = _progress(count, self.warmup, steps)
        wave = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(up < 1.0, self.peak * up, self.end + (self.peak - self.end) * wave)


@dataclass(frozen=True)
class BertLinear(Schedule):
    """BERT's: linear from 0 to `peak`, then on the line from `peak` at step 0 to 0 at the end.

    The line starts at step 0 and not where the warm-up ends, so the rate drops there from `peak`
    to `peak (1 - warmup / steps)`; the first update has rate 0 (`optimization.py`).
    """

    peak: NonNegativeFloat = 1e-4
    warmup: NonNegativeInt = 10_000
    """Updates of the warm-up."""
    warmup_share: Fraction = 0.0
    """The warm-up as a share of all steps, in place of `warmup` when above 0."""

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate of update `count`."""
        warmup = int(steps * self.warmup_share) if self.warmup_share else self.warmup
        n = jnp.asarray(count, jnp.float32)
        line = self.peak * jnp.clip(1.0 - n / steps, 0.0, 1.0)
        return jnp.where(n < warmup, self.peak * n / max(warmup, 1), line)


@dataclass(frozen=True)
class RootDecay(Schedule):
    """One phase: linear to `peak` over a share of it, then peak * (1 - progress)^power.

    Large-batch BERT takes the root (power 0.5), with progress counted from the start of the phase.
    """

    peak: NonNegativeFloat = 6e-3
    warmup_share: Fraction = 0.2843
    power: NonNegativeFloat = 0.5

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate; the first update is one step into the warm-up."""
        progress = jnp.clip((jnp.asarray(count, jnp.float32) + 1.0) / steps, 0.0, 1.0)
        decay = (1.0 - progress) ** self.power
        up = progress / max(self.warmup_share, 1e-9)
        return self.peak * jnp.where(progress < self.warmup_share, up, decay)


@dataclass(frozen=True)
class TwoPhases(Schedule):
    """One schedule for the first updates, and a second one, starting at 0, for the others."""

    first: RootDecay = RootDecay()
    second: RootDecay = RootDecay(4e-3, 0.128)
    share: Fraction = 0.9
    """Share of all steps that the first schedule covers."""

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate of update `count`."""
        end = max(1, min(steps - 1, round(steps * self.share)))
        n = jnp.asarray(count, jnp.float32)
        # Both are computed, since `count` is traced; the other one's value is discarded.
        late = self.second.rate(n - end, max(steps - end, 1))
        return jnp.where(n < end, self.first.rate(n, end), late)


@dataclass(frozen=True)
class Steps(Schedule):
    """Linear from 0 to `peak` over `warmup` updates, then times `factor` at each boundary.

    BiT divides the rate by 10 after 30 %, 60 % and 90 % of the updates (section 3.3); `hyperrule`
    gives the boundaries for a data set.
    """

    peak: NonNegativeFloat = 0.003
    warmup: NonNegativeInt = 500
    boundaries: tuple[Fraction, ...] = (0.3, 0.6, 0.9)
    """Shares of all steps after which the rate falls."""
    factor: PositiveFraction = 0.1

    def rate(self, count: Count, steps: int) -> jax.Array:
        """The learning rate; the first update has rate 0, as in the released code."""
        n = jnp.asarray(count, jnp.float32)
        falls = sum((n >= round(share * steps)).astype(jnp.float32) for share in self.boundaries)
        up = jnp.minimum(n / max(self.warmup, 1), 1.0)
        return self.peak * up * self.factor**falls


def warmup_warning(schedule: Schedule, steps: int) -> str:
    """What to say of a warm-up that does not end before the run; empty if it does."""
    warmup = 0 if getattr(schedule, "warmup_share", 0) else getattr(schedule, "warmup", 0)
    if warmup < steps or not steps:
        return ""
    return (
        f"warning: the warm-up takes {warmup:,} steps and the run has {steps:,}, so the learning "
        f"rate never falls: set --schedule.warmup {max(1, steps // 10)}"
    )


def _progress(count: Count, warmup: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """Progress of the warm-up (may exceed 1) and of the decay after it (0 to 1) at this update."""
    n = jnp.asarray(count, jnp.float32) + 1.0
    up = n / max(warmup, 1)
    return up, jnp.clip((n - warmup) / max(steps - warmup, 1), 0.0, 1.0)
