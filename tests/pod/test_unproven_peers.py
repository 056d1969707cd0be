"""Whatever listens at host 0's port, or connects to it, the deadline ends the wait with a line."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_rendezvous import FACTS, SECRET, connected, free_port, greet, pods

from jaxformers.errors import ConfigError
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.open_files import PER_HOST, RESERVED, raise_open_file_limit
from jaxformers.pod.peer_monitor import STOPPED, Ended
from jaxformers.pod.rendezvous import PROTOCOL, roll_call

ROOT = Path(__file__).resolve().parents[2]
CHALLENGE = json.dumps({"jaxformers": PROTOCOL, "challenge": "0" * 32}).encode() + b"\n"


@contextlib.contextmanager
def listener(behave):
    """A port where every connection is handed to `behave`, which keeps it open."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    with contextlib.suppress(OSError):
                        behave(connections[-1])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def attend(port, deadline=0.5, processes=2):
    """How the second host's roll-call ends, and the seconds it took."""
    start = time.monotonic()
    with pytest.raises(Ended) as ended:
        pod = Pod(1, processes, f"127.0.0.1:{port}", deadline=deadline, secret=SECRET)
        roll_call(pod, FACTS, lambda line: None)
    assert ended.value.status == STOPPED and "\n" not in str(ended.value)
    return str(ended.value), time.monotonic() - start


@pytest.mark.default_cases(4)
@pytest.mark.parametrize(
    ("behave", "state"),
    [
        (lambda peer: None, "it accepts and says nothing"),
        (lambda peer: peer.sendall(b"\x16\x03\x01\x00\x05hello\n"), "it closed the connection"),
        (lambda peer: peer.sendall(CHALLENGE[:20]), "it accepts and says nothing"),
        (lambda peer: peer.close(), "it closed the connection"),
        (lambda peer: peer.sendall(b'{"port": 1}\n'), "it speaks another protocol"),
        (lambda peer: peer.sendall(CHALLENGE), "is the file of JAXFORMERS_SECRET_FILE the same"),
        (
            lambda peer: peer.sendall(CHALLENGE + b'{"proof": "0"}\n{"go": "127.0.0.1:1"}\n'),
            "is the file of JAXFORMERS_SECRET_FILE the same",
        ),
    ],
    ids=["silent", "garbage", "half a line", "closes", "another", "no proof", "false proof"],
)
def test_a_port_that_is_no_host_0_ends_the_wait_at_the_deadline(behave, state):
    with listener(behave) as port:
        line, seconds = attend(port)
    assert seconds < 3
    assert line.startswith(f"host 0 at 127.0.0.1:{port} did not answer within 0.5 s (")
    assert state in line


HOST_0 = """
import sys
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.rendezvous import roll_call
pod = Pod(0, 3, sys.argv[1], deadline=60, secret=b"known to the hosts alone")
roll_call(pod, {"code: jaxformers": "abc", "config: steps": "3"})
"""


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_host_0_that_is_stopped_ends_the_wait_at_the_deadline(when):
    hosts = pods(3)
    child = subprocess.Popen(
        [sys.executable, "-c", HOST_0, hosts[0].coordinator],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        connected(hosts[0]).close()
        if when == "before":
            child.send_signal(signal.SIGSTOP)
            line, seconds = attend(hosts[0].address[1], processes=3)
            assert seconds < 3 and "it accepts and says nothing" in line
            return
        with ThreadPoolExecutor(1) as pool:  # it waits for host 2, beyond the deadline of 1.5 s
            waiting = pool.submit(attend, hosts[0].address[1], 1.5, 3)
            time.sleep(2.5)
            assert not waiting.done()
            child.send_signal(signal.SIGSTOP)
            line, seconds = waiting.result()
        assert 2.5 < seconds < 6 and "it accepts and says nothing" in line
    finally:
        child.kill()
        child.wait()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    "words",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b'{"jaxformers": 2, "pro', None],
    ids=["silent or stopped", "garbage", "half a line", "closes"],
)
def test_host_0_names_a_host_that_never_proves_itself_at_the_deadline(words):
    hosts = pods(3, deadline=0.7)
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        waiting = pool.submit(roll_call, hosts[0], FACTS, lambda line: None)
        with connected(hosts[0]) as peer, connected(hosts[0]) as proven:
            greet(proven, 2)  # and says nothing more, as a process that is stopped
            if words is None:
                peer.close()
            else:
                peer.sendall(words)
            with pytest.raises(Ended, match=r"1 of 3 hosts: host 1 \(name-1\) did not come within"):
                waiting.result()
    assert time.monotonic() - start < 5


def test_host_0_listens_at_its_own_address_alone():
    hosts = pods(2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(roll_call, hosts[0], FACTS)
        connected(hosts[0]).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", hosts[0].address[1]))
        links = [roll_call(hosts[1], FACTS), first.result()]
        list(ThreadPoolExecutor(2).map(lambda link: link.leave(), links))


def test_an_address_that_is_not_host_0s_own_is_refused():
    pod = Pod(0, 2, "192.0.2.1:8490", secret=SECRET)
    with pytest.raises(ConfigError, match=r"cannot listen at 192.0.2.1:8490: .*JAXFORMERS_COORD"):
        roll_call(pod, FACTS)


def test_a_pod_without_a_secret_is_refused():
    with pytest.raises(ConfigError, match="the pod has no secret: JAXFORMERS_SECRET_FILE"):
        roll_call(Pod(1, 2, "127.0.0.1:1"), FACTS)


def test_the_secret_is_neither_sent_nor_said():
    received, lines = [], []

    def record(peer):
        peer.sendall(CHALLENGE)
        received.append(peer.recv(1 << 16))

    with listener(record) as port, pytest.raises(Ended) as ended:
        pod = Pod(1, 2, f"127.0.0.1:{port}", deadline=0.5, secret=SECRET)
        roll_call(pod, FACTS, lines.append)
    assert json.loads(received[0])["process"] == 1
    for words in (*received, str(ended.value).encode(), *map(str.encode, lines)):
        assert SECRET not in words


def test_names_that_peers_give_are_escaped():
    lines, hosts = [], pods(2, deadline=1.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(roll_call, hosts[0], FACTS, lines.append)
        with connected(hosts[0]) as peer:
            greet(peer, 1, b"another secret", name="\x1b[2Jevil\n" * 1000)
            with pytest.raises(Ended):
                waiting.result()
    (line,) = lines
    assert "came with another secret, as host 1; not counted" in line
    assert "\x1b" not in line and "\n" not in line and len(line) < 1000


# ---------------------------------------------------------------- many hosts

MANY_0 = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.rendezvous import roll_call
pod = Pod(0, int(sys.argv[2]), sys.argv[1], deadline=60, secret=b"known to the hosts alone")
with roll_call(pod, {}) as link:
    link.leave()
print(len(link.names), "hosts")
"""
MANY = """
import json, sys
sys.path.insert(0, sys.argv[3])
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.open_files import raise_open_file_limit
from test_rendezvous import connected, greet
count = int(sys.argv[2])
raise_open_file_limit(count)
pod = Pod(0, count, sys.argv[1])
facts = {"the number of hosts": str(count)}
peers = []
for first in range(1, count, 50):
    opened = [(connected(pod), process) for process in range(first, min(first + 50, count))]
    peers += [(peer, greet(peer, process, facts=facts)) for peer, process in opened]
for peer, lines in peers:
    while "go" not in (message := json.loads(lines.readline())):
        pass
    assert len(message["names"]) == count
    peer.sendall(b'{"bye": true}\\n')
for peer, lines in peers:
    assert "bye" in json.loads(lines.readline())
"""


def test_a_pod_of_1100_hosts_forms_within_the_limit_of_open_files():
    count, coordinator = 1100, f"127.0.0.1:{free_port()}"
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < RESERVED + PER_HOST * count:
        pytest.skip("this machine allows fewer open files")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, coordinator, str(count), str(Path(__file__).parent)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for code in (MANY_0, MANY)
    ]
    (out, first_error), (_, second_error) = (child.communicate(timeout=120) for child in children)
    assert [child.returncode for child in children] == [0, 0], first_error + second_error
    assert out == "1100 hosts\n"


def test_too_low_a_limit_of_open_files_is_refused_before_anybody_is_waited_for(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(ConfigError, match=r"1,100 hosts needs 2,456 open files, and 1,024 are all"):
        roll_call(Pod(0, 1100, "127.0.0.1:1", secret=SECRET), FACTS)
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    raise_open_file_limit(384)
    assert limits == [(1024, 1024)]
