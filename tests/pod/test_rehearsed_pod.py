"""A pod of processes on this machine, and what happens to one: the losses never tell."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "helpers" / "tiny_pod.py"
STEPS = 30
ENDED = 15.0
"""Seconds in which the other hosts have ended once one was killed; stated: 5, on a free machine."""
ONWARD = 240.0
"""Seconds until the run has gone on after a kill, on a machine that others use too."""


class Rehearsed:
    """A run of `count` supervised hosts on this machine."""

    def __init__(self, folder, count, *more, file=FILE):
        self.folder, self.log = Path(folder), open(f"{folder}.log", "a+")  # noqa: SIM115
        command = [sys.executable, "-m", "jaxformers", "train", str(file), "--folder", str(folder)]
        self.launcher = subprocess.Popen(
            [*command, "--processes", str(count), *more],
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{FILE.parent}"},
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def workers(self) -> dict[int, int]:
        """The training process of each host that has one now."""
        workers = {}
        for supervisor in children(self.launcher.pid):
            for worker in children(supervisor):
                if (host := host_of(worker)) is not None:
                    workers[host] = worker
        return workers

    def wait_for(self, condition, seconds=ONWARD):
        """Whether it came true while the run goes on; a run that hangs fails the test."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            if self.launcher.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"nothing for {seconds} s:\n{self.output()[-3000:]}"
            time.sleep(0.002)
        return result

    def finish(self, status=0, seconds=ONWARD):
        returncode = self.launcher.wait(seconds)
        assert returncode == status, self.output()[-3000:]

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self):
        if self.launcher.poll() is None:
            self.launcher.kill()
        self.launcher.wait()
        self.log.close()

    def losses(self) -> list[tuple[int, float]]:
        """Step and loss of every line, in order."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [(line["step"], line["loss"]) for line in records if "loss" in line]

    def step(self) -> int:
        return max((step for step, _ in self.losses()), default=0)

    def unfinished(self) -> set[tuple[str, int]]:
        """The checkpoints that are being written or were left so: a marker, and since when."""
        markers = set()
        for marker in (self.folder / "checkpoints").glob("*/incomplete"):
            with contextlib.suppress(OSError):
                markers.add((str(marker), marker.stat().st_ctime_ns))
        return markers


def children(pid: int) -> list[int]:
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def host_of(pid: int) -> int | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    indices = [v.split(b"=")[1] for v in variables if v.startswith(b"JAXFORMERS_PROCESS=")]
    return int(indices[0]) if indices else None


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Starts runs in this test's folder, and leaves none behind."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    started = []

    def start(name, count, *more, **options):
        started.append(Rehearsed(tmp_path / name, count, *more, **options))
        return started[-1]

    yield start
    for run in started:
        run.end()


@pytest.mark.slow
def test_a_preempted_host_stops_both_after_the_same_step_and_the_run_goes_on(pod):
    run = pod("run", 2, "--restarts", "3", "--steps", "60", "--checkpoint.every", "1000")
    run.wait_for(lambda: run.step() >= 2)
    os.kill(run.workers()[1], signal.SIGTERM)
    run.finish()
    output = run.output()
    assert "SIGTERM: saving, then stopping" in output
    assert "the run was stopped (status 75); start 2 of 4" in output
    (saved,) = [line for line in output.splitlines() if "resumed from step" in line]
    assert 2 <= int(saved.split()[-1]) < 60
    assert [step for step, _ in run.losses()] == list(range(1, 61))
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["step"], status["steps"], status["state"]) == (60, 60, "finished")
    assert 0 < status["goodput"] < 1
    assert [(host["process"], host["step"] > 0) for host in status["hosts"]] == [
        (0, True),
        (1, True),
    ]
    seconds = status["seconds"]
    assert seconds["restart"] > 0 and seconds["compile"] > 0 and seconds["checkpoint"] > 0
    assert "wall time" in (run.folder / "report.md").read_text()


def test_the_command_names_a_missing_host_and_ends_with_75(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    environment = {
        "JAXFORMERS_SECRET_FILE": str(secret),
        "JAXFORMERS_PROCESS": "1",
        "JAXFORMERS_PROCESSES": "2",
        "JAXFORMERS_COORDINATOR": "127.0.0.1:1",  # where nobody listens
        "JAXFORMERS_DEADLINE": "0.5",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "jaxformers", "train", str(FILE), "--folder", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    message = "jaxformers: host 0 at 127.0.0.1:1 did not answer within 0.5 s (Connection refused)\n"
    assert (ended.returncode, ended.stderr) == (75, message)


SLOW = """
import os, time
from jax._src import compiler
from tiny_pod import experiment

compile, slept = compiler.compile_or_get_cached, []

def late(backend, computation, *args, **kwargs):
    if "step" in str(computation.operation.attributes["sym_name"]) and not slept:
        slept.append(time.sleep(40))
        print("compiled late", file=open("late", "w"))
    return compile(backend, computation, *args, **kwargs)

if os.environ.get("JAXFORMERS_PROCESS") == "3":
    compiler.compile_or_get_cached = late
"""


@pytest.mark.slow
def test_a_host_that_compiles_longer_than_gloo_waits_is_waited_for(pod, tmp_path):
    file, late = tmp_path / "late_pod.py", tmp_path / "late"
    file.write_text(SLOW.replace('"late"', repr(str(late))))
    run = pod("run", 4, "--steps", "2", file=file)  # two hosts along each axis: gloo's own groups
    run.finish()
    assert late.exists() and [step for step, _ in run.losses()] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pod_that_is_told_to_stop_saves_and_the_same_command_goes_on(pod, number):
    more = ("--restarts", "3", "--steps", "60", "--checkpoint.every", "1000")
    run = pod("run", 2, *more)
    run.wait_for(lambda: run.step() >= 2)
    run.launcher.send_signal(number)
    run.finish(75)
    assert "the same command goes on from there" in run.output()
    assert json.loads((run.folder / "status.json").read_text())["state"] == "stopped"
    pod("run", 2, *more).finish()
    assert [step for step, _ in run.losses()] == list(range(1, 61))


@pytest.mark.slow
def test_a_pod_killed_host_by_host_twenty_times_equals_an_undisturbed_one_to_the_bit(pod):
    undisturbed = pod("undisturbed", 4)
    undisturbed.finish()
    run, draw = pod("run", 4, "--restarts", "99"), random.Random(0)
    plan = ["start"] * 6 + ["checkpoint"] * 6 + ["step"] * 8
    draw.shuffle(plan)
    done = dict.fromkeys(plan, 0)
    start, ended = time.monotonic(), []
    for number, kind in enumerate(plan):
        everyone = run.wait_for(lambda: len(run.workers()) == 4)
        assert everyone, f"ended after {number} kills: {run.output()[-3000:]}"
        done[kind] += wait_until(kind, run, draw)
        victim = draw.randrange(4)
        before = run.wait_for(lambda v=victim: now if v in (now := run.workers()) else None)
        os.kill(before[victim], signal.SIGKILL)
        killed = time.monotonic()
        # Before the roll-call is complete the others just go on to wait.
        gone = {before[victim]} if kind == "start" else {*before.values()}
        run.wait_for(lambda gone=gone: not gone & {*run.workers().values()}, ENDED)
        ended.append(time.monotonic() - killed)
        print(f"{killed - start:5.0f} s: {kind}, host {victim}, others ended in {ended[-1]:.1f} s,"
              f" step {run.step()}", flush=True)  # fmt: skip
    run.finish()
    print(f"{time.monotonic() - start:.0f} s, others ended in at most {max(ended):.1f} s, {done}")
    assert done["checkpoint"] >= 5 and done["start"] >= 3
    assert run.losses() == undisturbed.losses()
    assert [step for step, _ in run.losses()] == list(range(1, STEPS + 1))
    weights = "model/model.safetensors"
    assert (run.folder / weights).read_bytes() == (undisturbed.folder / weights).read_bytes()


def wait_until(kind: str, run: Rehearsed, draw: random.Random) -> bool:
    """Waits for a random moment of its kind; whether it was met."""
    if kind == "start":
        time.sleep(draw.uniform(0, 8))
        return True
    file, unfinished = run.folder / "metrics.jsonl", run.unfinished()
    if kind == "checkpoint":
        return bool(run.wait_for(lambda: run.unfinished() - unfinished))
    last_modified = file.stat().st_mtime_ns if file.exists() else 0
    run.wait_for(lambda: file.exists() and file.stat().st_mtime_ns > last_modified)
    target = min(run.step() + draw.randint(1, 4), STEPS - 1)
    run.wait_for(lambda: run.step() >= target)
    time.sleep(draw.uniform(0, 0.3))
    return True
