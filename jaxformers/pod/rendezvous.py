"""Rendezvous before JAX connects the hosts: all present, with equal code and configuration.

Messages are lines of JSON over TCP, to host 0 at the coordinator's address. In order:

1. Every other host connects, again and again until host 0 listens, and sends
   `{jaxformers: PROTOCOL, process, name, facts}`; `facts` are what all hosts must agree on.
2. Host 0 waits until all have sent theirs and compares the facts. A host that connects again, as
   after a restart, replaces its earlier connection; one that disconnects counts as absent.
3. Host 0 answers all at once. Either `{go: "host:port", names}`, with the address at which JAX's
   own service will listen; or `{end: status, why}`, naming the hosts that are missing or that
   differ.

Connections stay open after `go`, for `peer_monitor`.

Deadlines: `Pod.deadline` (by default 300 s) is how long host 0 waits for all hosts, and how long
another host tries to reach host 0; once connected it waits without a limit for the answer, which
host 0's own deadline bounds. A connection that does not say who it is within `PATIENCE` is closed.
JAX's initialisation afterwards has `Pod.deadline` again, for itself.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jaxformers.errors import ConfigError
from jaxformers.pod.consistency import Facts, disagreements
from jaxformers.pod.host_environment import Pod, own_name
from jaxformers.pod.json_lines import Wire
from jaxformers.pod.peer_monitor import MISTAKE, STOPPED, Ended, Link

PROTOCOL = 1
STRANGERS = 64
"""Connections that may wait to say who they are."""
PATIENCE = 10.0
"""Seconds in which a connection must say who it is."""
REMIND = 30.0
"""Seconds between two lines that say for whom we wait."""

Say = Callable[[str], None]


def roll_call(pod: Pod, facts: Facts, say: Say = print) -> Link:
    """Returns this host's link to the others once all are there and agree.

    Raises:
        Ended: with status 75, naming the hosts that were missing at the pod's deadline.
        ConfigError: naming the hosts that differ, and in what.
    """
    facts = {**facts, "the number of hosts": str(pod.processes)}
    return _Desk(pod, facts, say).hold() if pod.process == 0 else _attend(pod, facts, say)


@dataclass
class _Desk:
    """Host 0 at the roll-call."""

    pod: Pod
    facts: Facts
    say: Say
    strangers: dict[Wire, float] = field(default_factory=dict)
    here: dict[int, tuple[Wire, str, Facts]] = field(default_factory=dict)
    """By process: its connection, name and facts."""

    def hold(self) -> Link:
        """Waits for all and answers them."""
        until, reminded = time.monotonic() + self.pod.deadline, time.monotonic()
        with _listening(self.pod, until) as listener:
            while len(self.here) < self.pod.processes - 1:
                if time.monotonic() > until:
                    late = f"did not come within {self.pod.deadline:g} s"
                    self.refuse(STOPPED, f"{self.missing()} {late}")
                if time.monotonic() - reminded > REMIND:
                    reminded = time.monotonic()
                    self.say(f"waiting for {self.missing()}")
                self.listen(listener)
        for wire in self.strangers:  # of the next start, perhaps: it is to come again
            wire.close()
        everyone = {0: self.facts} | {p: facts for p, (_, _, facts) in self.here.items()}
        if sentences := disagreements(everyone, self.called):
            self.refuse(MISTAKE, f"the hosts disagree: {'; '.join(sentences)}")
        return self.go()

    def listen(self, listener: socket.socket) -> None:
        """Takes who comes, what they say, and who goes again."""
        wires = [*self.strangers, *(wire for wire, _, _ in self.here.values())]
        ready = select.select([listener, *wires], [], [], 0.5)[0]
        if listener in ready:
            with contextlib.suppress(OSError):
                self.strangers[Wire(listener.accept()[0])] = time.monotonic()
        for wire in ready:
            if isinstance(wire, Wire):
                wire.receive()
                while wire.inbox:
                    self.welcome(wire, wire.inbox.popleft())
        self.here = {p: host for p, host in self.here.items() if host[0].open}
        late = time.monotonic() - PATIENCE
        for wire, since in [*self.strangers.items()]:
            if not wire.open or since < late or len(self.strangers) > STRANGERS:
                del self.strangers[wire]
                wire.close()

    def welcome(self, wire: Wire, message: dict) -> None:
        """A host of this pod by its first message; any other connection is cut off."""
        process, facts, name = (message.get(key) for key in ("process", "facts", "name"))
        is_hello = message.get("jaxformers") == PROTOCOL and isinstance(facts, dict)
        if self.strangers.pop(wire, None) is None or not is_hello or not isinstance(process, int):
            return wire.close()
        if not 0 < process < self.pod.processes:
            self.say(f"{name} came as host {process} of {self.pod.processes}; not counted")
            return wire.close()
        if process in self.here:  # an earlier start of the same host
            self.here[process][0].close()
        self.here[process] = (wire, str(name), {str(k): str(v) for k, v in facts.items()})

    def called(self, process: int) -> str:
        """A host by its number and the name that it gave."""
        name = self.here[process][1] if process in self.here else own_name() * (process == 0)
        return self.pod.called(process, name)

    def missing(self) -> str:
        """The hosts that have not come."""
        absent = [self.called(p) for p in range(1, self.pod.processes) if p not in self.here]
        return f"{len(absent)} of {self.pod.processes} hosts: {', '.join(absent)}"

    def refuse(self, status: int, why: str) -> None:
        """Ends the roll-call on every host that has come."""
        for wire, _, _ in self.here.values():
            wire.send(end=status, why=why)
        for wire in (*self.strangers, *(host[0] for host in self.here.values())):
            wire.close()
        raise ConfigError(why) if status == MISTAKE else Ended(status, why)

    def go(self) -> Link:
        """All are here: the port for JAX, the names, and on."""
        names = [own_name(), *(self.here[p][1] for p in range(1, self.pod.processes))]
        # A new port at each start: no host of an earlier one can stray into this.
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        coordinator = f"{self.pod.coordinator.rpartition(':')[0]}:{port}"
        wires = {process: wire for process, (wire, _, _) in self.here.items()}
        for wire in wires.values():
            wire.send(go=coordinator, names=names)
        return Link(self.pod, names, coordinator, wires)


def _attend(pod: Pod, facts: Facts, say: Say) -> Link:
    """Another host: comes to host 0 until it is there, and waits for its answer."""
    until, reminded = time.monotonic() + pod.deadline, time.monotonic()
    hello = {"process": pod.process, "name": own_name(), "facts": facts}
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            wire = Wire(socket.create_connection(pod.address, timeout=5))
            wire.send(jaxformers=PROTOCOL, **hello)
            if answer := _answer(wire):
                return _started(pod, wire, answer)
        if time.monotonic() - reminded > REMIND:
            reminded = time.monotonic()
            say(f"waiting for {pod.called(0)} at {pod.coordinator}")
        time.sleep(0.2)
    raise Ended(
        STOPPED, f"{pod.called(0)} did not answer at {pod.coordinator} within {pod.deadline:g} s"
    )


def _answer(wire: Wire) -> dict | None:
    """What host 0 says, which has a deadline of its own; None where it goes away."""
    while wire.open:
        if select.select([wire], [], [], 1.0)[0]:
            wire.receive()
        if wire.inbox:
            return wire.inbox.popleft()
    wire.close()
    return None


def _started(pod: Pod, wire: Wire, answer: dict) -> Link:
    if "go" in answer:
        return Link(pod, list(answer["names"]), str(answer["go"]), {0: wire})
    wire.close()
    status, why = int(answer.get("end", STOPPED)), str(answer.get("why"))
    raise ConfigError(why) if status == MISTAKE else Ended(status, why)


@contextlib.contextmanager
def _listening(pod: Pod, until: float) -> Iterator[socket.socket]:
    """A socket on the coordinator's port, which an earlier start may still have to free."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                listener.bind(("", pod.address[1]))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise ConfigError(
                        f"cannot listen at port {pod.address[1]}: {error.strerror}; give another "
                        "coordinator"
                    ) from error
                time.sleep(0.2)
        listener.listen(STRANGERS)
        yield listener
