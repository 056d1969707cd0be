"""Runs killed at random moments, the last evaluation and the export included: the same result."""

import multiprocessing
import os
import random
import signal
import time

import jax
import numpy as np
import pytest
import tiny_run

from jaxformers.training.run_directory import is_finished, load_run

NUM_RUNS, NUM_KILLS, STEPS = 8, 50, 40
EARLY, LATE = ("start", "steps", "steps"), ("export", "evaluation", "report", "start")
PRELOADED = [
    "tiny_run",
    "jaxformers.training.loop",
    "jaxformers.training.reports.report",
    "tensorboardX.event_file_writer",
    "orbax.checkpoint",
]


@pytest.fixture(scope="module")
def starts():
    """Starts a run in a process forked from one that has imported everything but used no device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)

        def start(folder):
            process = context.Process(target=tiny_run.run, args=(str(folder), STEPS))
            process.start()
            return process

        yield start


@pytest.fixture(scope="module")
def undisturbed(starts, tmp_path_factory):
    """A run that nothing happened to; it also compiles for the others."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = starts(folder)
    process.join()
    assert process.exitcode == 0
    return folder


def wait_for(condition, process):
    deadline = time.monotonic() + 300
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def has_line(folder, text):
    path = folder / "log.txt"
    return path.exists() and text in path.read_text()


def kill_at_random(process, folder, moment, draw):
    """Kills the process at a moment of the start, the steps or the end; whether it still ran."""
    num_lines = lambda: _count(folder / "log.txt")  # noqa: E731
    before = num_lines()
    if moment == "steps":
        wait_for(lambda: num_lines() > before, process)
    elif moment == "export":
        wait_for(lambda: (folder / "checkpoints" / str(STEPS)).exists(), process)
    elif moment == "evaluation":
        wait_for(lambda: (folder / "model" / "step.json").exists(), process)
    elif moment == "report":
        wait_for(lambda: has_line(folder, f"step {STEPS}: eval/"), process)
    time.sleep(draw.random() * {"start": 2.0, "steps": 1.5}.get(moment, 0.3))
    alive = process.is_alive()
    if alive:
        os.killpg(process.pid, signal.SIGKILL) if _leads(process.pid) else process.kill()
    process.join()
    return alive


def _leads(pid):
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def leaves(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(folder)[1])]


@pytest.mark.slow
def test_fifty_kills_leave_the_weights_and_the_lines_of_undisturbed_runs(
    starts, undisturbed, tmp_path
):
    draw, kills, late = random.Random(11), 0, 0
    expected, lines = leaves(undisturbed), tiny_run.lines(undisturbed)
    for number in range(1000):
        folder, own_kills = tmp_path / str(number), 0
        while not (folder.exists() and is_finished(folder, STEPS)):
            process = starts(folder)
            limit = -(-NUM_KILLS // NUM_RUNS)
            moment = draw.choice(EARLY if own_kills <= limit // 2 else LATE)
            if own_kills < limit and kill_at_random(process, folder, moment, draw):
                own_kills += 1
                late += (folder / "checkpoints" / str(STEPS) / "manifest.json").exists()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
        kills += own_kills
        assert tiny_run.lines(folder) == lines
        for ours, theirs in zip(leaves(folder), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if number + 1 >= NUM_RUNS and kills >= NUM_KILLS:
            break
    assert 5 <= late <= kills - 5, f"{late} of {kills} kills fell behind the last checkpoint"
    print(f"{kills} kills in {number + 1} runs, {late} of them behind the last checkpoint")
