"""A run's folder, damaged in every way: refused in one line, or the same result, never silence."""

import io
import shutil
import signal
import time
from contextlib import contextmanager, redirect_stdout

import jax
import numpy as np
import pytest
import tiny_run
from folder_damage import damage
from matplotlib.figure import Figure

from jaxformers.errors import UserError
from jaxformers.training import loop
from jaxformers.training.loop import train
from jaxformers.training.reports import report
from jaxformers.training.run_directory import load_run, was_finished

NUM_CASES = 150  # of each of both folders
LIMIT = 10.0  # seconds, beyond those of an undamaged run


@pytest.fixture(scope="module")
def one_device():
    devices = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: devices[:1])
        # Half of a small run's time, and no subject of these tests.
        patch.setattr(loop, "step_flops", lambda *_: None)
        patch.setattr(report, "loss_figure", lambda _: Figure())
        yield


@pytest.fixture(scope="module")
def finished(one_device, tmp_path_factory):
    """A finished run's folder, and the seconds that another takes."""
    root = tmp_path_factory.mktemp("finished")
    train(tiny_run.experiment(), root / "warm-up")  # compiles
    start = time.process_time()
    train(tiny_run.experiment(), root / "run")
    return root / "run", time.process_time() - start


@pytest.fixture(scope="module")
def killed(finished, tmp_path_factory):
    """The folder as a kill within the last checkpoint leaves it."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree(finished[0], folder)
    last = folder / "checkpoints" / str(tiny_run.STEPS)
    (last / "manifest.json").unlink()
    (last / "incomplete").write_text("")
    shutil.rmtree(folder / "model")
    (folder / "report.md").unlink()
    return folder


@contextmanager
def at_most(seconds):
    """Raises TimeoutError within what takes longer, a blocked read too."""

    def stop(*_):
        raise TimeoutError(f"over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def leaves(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(folder)[1])]


def outcome(action, limit):
    """What `action` printed and returned; a refusal's line in place of the value."""
    printed = io.StringIO()
    with at_most(limit), redirect_stdout(printed):
        try:
            value = action()
        except UserError as error:
            assert "\n" not in str(error)
            assert str(error).isprintable(), repr(str(error))
            return printed.getvalue(), None
    return printed.getvalue(), value


def check(folder, undamaged, limit, action, allowed_words):
    """Refused, or the weights and metrics of the undamaged run unless a line says otherwise."""
    printed, done = outcome(action, limit)
    if done is None:
        return "refused"
    _, weights = outcome(lambda: leaves(folder), limit)
    if weights is None:
        return "weights refused"
    for ours, theirs in zip(weights, leaves(undamaged), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _, metrics = outcome(lambda: tiny_run.lines(folder), limit)
    if metrics != tiny_run.lines(undamaged):
        assert metrics is None or any(word in printed for word in allowed_words), printed
        return "metrics differ, and it says so"
    return "the same"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_a_damaged_killed_run_is_refused_or_resumes_to_the_same_bits(
    seed, finished, killed, tmp_path
):
    undamaged, seconds = finished
    folder = tmp_path / "run"
    shutil.copytree(killed, folder, symlinks=True)
    what = damage(folder, seed)
    resume = lambda: train(tiny_run.experiment(), folder)  # noqa: E731
    print(what, check(folder, undamaged, LIMIT + 3 * seconds, resume, ["metrics.jsonl"]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_CASES))
def test_a_damaged_finished_run_is_refused_or_gives_the_same_weights(seed, finished, tmp_path):
    undamaged, seconds = finished
    folder = tmp_path / "run"
    shutil.copytree(undamaged, folder, symlinks=True)
    what = damage(folder, seed)
    use = lambda: was_finished(folder, tiny_run.experiment()) is not None  # noqa: E731
    print(what, check(folder, undamaged, LIMIT + 3 * seconds, use, []))
