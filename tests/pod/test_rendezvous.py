"""The roll-call and the ties it leaves, over TCP on this machine, without JAX."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jaxformers.errors import ConfigError
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.json_lines import LONGEST
from jaxformers.pod.peer_monitor import STOPPED, Ended
from jaxformers.pod.rendezvous import PROTOCOL, host_proof, roll_call
from jaxformers.pod.supervisor import RESUMED

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"known to the hosts alone"
FACTS = {"code: jaxformers": "abc", "config: steps": "3"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pods(count: int, deadline: float = 20.0) -> list[Pod]:
    coordinator = f"127.0.0.1:{free_port()}"
    names = tuple(f"name-{i}" for i in range(count))
    return [Pod(i, count, coordinator, names, deadline, secret=SECRET) for i in range(count)]


def call(hosts, facts=lambda process: FACTS):
    """Each host's link, or what it raised."""

    def link_or_error(pod):
        try:
            return roll_call(pod, facts(pod.process), lambda line: None)
        except (Ended, ConfigError) as error:
            return error

    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(link_or_error, hosts))


def on_all(links, method):
    with ThreadPoolExecutor(len(links)) as pool:
        return list(pool.map(method, links))


def test_all_who_come_agree_on_the_names_and_on_a_port_for_jax():
    links = call(pods(3))
    assert len({link.coordinator for link in links}) == 1
    assert {tuple(link.names) for link in links} == {(socket.gethostname(),) * 3}
    for link in links:
        link.note(7 + link.pod.process)
    deadline = time.monotonic() + 10
    while [host["step"] for host in links[0].hosts()] != [7, 8, 9]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    on_all(links, lambda link: link.leave())


def test_a_missing_host_is_named_on_every_host_that_came():
    hosts = pods(4, deadline=1.5)
    start = time.monotonic()
    errors = call([hosts[0], hosts[2]])
    assert time.monotonic() - start < 10
    for error in errors:
        assert error.status == 75
        missing = "2 of 4 hosts: host 1 (name-1), host 3 (name-3) did not come within 1.5 s"
        assert str(error) == missing


def test_a_missing_host_0_is_named_by_the_others():
    hosts = pods(2, deadline=1.0)
    (error,) = call(hosts[1:])
    assert (error.status, str(error)) == (
        75,
        f"host 0 (name-0) at {hosts[0].coordinator} did not answer within 1 s (Connection refused)",
    )


@pytest.mark.parametrize("what", ["code: jaxformers", "config: steps"])
def test_differing_code_or_configuration_is_refused_on_every_host(what):
    errors = call(pods(3), lambda process: {**FACTS, what: "9"} if process == 2 else FACTS)
    name = socket.gethostname()
    for error in errors:
        assert isinstance(error, ConfigError)
        expected = (
            f"the hosts disagree: {what} is 9 on host 2 ({name}), {FACTS[what]} on the others"
        )
        assert str(error) == expected


def test_hosts_that_count_differently_are_refused():
    two = pods(2)
    errors = call([two[0], replace(two[1], processes=4)])
    name = socket.gethostname()
    expected = f"the hosts disagree: the number of hosts is 4 on host 1 ({name}), 2 on the others"
    assert [str(error) for error in errors] == [expected, expected]


def test_other_data_are_refused_before_the_first_step():
    links = call(pods(3))

    def agree(link):
        link.agree({"data: seed": "0"})
        with pytest.raises(ConfigError, match=r"data: tokenizer is b on host 1 \(.*\), a on the"):
            link.agree({"data: tokenizer": "b" if link.pod.process == 1 else "a"})

    on_all(links, agree)
    on_all(links, lambda link: link.leave())


HELLO = {
    "jaxformers": PROTOCOL,
    "process": 1,
    "name": "x",
    "facts": {},
    "challenge": "0" * 32,
    "proof": "0" * 64,
}


def greet(connection, process, secret=SECRET, **changes):
    """Answers host 0's challenge as that host; what it says next is in the file returned."""
    connection.settimeout(10)
    lines = connection.makefile("rb")
    challenges = json.loads(lines.readline())["challenge"], HELLO["challenge"]
    hello = HELLO | {"process": process} | changes
    hello["proof"] = host_proof(secret, challenges, hello)
    connection.sendall(json.dumps(hello).encode() + b"\n")
    return lines


def test_strangers_at_the_port_are_ignored():
    hosts = pods(2)
    noise = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80" * 100,
        b"[" * 100_000 + b"\n",
        b"x" * (2 * LONGEST),
        json.dumps({"jaxformers": PROTOCOL, "process": 1, "name": "x", "facts": {}}).encode(),
        json.dumps(HELLO | {"process": "1"}).encode() + b"\n",
        json.dumps(HELLO | {"proof": None}).encode() + b"\n",
        json.dumps(HELLO | {"proof": "\udc80"}).encode() + b"\n",
        json.dumps(HELLO | {"jaxformers": 0}).encode() + b"\n",
        json.dumps(HELLO).encode() + b"\n",
        b"",
    ]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(roll_call, hosts[0], FACTS, lambda line: None)
        for words in noise:
            stranger = connected(hosts[0])
            with stranger, contextlib.suppress(OSError):  # cut off already
                stranger.sendall(words)
        for process, secret in ((5, SECRET), (1, b"another secret")):
            with connected(hosts[0]) as stranger:
                greet(stranger, process, secret)
        second = roll_call(hosts[1], FACTS)
        on_all([first.result(), second], lambda link: link.leave())


def connected(pod) -> socket.socket:
    while True:
        try:
            return socket.create_connection(pod.address)
        except OSError:
            time.sleep(0.02)


def test_a_host_that_starts_again_during_the_roll_call_takes_its_place():
    hosts = pods(3)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(roll_call, hosts[0], FACTS)
        with connected(hosts[0]) as early:
            lines = greet(early, 1)
            assert b"proof" in lines.readline()
            second = pool.submit(roll_call, hosts[1], FACTS)
            assert all(b"waiting" in line for line in lines)  # cut off: its place is taken
            links = [roll_call(hosts[2], FACTS), first.result(), second.result()]
    on_all(links, lambda link: link.leave())


HOST = """
import os, sys, threading, time
from jaxformers.pod.host_environment import Pod
from jaxformers.pod.rendezvous import roll_call
process, how = int(sys.argv[1]), sys.argv[3]
pod = Pod(process, 3, sys.argv[2], deadline=30, secret=b"known to the hosts alone")
with roll_call(pod, {}) as link:
    print("ready", flush=True)
    link.note(5)
    if how == "mistake":
        from jaxformers.errors import DataError
        raise DataError("no such file")
    if how == "error":
        raise RuntimeError("a bug")
    if how == "apart":  # as JAX has it, in its own type of RuntimeError
        raise RuntimeError(
            "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed "
            "out with key: cpu:gloo/0,1/0 and duration: 29.99s"
        )
    if how == "worker":
        import multiprocessing
        worker = multiprocessing.Process(target=time.sleep, args=(600,))
        worker.start()
        print(worker.pid, flush=True)
    time.sleep(2.0 if how == "late" else 600)
    raise RuntimeError("connection closed by peer")
"""


def trio(*ways):
    """Three processes; process i does what ways[i] says."""
    coordinator = f"127.0.0.1:{free_port()}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(i), coordinator, how],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, how in enumerate(ways)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n", child.stderr.read()
    return children


def ends(children):
    """Exit statuses and what was said."""
    stderrs = [child.communicate(timeout=30)[1] for child in children]
    return [child.returncode for child in children], stderrs


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_host_ends_the_others_at_once_with_134(victim):
    children = trio("wait", "wait", "wait")
    start = time.monotonic()
    children[victim].kill()
    statuses, stderrs = ends(children)
    assert time.monotonic() - start < 5
    assert [statuses[i] for i in range(3) if i != victim] == [134, 134]
    assert f"host {victim} ({socket.gethostname()}) was lost after step" in stderrs[1]


@pytest.mark.slow
def test_an_error_that_a_lost_host_brought_about_counts_as_the_loss():
    children = trio("wait", "late", "wait")
    time.sleep(2.5)  # host 1 has failed, and is asked why
    children[2].kill()
    assert ends(children)[0] == [134, 134, -9]


def test_a_host_that_ends_takes_its_data_workers_with_it():
    children = trio("wait", "worker", "wait")
    worker = Path(f"/proc/{children[1].stdout.readline().strip()}/stat")
    assert worker.exists()
    children[0].kill()
    assert ends(children)[0] == [-9, 134, 134]
    deadline = time.monotonic() + 10
    while worker.exists() and worker.read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("how", "status", "line"), [("mistake", 2, "no such file"), ("error", 1, "RuntimeError: a bug")]
)
def test_an_error_on_one_host_ends_all_with_its_status(how, status, line):
    statuses, stderrs = ends(trio("wait", how, "wait"))
    assert statuses == [status] * 3
    assert (
        stderrs[0] == stderrs[2] == f"jaxformers: host 1 ({socket.gethostname()}) ended: {line}\n"
    )
    assert stderrs[1].splitlines()[-1] == (f"jaxformers: {line}" if status == 2 else line)


@pytest.mark.slow
def test_hosts_that_met_too_late_start_again_with_a_line_that_says_so():
    statuses, stderrs = ends(trio("wait", "apart", "wait"))
    assert statuses == [STOPPED] * 3 and STOPPED in RESUMED
    assert "the hosts did not meet in time (UNKNOWN: Gloo context" in stderrs[0]
    assert all(stderr.count("\n") == 1 and stderr.endswith("; start again\n") for stderr in stderrs)


def test_alone_nothing_is_waited_for():
    from jaxformers.pod.peer_monitor import Link

    before = threading.active_count()
    with Link() as link:
        link.agree({"data": "x"})
        link.note(3)
        link.leave()
    assert [host["step"] for host in link.hosts()] == [3]
    assert threading.active_count() == before
