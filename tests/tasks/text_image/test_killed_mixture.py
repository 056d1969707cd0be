"""A run of a mixture that is killed goes on with the losses and the counters of every task."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxformers.training.reports.run_files import read_metrics

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "experiments" / "unified_io" / "multitask_base.py"
STEPS, KILLED_AFTER = 12, 5
COUNTERS = ("loss", "text_loss", "image_loss", "examples_", "epochs_", "grad_norm")


def start(folder):
    """Rehearses in a process of its own, with a checkpoint every other step."""
    options = f"--steps {STEPS} --checkpoint.every 2".split()
    words = ["train", str(FILE), "--rehearse", "--folder", str(folder), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "jaxformers", *words],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax")},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=540)
    assert process.returncode == 0, output
    return output


def records(folder):
    """Of each step the losses and the counters of all tasks."""
    return {
        record["step"]: {k: v for k, v in record.items() if k.startswith(COUNTERS)}
        for record in read_metrics(folder)
        if "loss" in record
    }


@pytest.mark.slow
def test_a_killed_run_has_the_losses_and_counters_of_an_undisturbed_one(tmp_path):
    finish(start(tmp_path / "undisturbed"))
    killed, deadline = tmp_path / "killed", time.monotonic() + 540
    process = start(killed)
    lines = killed / "metrics.jsonl"
    while not (lines.exists() and f'"step": {KILLED_AFTER},' in lines.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert max(records(killed)) < STEPS
    assert "resumed from step" in finish(start(killed))
    expected = records(tmp_path / "undisturbed")
    assert sorted(expected) == list(range(1, STEPS + 1))
    names = {
        f"{kind}_{task}" for kind in ("loss", "examples", "epochs") for task in ("vqa", "depth")
    }
    assert all(names <= set(record) for record in expected.values())
    assert records(killed) == expected
    # Batches of both kinds were drawn, and all rows are counted.
    assert {record["image_loss"] is None for record in expected.values()} == {True, False}
    last = expected[STEPS]
    counts = [last[f"examples_{task}"] for task in ("vqa", "caption", "depth")]
    assert sum(counts) == pytest.approx(16 * STEPS)
