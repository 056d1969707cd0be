"""Starts a run again when a host was lost or stopped; on each host, until the run has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from jaxformers.pod.peer_monitor import LOST, STOPPED

RESUMED = (STOPPED, LOST, 137)
"""Exit statuses after which the same command goes on: stopped, a host lost (SIGABRT, SIGKILL)."""
PAUSE = 1.0
"""Seconds before a new start."""
PARENT = "JAXFORMERS_PARENT"


def supervise(command: Sequence[str], restarts: int) -> int:
    """Runs `command` and starts it again up to `restarts` times; its last exit status.

    It is started again after the statuses `RESUMED`, with a line that says so. SIGTERM and SIGINT
    are handed on to it; after one it is not started again, for this machine is about to go.
    """
    end_with_parent()
    children: list[subprocess.Popen] = []
    with forwarding(children) as signals_received:
        for start in range(1, restarts + 2):
            status = _run(command, children, signals_received)
            if signals_received or status not in RESUMED:
                # The signal came before the command could handle it.
                return STOPPED if status == 128 + signal.SIGTERM else status
            words = {STOPPED: "stopped", LOST: "ended by a lost host", 137: "killed"}[status]
            next_one = f"start {start + 1} of {restarts + 1}" if start <= restarts else "giving up"
            _say(f"the run was {words} (status {status}); {next_one}")
            time.sleep(PAUSE if start <= restarts else 0)
            if signals_received:
                return STOPPED
    return status


def _run(
    command: Sequence[str], children: list[subprocess.Popen], signals_received: list[int]
) -> int:
    """One start's status; 128 + the signal where one ended it."""
    environment = {**os.environ, PARENT: str(os.getpid())}
    # A session of its own: a terminal's Ctrl-C must reach it once, through us, not twice.
    children[:] = [subprocess.Popen(command, env=environment, start_new_session=True)]
    if signals_received:  # while the process was made
        children[0].send_signal(signals_received[-1])
    status = children[0].wait()
    end_all(children)
    return 128 - status if status < 0 else status


def end_all(children: Sequence[subprocess.Popen]) -> None:
    """Ends processes that have sessions of their own, and all that they started.

    A process that was killed leaves its data workers behind, which wait for it for ever.
    """
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    for child in children:
        child.wait()


@contextlib.contextmanager
def forwarding(children: list[subprocess.Popen]) -> Iterator[list[int]]:
    """Hands SIGINT and SIGTERM on to `children`, which save and stop; gives those that came."""
    signals_received: list[int] = []

    def forward(number: int, _frame: object) -> None:
        signals_received.append(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield signals_received
        return
    before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals_received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Ends this process when the one that launched it is gone, so that none is left over."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="launcher watch").start()


def _say(line: str) -> None:
    print(f"jaxformers: {line}", file=sys.stderr, flush=True)
