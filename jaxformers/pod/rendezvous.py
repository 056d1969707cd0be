"""Rendezvous before JAX connects the hosts: all present, with equal code and configuration.

Messages are lines of JSON over TCP, to host 0 at the coordinator's address, where alone it listens.
In order:

1. Every other host connects, again and again until host 0 listens. Host 0 sends
   `{jaxformers: PROTOCOL, challenge}`, a random number.
2. The host sends `{jaxformers: PROTOCOL, process, name, facts, challenge, proof}`; `facts` are what
   all hosts must agree on. The proof is an HMAC of both challenges and the rest of the message
   under the pod's secret, which is never sent. Host 0 answers `{proof}`, an HMAC of its own.
   Whoever shows no proof is disconnected, on either side.
3. Host 0 waits until all have come, sending `{waiting}` every `BEAT` seconds, and compares the
   facts. A host that connects again, as after a restart, replaces its earlier connection; one that
   disconnects counts as absent.
4. Host 0 answers all at once. Either `{go: "host:port", names}`, with the address at which JAX's
   own service will listen; or `{end: status, why}`, naming the hosts that are missing or that
   differ.

Connections stay open after `go`, for `peer_monitor`. They are authenticated, not encrypted.

Deadlines: `Pod.deadline` (by default 300 s) is how long host 0 waits for all hosts, and how long
another host waits without a proven sign of host 0, whatever listens at its port: silent, speaking
something else, or stopped. A connection has `PATIENCE` seconds for each step of the proof. JAX's
initialisation afterwards has `Pod.deadline` again, for itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jaxformers.errors import ConfigError, printable
from jaxformers.pod.consistency import Facts, disagreements, listed
from jaxformers.pod.host_environment import COORDINATOR, SECRET_FILE, Pod, own_name
from jaxformers.pod.json_lines import Wire, wait_readable
from jaxformers.pod.open_files import raise_open_file_limit
from jaxformers.pod.peer_monitor import MISTAKE, STOPPED, Ended, Link

PROTOCOL = 2
STRANGERS = 256
"""Connections that may be proving who they are; while there are as many, others wait."""
PATIENCE = 10.0
"""Seconds in which a connection must do so."""
BEAT = 1.0
"""Seconds between two signs of host 0 to the hosts that wait."""
REMIND = 30.0
"""Seconds between two lines that say for whom we wait."""
WARNINGS = 5
"""Lines at most about connections with another secret."""

Say = Callable[[str], None]
Message = dict[str, Any]


def roll_call(pod: Pod, facts: Facts, say: Say = print) -> Link:
    """Returns this host's link to the others once all are there and agree.

    Raises:
        Ended: with status 75, naming the hosts that were missing at the pod's deadline.
        ConfigError: a pod without a secret; or naming the hosts that differ, and in what.
    """
    if not pod.secret:
        raise ConfigError(f"the pod has no secret: {SECRET_FILE} names its file")
    facts = {**facts, "the number of hosts": str(pod.processes)}
    if pod.process:
        return _Visitor(pod, facts, say).attend()
    raise_open_file_limit(pod.processes)
    return _Coordinator(pod, facts, say).hold()


def host_proof(secret: bytes, challenges: tuple[str, str], hello: Message) -> str:
    """The proof of a host: an HMAC of host 0's challenge, its own, and what it says of itself."""
    body = {key: hello[key] for key in ("process", "name", "facts")}
    return _hmac(secret, ["host", *challenges, json.dumps(body, sort_keys=True)])


def coordinator_proof(secret: bytes, challenges: tuple[str, str]) -> str:
    """The proof of host 0: an HMAC of the same challenges."""
    return _hmac(secret, ["coordinator", *challenges])


def _hmac(secret: bytes, words: list[str]) -> str:
    return hmac.new(secret, json.dumps(words).encode(), hashlib.sha256).hexdigest()


def _equal(proof: Any, expected: str) -> bool:
    return isinstance(proof, str) and hmac.compare_digest(
        proof.encode(errors="replace"), expected.encode()
    )


@dataclass
class _Coordinator:
    """Host 0 at the roll-call."""

    pod: Pod
    facts: Facts
    say: Say
    strangers: dict[Wire, tuple[float, str]] = field(default_factory=dict)
    """Connections without a proof as yet: when each came, and its challenge."""
    connected: dict[int, tuple[Wire, str, Facts]] = field(default_factory=dict)
    """By process: its connection, name and facts."""
    num_warnings: int = 0

    def hold(self) -> Link:
        """Waits for all and answers them."""
        start = reminded = beat = time.monotonic()
        with _listening(self.pod, start + self.pod.deadline) as listener:
            while len(self.connected) < self.pod.processes - 1:
                now = time.monotonic()
                if now > start + self.pod.deadline:
                    late = f"did not come within {self.pod.deadline:g} s"
                    self.refuse(STOPPED, f"{self.missing()} {late}")
                if now - reminded > REMIND:
                    reminded = now
                    self.say(f"waiting for {self.missing()}")
                if now - beat > BEAT:
                    beat = now
                    for wire, _, _ in self.connected.values():
                        wire.send(waiting=self.pod.processes - 1 - len(self.connected))
                self.listen(listener)
        for wire in self.strangers:  # of the next start, perhaps: it is to come again
            wire.close()
        everyone = {0: self.facts} | {p: facts for p, (_, _, facts) in self.connected.items()}
        if sentences := disagreements(everyone, self.called):
            self.refuse(MISTAKE, f"the hosts disagree: {'; '.join(sentences)}")
        return self.go()

    def listen(self, listener: socket.socket) -> None:
        """Handles new connections, messages, and connections that have ended."""
        wires = [*self.strangers, *(wire for wire, _, _ in self.connected.values())]
        listeners = [listener] if len(self.strangers) < STRANGERS else []
        for source in wait_readable([*listeners, *wires], 0.5):
            if source is listener:
                self.accept(listener)
                continue
            source.receive()
            while source.inbox:
                self.welcome(source, source.inbox.popleft())
        self.connected = {p: host for p, host in self.connected.items() if host[0].open}
        late = time.monotonic() - PATIENCE
        for wire, (since, _) in [*self.strangers.items()]:
            if not wire.open or since < late:
                del self.strangers[wire]
                wire.close()

    def accept(self, listener: socket.socket) -> None:
        """Sends a challenge to every new connection."""
        with contextlib.suppress(OSError):  # BlockingIOError: no further one waits
            while len(self.strangers) < STRANGERS:
                wire, challenge = Wire(listener.accept()[0]), secrets.token_hex(16)
                self.strangers[wire] = time.monotonic(), challenge
                wire.send(jaxformers=PROTOCOL, challenge=challenge)

    def welcome(self, wire: Wire, message: Message) -> None:
        """A host of this pod by its first message; any other connection is closed."""
        _, challenge = self.strangers.pop(wire, (0.0, ""))
        process, name = message.get("process"), printable(message.get("name"))
        if not challenge or not _is_hello(message):
            return wire.close()
        challenges = challenge, message["challenge"]
        if not _equal(message["proof"], host_proof(self.pod.secret, challenges, message)):
            self.num_warnings += 1
            if self.num_warnings <= WARNINGS:
                self.say(f"{name} came with another secret, as host {process}; not counted")
            return wire.close()
        if not 0 < process < self.pod.processes:
            self.say(f"{name} came as host {process} of {self.pod.processes}; not counted")
            return wire.close()
        wire.send(proof=coordinator_proof(self.pod.secret, challenges))
        if process in self.connected:  # an earlier start of the same host
            self.connected[process][0].close()
        self.connected[process] = wire, name, {str(k): str(v) for k, v in message["facts"].items()}

    def called(self, process: int) -> str:
        """A host by its number and the name that it gave."""
        name = (
            self.connected[process][1] if process in self.connected else own_name() * (process == 0)
        )
        return self.pod.called(process, name)

    def missing(self) -> str:
        """The hosts that have not come."""
        absent = [self.called(p) for p in range(1, self.pod.processes) if p not in self.connected]
        return f"{len(absent):,} of {self.pod.processes:,} hosts: {listed(absent)}"

    def refuse(self, status: int, why: str) -> None:
        """Ends the roll-call on every host that has come."""
        for wire, _, _ in self.connected.values():
            wire.send(end=status, why=why)
        for wire in (*self.strangers, *(host[0] for host in self.connected.values())):
            wire.close()
        raise ConfigError(why) if status == MISTAKE else Ended(status, why)

    def go(self) -> Link:
        """All are here: the port for JAX, the names, and on."""
        names = [own_name(), *(self.connected[p][1] for p in range(1, self.pod.processes))]
        # A new port at each start: no host of an earlier one can stray into this.
        with contextlib.closing(_bind(self.pod.address[0], 0)) as probe:
            port = probe.getsockname()[1]
        coordinator = f"{self.pod.coordinator.rpartition(':')[0]}:{port}"
        wires = {process: wire for process, (wire, _, _) in self.connected.items()}
        for wire in wires.values():
            wire.send(go=coordinator, names=names)
        return Link(self.pod, names, coordinator, wires)


def _is_hello(message: Message) -> bool:
    """Whether a message has the form of a host's first."""
    types = {"process": int, "name": str, "facts": dict, "challenge": str, "proof": str}
    return message.get("jaxformers") == PROTOCOL and all(
        type(message.get(key)) is kind for key, kind in types.items()
    )


@dataclass
class _Visitor:
    """Another host at the roll-call."""

    pod: Pod
    facts: Facts
    say: Say
    until: float = 0.0
    """When its patience ends: `Pod.deadline` after its start, or after host 0's last sign."""
    state: str = ""
    """What was last found at the coordinator's address."""

    def attend(self) -> Link:
        """Connects to host 0, again and again until that has answered.

        Raises:
            Ended: no answer before the deadline, or host 0 ends the roll-call.
            ConfigError: the hosts disagree.
        """
        self.until, reminded = time.monotonic() + self.pod.deadline, time.monotonic()
        host_0 = f"{self.pod.called(0)} at {self.pod.coordinator}"
        while (left := self.until - time.monotonic()) > 0:
            try:
                wire = Wire(socket.create_connection(self.pod.address, timeout=min(5.0, left)))
            except OSError as error:
                self.state = error.strerror or str(error)
            else:
                if self.introduce(wire) and (answer := self.answer(wire)):
                    return self.started(wire, answer)
                wire.close()
            if time.monotonic() - reminded > REMIND:
                reminded = time.monotonic()
                self.say(f"waiting for {host_0} ({self.state})")
            time.sleep(0.2)
        waited = f"within {self.pod.deadline:g} s"
        raise Ended(STOPPED, f"{host_0} did not answer {waited} ({self.state})")

    def introduce(self, wire: Wire) -> bool:
        """Exchanges proofs; whether host 0 of this pod is at the other end."""
        message = self.receive(wire, PATIENCE)
        challenge = message and message.get("challenge")
        if not message or message.get("jaxformers") != PROTOCOL or not isinstance(challenge, str):
            return False
        hello = {"process": self.pod.process, "name": own_name(), "facts": self.facts}
        challenges = challenge, secrets.token_hex(16)
        proof = host_proof(self.pod.secret, challenges, hello)
        wire.send(jaxformers=PROTOCOL, **hello, challenge=challenges[1], proof=proof)
        message = self.receive(wire, PATIENCE) or {}
        if _equal(message.get("proof"), coordinator_proof(self.pod.secret, challenges)):
            return True
        self.state += f"; is the file of {SECRET_FILE} the same on every host?"
        return False

    def answer(self, wire: Wire) -> Message | None:
        """The message that starts or ends the run; None when host 0 is gone or shows no sign."""
        message: Message | None = {"waiting": True}
        while message and "waiting" in message:
            self.until = time.monotonic() + self.pod.deadline
            message = self.receive(wire, self.pod.deadline)
        return message

    def receive(self, wire: Wire, seconds: float) -> Message | None:
        """The next message; None when the connection ends or nothing comes in time."""
        end = min(self.until, time.monotonic() + seconds)
        while wire.open and not wire.inbox and (left := end - time.monotonic()) > 0:
            if wait_readable([wire], left):
                wire.receive()
        if wire.inbox:
            self.state = "it speaks another protocol"
            return wire.inbox.popleft()
        self.state = "it accepts and says nothing" if wire.open else "it closed the connection"
        return None

    def started(self, wire: Wire, answer: Message) -> Link:
        """The link to the others, or the error for which host 0 has ended the roll-call."""
        if "go" in answer:
            return Link(self.pod, list(answer["names"]), str(answer["go"]), {0: wire})
        wire.close()
        status, why = int(answer.get("end", STOPPED)), str(answer.get("why"))
        raise ConfigError(why) if status == MISTAKE else Ended(status, why)


@contextlib.contextmanager
def _listening(pod: Pod, until: float) -> Iterator[socket.socket]:
    """A socket at the coordinator's address, which an earlier start may still have to free."""
    host, port = pod.address
    while True:
        try:
            listener = _bind(host, port)
            break
        except OSError as error:
            is_passing = error.errno == errno.EADDRINUSE or isinstance(error, socket.gaierror)
            if not is_passing or time.monotonic() > until:
                raise ConfigError(
                    f"cannot listen at {pod.coordinator}: {error.strerror}; {COORDINATOR} must be "
                    "an address of host 0 itself and a free port"
                ) from error
            time.sleep(0.2)
    with listener:
        listener.listen(STRANGERS)
        listener.setblocking(False)
        yield listener


def _bind(host: str, port: int) -> socket.socket:
    """A socket at this address of this host alone; OSError: it is in use, or no address of ours."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
