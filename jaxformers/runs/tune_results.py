"""The results of a tune: one `TunedRun` for each run of the grid, and the best of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from etils import epath


@dataclass(frozen=True)
class TunedRun:
    """The result of one run of the grid."""

    name: str
    """Its directory, relative to the tune's."""
    values: dict[str, str]
    """The tuned fields' values, by field path."""
    seed: int
    metrics: dict[str, float]
    """Of the final evaluation; empty if the run diverged."""
    hours: float
    """Training and compilation, restarts included."""
    problem: str = ""
    """Why there are no metrics."""


@dataclass(frozen=True)
class TuneResult:
    """The results of all runs of a tune so far."""

    folder: epath.Path
    metric: str
    """The metric that selects the best run."""
    lowest: bool
    """Whether the lowest value is the best."""
    runs: list[TunedRun]
    finished: bool
    """False if the tune was stopped; the same call resumes it."""

    @property
    def best(self) -> TunedRun | None:
        """The run with the best metric, the first of equals; None if no run has a finite value."""
        finite = [run for run in self.runs if math.isfinite(self.value(run))]
        sign = -1 if self.lowest else 1
        return max(finite, key=lambda run: sign * self.value(run), default=None)

    def value(self, run: TunedRun) -> float:
        """The run's value of the selecting metric; NaN if it has none."""
        return run.metrics.get(self.metric, math.nan)
