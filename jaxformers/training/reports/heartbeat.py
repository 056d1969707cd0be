"""`status.json`: where a run stands, for whoever watches it from outside."""

from __future__ import annotations

import json
import threading
import time
from math import isfinite
from typing import Any

from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.pod.peer_monitor import Link
from jaxformers.training.reports.goodput import TIME, Goodput
from jaxformers.training.reports.run_files import replace_file
from jaxformers.training.stored_files import DamagedFile, read_json

STATUS = "status.json"
WRITTEN = 5.0
"""Seconds between two writes of the file, at least."""
TOLD = 60.0
"""Seconds between two lines in the log that tell each host's step."""


class Heartbeat:
    """Host 0 tells the run's step, loss, goodput and the last step of each host.

    Keys: `time` (Unix seconds), `step`, `steps` (at the end), `loss`, `goodput` (0 to 1), `seconds`
    (by kind), `state` (running, stopped or finished) and `hosts` (each `process`, `host`, `step`
    and `time`).

    The file is replaced in a thread, for a bucket may take its time; a write that fails is tried
    again with the next step.

    Args:
        folder: the run's folder.
        link: this host's link to the others.
        goodput: of the run.
        steps: at which the run ends.
        main: False on all hosts but host 0, which only note their steps.
    """

    def __init__(
        self, folder: epath.Path, link: Link, goodput: Goodput, steps: int, main: bool = True
    ):
        self.path, self.link, self.goodput = folder / STATUS, link, goodput
        self.steps, self._main = steps, main
        self._written, self._told = 0.0, time.monotonic()
        self._thread: threading.Thread | None = None
        self._last: dict[str, Any] = {}

    def step(self, step: int, loss: float) -> str | None:
        """Notes that `step` is done; from time to time a line for the log."""
        self.link.note(step)
        if not self._main:
            return None
        self._last = {"step": step, "steps": self.steps, "loss": loss}
        now = time.monotonic()
        idle = self._thread is None or not self._thread.is_alive()
        if idle and now - self._written >= WRITTEN:
            self._written = now
            self._thread = threading.Thread(target=self._write, args=("running",), daemon=True)
            self._thread.start()
        if self.link.pod.processes == 1 or now - self._told < TOLD:
            return None
        self._told = now
        return "last steps: " + ", ".join(f"{h['host']} {h['step']}" for h in self.link.hosts())

    def close(self, state: str) -> None:
        """The last word on this start: `stopped` or `finished`."""
        if self._thread is not None:
            self._thread.join()
        if self._main and self._last:
            self._write(state)

    def _write(self, state: str) -> None:
        spent = {"goodput": self.goodput.fraction, "seconds": self.goodput.record()}
        details = {**self._last, **spent, "state": state, "hosts": self.link.hosts()}
        status = {"time": time.time(), **details}
        try:
            replace_file(self.path, json.dumps(status).encode())
        except CheckpointError:
            self._written = 0.0


def read_lost_time(folder: epath.Path) -> dict[str, float] | None:
    """For `Goodput`: what starts that left no checkpoint took, all of it to be done again."""
    try:
        seconds = read_json(folder / STATUS)["seconds"]
        when = float(seconds.pop(TIME))
        lost = sum(map(float, seconds.values()))
    except (OSError, DamagedFile, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return {"restart": lost, TIME: when} if isfinite(lost) and isfinite(when) else None
