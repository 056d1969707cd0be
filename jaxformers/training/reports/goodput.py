"""Goodput: the share of a run's wall time that was training steps, and what the rest was.

Every second since a run was first started is one kind's, over all of its starts. A checkpoint
keeps the sums; what was done after it and lost with a host counts as `restart`, as do the time
between two starts and all that a start needs until its first step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from jaxformers.training.reports.progress import duration

KINDS = ("steps", "compile", "data wait", "checkpoint", "evaluation", "restart")
TIME = "time"


class Goodput:
    """A run's seconds by kind: `spent(kind)` gives it the time since the call before.

    Args:
        kept: what `record` gave when the checkpoint that the run goes on from was written.
        began: Unix time of this start, for a run that begins.
    """

    def __init__(self, kept: Mapping[str, float] | None = None, began: float | None = None):
        kept = kept or {}
        self.seconds = {kind: float(kept.get(kind, 0.0)) for kind in KINDS}
        self._last = float(kept.get(TIME, began or time.time()))

    def spent(self, kind: str) -> None:
        """The time since the last call was `kind`."""
        now = time.time()
        # A clock that was set back must not take time from a run.
        self.seconds[kind] += max(0.0, now - self._last)
        self._last = now

    @property
    def share(self) -> float:
        """Of the wall time: the steps', from 0 to 1."""
        total = sum(self.seconds.values())
        return self.seconds["steps"] / total if total else 0.0

    def record(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {**self.seconds, TIME: self._last}

    def words(self) -> str:
        """`1:02:03: steps 81.2 %, compile 9.0 %, ...`, the largest first."""
        total = sum(self.seconds.values()) or 1.0
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        shares = (f"{kind} {100 * spent / total:.1f} %" for kind, spent in parts if spent)
        return f"{duration(total)}: {', '.join(shares)}"
