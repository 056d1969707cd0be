"""Monitors the hosts of a run: their progress, what they agree on, and ending together.

The rendezvous leaves a connection open from every host to host 0, on which these messages pass:

    step                 host -> 0, every `BEAT` seconds: the last step that the host has done
    facts, then answer   every host -> 0, 0 -> all once all have sent: what differs, or ""
    failed, why          host -> 0: an error on that host, with its exit status
    end, why             0 -> all: every host ends now with this status
    bye                  host -> 0, 0 -> all once all have sent: the run is over

A connection that breaks without a message means that its host is lost: all others end at once with
status `LOST`, to be started again. An error on a host ends all only `GRACE` seconds later, since a
lost host, of which the connection may tell later, is often its cause. JAX's own heartbeat, which is
much slower, finds what this cannot see.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxformers.errors import ConfigError, UserError
from jaxformers.pod.consistency import Facts, disagreements
from jaxformers.pod.host_environment import Pod, own_name
from jaxformers.pod.json_lines import Wire, wait_readable

FINISHED, MISTAKE, STOPPED, LOST = 0, 2, 75, 134
"""Exit statuses: done; a person's mistake; stopped or hosts missing; a host was lost."""
BEAT = 2.0
"""Seconds between two messages that tell a host's step."""
GRACE = 3.0
"""Seconds after a host's error in which a lost host, its likely cause, may become known."""

APART = ("Gloo context initialization failed", "GetKeyValue() timed out")
"""What a JAX error holds when a host waited in vain for another, which is there, but late."""


class Ended(Exception):
    """The pod ends with `status`, for the reason that the exception's text gives."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


class Link:
    """This process's ties to the others; in a run of one process every call does nothing.

    `with link:` makes an error on this host end all hosts, and this one without Python's own
    exit, which would wait for them.
    """

    def __init__(
        self,
        pod: Pod | None = None,
        names: Sequence[str] = (),
        coordinator: str = "",
        wires: Mapping[int, Wire] | None = None,
    ):
        self.pod = pod or Pod(0, 1, "")
        self.names = names or [own_name()]
        self.coordinator = coordinator
        """Where JAX's own service is to be: agreed on anew at each start."""
        self.began = self.pod.began
        """Unix time at which this start of the run under way began."""
        self._wires = wires or {}
        self._first = self.pod.process == 0
        self._seen = {p: (0, time.time()) for p in range(self.pod.processes)}
        self._done: set[int] = set()
        self._facts: dict[int, Facts] = {}
        self._answer: str | None = None
        self._failed: dict[int, tuple[float, int, str]] = {}  # when; its status; why
        self._failing = self._closing = False
        self._verdict: tuple[int, str] | None = None
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._watch, daemon=True, name="pod")
        if self._wires:
            self._thread.start()

    # ------------------------------------------------------------------ for the run

    def note(self, step: int) -> None:
        """This host has done `step`."""
        self._seen[self.pod.process] = (step, time.time())

    def hosts(self) -> list[dict[str, Any]]:
        """Every host's number, name, last step and when it told it; complete on host 0 alone."""
        return [
            {"process": process, "host": self.names[process], "step": step, "time": when}
            for process, (step, when) in sorted(self._seen.items())
        ]

    def agree(self, facts: Facts) -> None:
        """Returns when every host has given the same `facts`, however long that takes.

        Raises:
            ConfigError: they differ; which hosts, in what. On all hosts.
        """
        if not self._wires:
            return
        with self._changed:
            self._answer = None
        if self._first:
            self._collect(0, facts)
        else:
            self._tell(facts=facts)
        self._wait(lambda: self._answer is not None)
        if self._answer:
            raise ConfigError(self._answer)

    def leave(self) -> None:
        """Returns when every host has come here: none is to wait for another at its exit."""
        if not self._wires:
            return
        if self._first:
            self._wait(lambda: len(self._done) == self.pod.processes - 1)
        with self._changed:
            self._tell(bye=True)
            self._closing = self._first
        self._wait(lambda: self._closing)
        self._thread.join()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None or not self._wires or self._closing:
            return
        status, why = _status_and_line(error)
        self._failing = True
        if self._first:
            self._failed[0] = (time.monotonic(), status, why)
        else:
            self._tell(failed=status, why=why)
        with self._changed:
            self._changed.wait_for(lambda: self._verdict is not None, timeout=2 * GRACE)
        if self._verdict and self._verdict[0] == LOST:
            _exit(*self._verdict)
        if status == 1:
            traceback.print_exception(error)
        _exit(status, "" if status == 1 else why)

    # ------------------------------------------------------------------ behind it

    def _called(self, process: int) -> str:
        return self.pod.called(process, self.names[process])

    def _wait(self, true: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(true)

    def _tell(self, **message: Any) -> None:
        """To host 0; from there to all."""
        with self._changed:
            for wire in self._wires.values():
                wire.send(**message)

    def _watch(self) -> None:
        """Takes messages, tells this host's step, and ends the process when it has to."""
        last_beat = 0.0
        while not self._closing:
            open_wires = [wire for wire in self._wires.values() if wire.open]
            for wire in wait_readable(open_wires, 0.2):
                wire.receive()
            for process, wire in self._wires.items():
                self._empty(process, wire)
            if not self._first and time.monotonic() - last_beat > BEAT:
                last_beat = time.monotonic()
                self._tell(step=self._seen[self.pod.process][0])
            self._end_after_error()
        for wire in self._wires.values():
            wire.close()

    def _empty(self, process: int, wire: Wire) -> None:
        """Takes a host's messages, and notes when it has gone."""
        while wire.inbox:
            try:
                self._take(process, wire.inbox.popleft())
            except (AttributeError, TypeError, ValueError):
                wire.open = False
        with self._changed:
            if not (wire.open or self._closing or self._verdict or process in self._failed):
                step = self._seen[process][0]
                self._end(LOST, f"{self._called(process)} was lost after step {step}; start again")

    def _take(self, process: int, message: dict[str, Any]) -> None:
        with self._changed:
            if "step" in message:
                self._seen[process] = (int(message["step"]), time.time())
            if "facts" in message:
                self._collect(process, dict(message["facts"]))
            if "answer" in message:
                self._answer = str(message["answer"])
            if "failed" in message:
                status = int(message["failed"])
                self._failed[process] = (time.monotonic(), status, str(message.get("why")))
            if "end" in message:
                self._end(int(message["end"]), str(message.get("why")))
            if "bye" in message:
                self._done.add(process)
                self._closing = self._closing or not self._first
            self._changed.notify_all()

    def _collect(self, process: int, facts: Facts) -> None:
        """On host 0: compares when all have come, and answers all."""
        with self._changed:
            self._facts[process] = facts
            if len(self._facts) < self.pod.processes:
                return
            sentences, self._facts = disagreements(self._facts, self._called), {}
            self._answer = f"the hosts disagree: {'; '.join(sentences)}" if sentences else ""
            self._tell(answer=self._answer)
            self._changed.notify_all()

    def _end_after_error(self) -> None:
        """On host 0: ends all after a host's error, unless a lost host turns out to be why."""
        if not (self._first and self._failed) or self._verdict:
            return
        process, (when, status, why) = next(iter(self._failed.items()))
        if time.monotonic() - when > GRACE:
            self._end(status, f"{self._called(process)} ended: {why}")

    def _end(self, status: int, why: str) -> None:
        """All hosts end; the one that is about to by an error of its own says that itself."""
        with self._changed:
            self._verdict = (status, why)
            if self._first:
                self._tell(end=status, why=why)
            self._changed.notify_all()
        if not self._failing:
            _exit(status, why)


def _status_and_line(error: BaseException) -> tuple[int, str]:
    line = " ".join(str(error).split())
    if isinstance(error, Ended):
        return error.status, line
    if isinstance(error, UserError):
        return MISTAKE, line
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if any(words in line for words in APART):
        return STOPPED, f"the hosts did not meet in time ({line[:200]}); start again"
    return 1, f"{type(error).__name__}: {line[:300]}"


def _exit(status: int, line: str) -> None:
    """Ends the process at once, whatever its other threads do."""
    if line:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a bar has hidden the cursor
        print(f"{show_cursor}jaxformers: {line}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    for worker in multiprocessing.active_children():
        worker.kill()  # of the data: it would wait for this process for ever
    os._exit(status)
