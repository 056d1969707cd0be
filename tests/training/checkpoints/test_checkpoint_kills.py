"""Checkpoints against SIGKILL, a full disk and several processes: each in processes of its own."""

import random
import signal
import socket
import time

import pytest
from checkpoint_child import abstract, assert_equal, host_state, mesh_of, placed, start
from etils import epath

from jaxformers.training.checkpoints import manifest
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer, Checkpointing
from jaxformers.training.checkpoints.directory import CheckpointFolder

WIDTH = 2048  # 2.5 MB a checkpoint: large enough that a kill can fall inside a save


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "run"


def unfinished(folder):
    return [path for path in folder.iterdir() if path.name.isdecimal() and _cut_short(path)]


def _cut_short(path):
    try:
        return manifest.never_finished(path)
    except FileNotFoundError:  # deleted, or finished, while we looked
        return False


def run_and_kill(folder, after, delay, *, inside_a_save):
    """Kill a run `delay` seconds after it has passed step `after`; returns its newest step."""
    child = start("save_for_ever", folder, WIDTH)
    reader = CheckpointFolder(folder, Checkpointing(), print)
    try:
        line = child.stdout.readline()
        assert line, child.stderr.read()
        deadline = time.monotonic() + 60
        while max(reader.steps(), default=0) <= after and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        while inside_a_save and not unfinished(folder) and time.monotonic() < deadline:
            pass
        finished = max(reader.steps(), default=0)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    return finished


@pytest.mark.slow
def test_a_run_killed_anywhere_goes_on_from_its_newest_finished_checkpoint(folder):
    draw, inside, kills, at = random.Random(3), 0, 0, 0
    while kills < 5 or inside < 2:
        assert kills < 12, "no kill fell inside a save"
        # The first kill comes before any checkpoint is finished, the others after a new one.
        after = at if kills else -1
        finished = run_and_kill(folder, after, draw.uniform(0, 0.3), inside_a_save=kills % 2 == 0)
        kills += 1
        inside += bool(unfinished(folder))
        lines = []
        with Checkpointer(folder, Checkpointing(), report=lines.append) as checkpointer:
            restored = checkpointer.restore(abstract(host_state(0, WIDTH)))
        assert not [line for line in lines if "damaged" in line]
        step = restored.step if restored else 0
        assert step >= max(finished, at)
        if restored:
            assert_equal(restored.state, host_state(step, WIDTH))
        at = step
    assert at >= kills - 1


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(folder):
    child = start("fill_the_disk", folder)
    out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "")
    expected = f"cannot write checkpoint 2 to {folder}/2: File too large"
    assert out.splitlines() == [
        f"{expected}; checkpoint 1 is still there",
        "no error",
        "threads []",
    ]
    checkpointer = Checkpointer(folder, Checkpointing(), report=lambda line: None)
    restored = checkpointer.restore(abstract(host_state(0)))
    assert_equal(restored.state, host_state(1))
    checkpointer.save(2, placed(host_state(2), mesh_of(1)), {}, wait=True)
    assert checkpointer.steps() == [1, 2]
    checkpointer.close()


def run_two_processes(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pair = [start("save_as_one_of_two", folder, port, i, devices=4) for i in range(2)]
    outputs = [child.communicate(timeout=150) for child in pair]
    for child, (_, err) in zip(pair, outputs, strict=True):
        assert child.returncode == 0, err[-3000:]
    return [epath.Path(f"{folder}.{i}").read_text().splitlines() for i in range(2)]


@pytest.mark.slow
def test_two_processes_write_one_checkpoint_that_one_process_reads_and_back(folder):
    saved = host_state(5)
    with Checkpointer(folder, Checkpointing()) as checkpointer:
        checkpointer.save(5, placed(saved, mesh_of(2)), {}, wait=True)
        checkpointer.save(6, placed(saved, mesh_of(2)), {}, wait=True)
    (folder / "6" / "manifest.json").unlink()
    first, second = run_two_processes(folder)
    assert first == [
        "checkpoint 6 is damaged (manifest.json: missing); using 5",
        "found 5",
        "done",
    ]
    assert second == ["found 5", "done"]
    with Checkpointer(folder, Checkpointing(best="bleu")) as checkpointer:
        restored = checkpointer.restore(abstract(saved, mesh_of(8)))
        assert restored.step == checkpointer.best_step() == 8
        assert_equal(restored.state, host_state(8))
