"""SIGTERM and Ctrl-C make a run save and stop; a second one stops it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """`with StopSignals() as stop:`; the loop calls `stop.reached(step)` after each step.

    The first signal sets `requested` to its name and passes a line to `report`; the second exits at
    once with status 128 + its number. Outside the main thread Python allows no signal handlers:
    there this does nothing and `requested` stays None.

    Several processes must stop at the same step, which JAX's preemption service agrees on. It
    handles SIGTERM itself, so no handler is set for SIGTERM, and Ctrl-C is forwarded to it. There
    only a second Ctrl-C exits at once.
    """

    def __init__(self, report: Callable[[str], None] = print):
        self.requested: str | None = None
        self._report = report
        self._previous: dict[int, object] = {}
        self._multi_process = jax.process_count() > 1
        self._agreed = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            handled = (signal.SIGINT,) if self._multi_process else _SIGNALS
            self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: the previous handler was not set from Python and cannot be set from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`: the same in every process; every process must call it."""
        if not self._multi_process:
            return self.requested is not None
        if not self._agreed and multihost_utils.reached_preemption_sync_point(step):
            self._agreed = True
            if self.requested is None:
                self.requested = "SIGTERM"
                self._report("SIGTERM: saving, then stopping")
        return self._agreed

    def _handle(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested is not None:
            os._exit(128 + number)
        self.requested = name
        # A signal may arrive inside a write to the same stream, which Python forbids to re-enter.
        with contextlib.suppress(RuntimeError):
            self._report(f"{name}: saving, then stopping; a second one stops at once")
        if self._multi_process:
            os.kill(os.getpid(), signal.SIGTERM)
