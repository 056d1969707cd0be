"""A run as a whole: the same whatever happens to it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxformers.errors import CheckpointError, DataError
from jaxformers.sharding import MeshConfig
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train
from jaxformers.training.run_directory import load_run
from jaxformers.training.run_result import Diverged

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "experiments" / "translation" / "demo.py"
STEPS, EVERY = 30, 3


def demo(**changes):
    """The demo's rehearsal."""
    return replace(load_experiment(DEMO).rehearse(), **changes)


def records(folder, key="loss"):
    """Step to value, from metrics.jsonl."""
    lines = (json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[key] for line in lines if key in line}


def command(folder, *more):
    """The command line of a run of 30 steps on 8 emulated devices."""
    options = f"--steps {STEPS} --checkpoint.every {EVERY} --checkpoint.keep-last 2".split()
    arguments = ["train", str(DEMO), "--rehearse", "--folder", str(folder), *options, *more]
    return [sys.executable, "-m", "jaxformers", *arguments]


def start(folder, *more):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")}
    return subprocess.Popen(
        command(folder, *more),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, status=0, timeout=300):
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == status, output
    return output


def leaves(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(folder)[1])]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of 30 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(folder))
    return folder


def writing(folder):
    """Whether a checkpoint is being written: its folder stands without its manifest."""
    steps = [p for p in (folder / "checkpoints").glob("*") if p.is_dir()]
    return any(not (step / "manifest.json").exists() for step in steps)


def wait_for(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)


@pytest.mark.slow
def test_a_run_killed_five_times_equals_an_undisturbed_one_bit_for_bit(undisturbed, tmp_path):
    folder, draw, inside = tmp_path / "run", random.Random(7), 0
    for kill in range(5):
        process = start(folder)
        last_step = max(records(folder), default=0) if (folder / "metrics.jsonl").exists() else 0
        target = min(last_step + draw.randint(1, 6), STEPS - 1)

        def reached(target=target):
            file = folder / "metrics.jsonl"
            return file.exists() and f'"step": {target},' in file.read_text()

        wait_for(reached, process)
        if kill in (1, 3):
            wait_for(lambda: writing(folder), process)
            inside += writing(folder)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert inside == 2
    finish(start(folder))
    assert records(folder) == records(undisturbed)
    for ours, theirs in zip(leaves(folder), leaves(undisturbed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_sigterm_saves_stops_and_the_run_goes_on_from_there(undisturbed, tmp_path):
    process = start(tmp_path / "run")
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, status=75)
    assert "SIGTERM" in output and "goes on from there" in output
    stopped = max(records(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / str(stopped) / "manifest.json").exists()
    output = finish(start(tmp_path / "run"))
    assert f"resumed from step {stopped}" in output or stopped == STEPS
    assert records(tmp_path / "run") == records(undisturbed)


@pytest.mark.slow
def test_a_finished_run_says_so_and_is_not_trained_again(undisturbed):
    before = (undisturbed / "metrics.jsonl").read_text()
    assert "finished before" in finish(start(undisturbed))
    assert (undisturbed / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_a_run_of_8_devices_goes_on_with_2(tmp_path):
    eight = demo(steps=6, checkpoint=replace(demo().checkpoint, every=3, keep_last=2))
    uninterrupted = train(eight, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "checkpoints" / "6")
    (tmp_path / "split" / "report.md").unlink()
    two = replace(eight, mesh=MeshConfig(1, 2, 1))
    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:2])
        resumed = train(two, tmp_path / "split")
    for step in (4, 5, 6):
        np.testing.assert_allclose(resumed.losses[step], uninterrupted.losses[step], rtol=1e-5)


@pytest.mark.slow
def test_other_data_is_refused_with_what_changed(tmp_path):
    experiment = demo(steps=2)
    train(experiment, tmp_path / "run")
    data = replace(experiment.task.data, max_source_words=2)
    with pytest.raises(CheckpointError, match="task"):
        train(replace(experiment, task=replace(experiment.task, data=data)), tmp_path / "run")


@pytest.mark.slow
def test_another_number_of_steps_is_refused_and_nothing_is_rewritten(undisturbed):
    files = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    output = finish(start(undisturbed, "--steps", "3", "--restarts", "5"), status=2)
    assert f"holds a run of {STEPS} steps, not 3" in output
    assert f"go on with --steps {STEPS}" in output and len(output.strip().splitlines()) == 1
    assert {p: p.read_bytes() for p in undisturbed.rglob("*") if p.is_file()} == files
    # Without experiment.json, by the copy that the checkpoint holds.
    file = undisturbed / "experiment.json"
    content = file.read_bytes()
    file.unlink()
    checkpoint = replace(demo().checkpoint, every=EVERY, keep_last=2)
    with pytest.raises(CheckpointError, match=f"holds a run of {STEPS} steps, not 40"):
        train(demo(steps=40, checkpoint=checkpoint), undisturbed)
    assert not file.exists()
    file.write_bytes(content)


@pytest.mark.slow
def test_the_log_says_which_attention_was_passed_up_and_why(tmp_path):
    train(demo(steps=2, attention="splash"), tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("keys: plain (splash attention is for TPU, not CPU)") >= 1


@pytest.mark.slow
def test_own_text_that_changed_on_disk_is_refused_with_what_changed(tmp_path):
    from jaxformers.data import TsvPairs

    file, experiment = tmp_path / "pairs.tsv", demo(steps=2)
    lines = [f"{a}\t{b}" for a, b in list(experiment.task.data.open())[:400]]
    file.write_text("\n".join(lines) + "\n")
    own = replace(experiment, task=replace(experiment.task, data=TsvPairs(str(file)), test=None))
    own = replace(own, task=replace(own.task, model=replace(own.task.model, vocab_size=151)))
    train(own, tmp_path / "run")
    file.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(DataError, match=r"training pairs: 400 then, 399 now"):
        train(own, tmp_path / "run")


def test_a_number_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    from jaxformers.training import Linear

    wild = demo(steps=20, schedule=Linear(peak=1e30, warmup=1), clip_norm=None)
    wild = replace(wild, checkpoint=replace(wild.checkpoint, every=1))
    with pytest.raises(Diverged, match=r"step \d+ \(batch \d+ of seed 0\).*is kept") as caught:
        train(wild, tmp_path / "run")
    assert "decoder/blocks/cross_attention/key/kernel" in str(caught.value)


@pytest.mark.slow
def test_a_second_run_in_a_folder_in_use_is_refused(tmp_path):
    process = start(tmp_path / "run")
    wait_for(lambda: (tmp_path / "run" / "experiment.json").exists(), process)
    second = start(tmp_path / "run")
    output = finish(second, status=2)
    assert "in use by process" in output and len(output.strip().splitlines()) == 1
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_learning_rate_metric_is_the_schedules(undisturbed):
    from jaxformers.training import Linear

    rates = records(undisturbed, "learning_rate")
    schedule = Linear(**{"peak": 2e-3, "warmup": 200})
    for step, rate in rates.items():
        np.testing.assert_allclose(rate, float(schedule.rate(step - 1, STEPS)), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_of_4_devices_give_the_losses_of_one_of_8(undisturbed, tmp_path):
    finish(start(tmp_path / "run", "--processes", "2"), timeout=900)
    two_processes, one_process = records(tmp_path / "run"), records(undisturbed)
    assert two_processes.keys() == one_process.keys()
    for step, loss in one_process.items():
        np.testing.assert_allclose(two_processes[step], loss, rtol=1e-5)
    for ours, theirs in zip(leaves(tmp_path / "run"), leaves(undisturbed), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
