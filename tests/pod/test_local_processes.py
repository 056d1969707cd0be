"""Several processes on this machine: connected, watched, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxformers.pod import local_processes
from jaxformers.pod.local_processes import join, launch

ROOT = Path(__file__).resolve().parents[2]

SUM = """
import jax, jax.numpy as jnp, os, sys
from jaxformers.pod.local_processes import join
with join() as link:
    from jax.experimental import multihost_utils
    found = multihost_utils.process_allgather(jnp.full((), jax.process_index() + 1))
    print("sum", int(found.sum()), "of", jax.device_count(), "devices")
    link.leave()
"""

PLACE = "import os, sys, time; i = int(os.environ['JAXFORMERS_PROCESS'])\n"


def script(tmp_path, text: str) -> tuple[str, str]:
    path = tmp_path / "program.py"
    path.write_text(text)
    return sys.executable, str(path)


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def test_two_processes_see_each_other_and_one_prints(tmp_path, capfd):
    assert launch(2, [], devices=4, program=script(tmp_path, SUM)) == 0
    assert capfd.readouterr().out == "sum 3 of 8 devices\n"


def test_a_users_mistake_is_told_once(capfd):
    assert launch(3, ["trian"]) == 2
    stderr = capfd.readouterr().err
    assert stderr == "jaxformers: unknown verb trian; did you mean train?\n"


def test_the_processes_share_a_secret_that_no_command_line_or_variable_holds(tmp_path, capfd):
    text = PLACE + (
        "path = os.environ['JAXFORMERS_SECRET_FILE']; secret = open(path).read()\n"
        "own = ''.join(open(f'/proc/self/{name}').read() for name in ('cmdline', 'environ'))\n"
        "open(f'{sys.argv[1]}/{i}', 'w').write(secret)\n"
        "print(path, oct(os.stat(path).st_mode & 0o777), len(secret), secret in own)"
    )
    assert launch(2, [str(tmp_path)], program=script(tmp_path, text)) == 0
    path, *facts = capfd.readouterr().out.split()
    assert facts == ["0o600", "64", "False"] and not os.path.exists(path)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()


def test_when_one_dies_the_rest_are_ended_and_its_words_shown(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(local_processes, "GRACE", 0.5)
    fail = PLACE + "i == 1 and sys.exit('no luck'); time.sleep(600)"
    start = time.monotonic()
    assert launch(3, [], program=script(tmp_path, fail)) == 1
    assert time.monotonic() - start < 30
    assert "process 1 ended with status 1; it said last:\nno luck" in capfd.readouterr().err


def test_a_killed_process_gives_128_and_its_signal(tmp_path, monkeypatch):
    monkeypatch.setattr(local_processes, "GRACE", 0.5)
    kill = PLACE + "i == 0 and os.kill(os.getpid(), 9); time.sleep(600)"
    assert launch(2, [], program=script(tmp_path, kill)) == 137


def test_a_signal_reaches_every_process_once(tmp_path):
    count = PLACE + (
        "import signal; n = 0\n"
        "def note(*_):\n    global n; n += 1\n"
        "signal.signal(signal.SIGTERM, note); open(f'{sys.argv[1]}/ready{i}', 'w').close()\n"
        "while not n: time.sleep(0.05)\n"
        "time.sleep(1); open(f'{sys.argv[1]}/got{i}', 'w').write(str(n))"
    )
    python, path = script(tmp_path, count)
    code = (
        "import sys; from jaxformers.pod.local_processes import launch;"
        f"sys.exit(launch(2, [{str(tmp_path)!r}], program=({python!r}, {path!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not all((tmp_path / f"ready{i}").exists() for i in range(2)):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 0
    assert [(tmp_path / f"got{i}").read_text() for i in range(2)] == ["1", "1"]


def test_alone_there_is_nobody_to_join(monkeypatch):
    monkeypatch.delenv(local_processes.PROCESSES, raising=False)
    assert join().pod.processes == 1


def test_no_process_outlives_its_launcher(tmp_path):
    program = (
        "import os, sys, time\nfrom jaxformers.pod.supervisor import end_with_parent\n"
        "end_with_parent(); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    )
    python, path = script(tmp_path, program)
    note = tmp_path / "pid"
    code = (
        "from jaxformers.pod.local_processes import launch;"
        f"launch(1, [{str(note)!r}], program=({python!r}, {path!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child, deadline = int(note.read_text()), time.monotonic() + 20
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        state = Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0]
        if state == "Z":
            return
        time.sleep(0.2)
    assert not os.path.exists(f"/proc/{child}")
