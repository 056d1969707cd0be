"""Goodput: the share of a run's wall time spent in training steps, and what took the rest.

Every second since a run was first started counts as exactly one kind, over all of its starts. A
checkpoint keeps the sums. Work done after a checkpoint and lost with a host counts as `restart`, as
do the time between two starts and all that a start needs until its first step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from jaxformers.training.reports.progress import duration

KINDS = ("steps", "compile", "data wait", "checkpoint", "evaluation", "restart")
TIME = "time"


class Goodput:
    """A run's seconds by kind of work.

    Args:
        record: from `record()` of an earlier start, to go on from.
        began: Unix time of this start, for a run without a record.
    """

    def __init__(self, record: Mapping[str, float] | None = None, began: float | None = None):
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._last = began or time.time()
        self.restore(record or {})

    def restore(self, record: Mapping[str, float]) -> None:
        """Replaces the sums by those of a checkpoint's record; time since then is not yet counted.

        The next `record_time` thus attributes the time since the checkpoint was written.
        """
        self.seconds = {kind: float(record.get(kind, 0.0)) for kind in KINDS}
        self._last = float(record.get(TIME, self._last))

    def record_time(self, kind: str) -> None:
        """Counts the time since the previous call as `kind`."""
        now = time.time()
        # A clock that was set back must not take time from a run.
        self.seconds[kind] += max(0.0, now - self._last)
        self._last = now

    @property
    def fraction(self) -> float:
        """Share of the wall time spent in training steps, from 0 to 1."""
        total = sum(self.seconds.values())
        return self.seconds["steps"] / total if total else 0.0

    def record(self) -> dict[str, float]:
        """The sums and the time of the last call of `record_time`, for a checkpoint."""
        return {**self.seconds, TIME: self._last}

    def summary(self) -> str:
        """`1:02:03: steps 81.2 %, compile 9.0 %, ...`, the largest first."""
        total = sum(self.seconds.values()) or 1.0
        ranked = sorted(self.seconds.items(), key=lambda item: -item[1])
        shares = (f"{kind} {100 * seconds / total:.1f} %" for kind, seconds in ranked if seconds)
        return f"{duration(total)}: {', '.join(shares)}"
