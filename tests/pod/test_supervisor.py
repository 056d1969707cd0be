"""A run is started again when it can go on, a bounded number of times, and never otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxformers.pod import supervisor
from jaxformers.pod.supervisor import supervise

ROOT = Path(__file__).resolve().parents[2]
# Ends as the words in its file say, one a start: an exit status, or -signal.
PLAY = """
import os, sys
path = sys.argv[1]
words = open(path).read().split()
open(path, "w").write(" ".join(words[1:]))
status = int(words[0])
os.kill(os.getpid(), -status) if status < 0 else sys.exit(status)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(supervisor, "PAUSE", 0.0)


def play(tmp_path, words, restarts=10):
    """The status of a supervised program, and how many of the words were not used."""
    (tmp_path / "words").write_text(words)
    status = supervise([sys.executable, "-c", PLAY, str(tmp_path / "words")], restarts)
    return status, len((tmp_path / "words").read_text().split())


def test_it_goes_on_after_75_134_and_137_and_kills(tmp_path, capfd):
    assert play(tmp_path, "75 134 137 -9 -6 0") == (0, 0)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "jaxformers: the run was stopped (status 75); start 2 of 11"
    assert lines[3] == "jaxformers: the run was killed (status 137); start 5 of 11"
    assert len(lines) == 5


@pytest.mark.parametrize("status", [2, 1, 0, 130, 139])
def test_it_does_not_go_on_after_a_mistake_or_an_error(tmp_path, status):
    assert play(tmp_path, f"75 {status} 0") == (status, 1)


def test_the_number_of_starts_is_bounded(tmp_path, capfd):
    assert play(tmp_path, "134 134 134 134 0", restarts=2) == (134, 2)
    assert capfd.readouterr().err.endswith("(status 134); giving up\n")


def test_told_between_two_starts_it_starts_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert play(tmp_path, "134 0") == (75, 1)


def test_what_a_start_left_running_ends_with_it(tmp_path):
    note = tmp_path / "pid"
    leave = (
        "import subprocess, sys\n"
        "worker = subprocess.Popen(['sleep', '600'])\n"
        "open(sys.argv[1], 'w').write(str(worker.pid))"
    )
    assert supervise([sys.executable, "-c", leave, str(note)], 0) == 0
    worker, deadline = Path(f"/proc/{note.read_text()}/stat"), time.monotonic() + 10
    while worker.exists() and worker.read_text().split(")")[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_supervisor_that_is_told_to_stop_hands_it_on_and_starts_no_more(tmp_path):
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "open(sys.argv[1], 'a').write('x'); time.sleep(60)"
    )
    note = tmp_path / "note"
    code = (
        "import sys; from jaxformers.pod.supervisor import supervise;"
        f"sys.exit(supervise([sys.executable, '-c', {child!r}, {str(note)!r}], 9))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    while not note.exists():
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(20) == 75
    assert note.read_text() == "x"
