"""Short messages over TCP: a line of JSON each, bounded, and no line trusted to be one."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

LONGEST = 1 << 20
"""Bytes of a message; who sends more is cut off."""
QUIET, PROBES = 5, 3
"""Seconds between the kernel's questions whether a silent peer's machine is there; how many."""


class Wire:
    """One connection: what has come lies in `inbox`; `open` is False once the peer has gone."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(10.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A machine that vanishes says no goodbye: the kernel finds out, whatever Python does.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", QUIET),
            ("TCP_KEEPINTVL", QUIET),
            ("TCP_KEEPCNT", PROBES),
            ("TCP_USER_TIMEOUT", 1000 * QUIET * (PROBES + 1)),
        ):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.socket = connection
        self.open = True
        self.inbox: deque[dict[str, Any]] = deque()
        self._come = b""

    def fileno(self) -> int:
        """The socket's file descriptor, by which `select` waits for it."""
        return self.socket.fileno()

    def send(self, **message: Any) -> None:
        """Sends a message; a peer that cannot take it counts as gone."""
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.open = False

    def receive(self) -> None:
        """Takes what has come into `inbox`, to be called when the socket is readable."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        *lines, self._come = (self._come + data).split(b"\n")
        self.open = self.open and bool(data) and len(self._come) <= LONGEST
        for line in lines:
            if (message := _parsed(line)) is None:
                self.open = False  # whoever this is, it is none of ours
                break
            self.inbox.append(message)

    def close(self) -> None:
        """Closes the connection; the peer sees its end."""
        self.open = False
        with contextlib.suppress(OSError):
            self.socket.close()


def wait_readable(sources: Iterable[Wire | socket.socket], seconds: float) -> list[Any]:
    """Those of `sources` that have data, or their end, to receive, after `seconds` at most.

    Any number of them: `select.select` would fail from the 1,024th file descriptor on.
    """
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line) if len(line) <= LONGEST else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
