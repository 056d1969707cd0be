"""What is saved comes back bit for bit, on any mesh, or the error says why not."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from checkpoint_child import abstract, arrays, assert_equal, host_state, mesh_of, placed
from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training.checkpoints import manifest
from jaxformers.training.checkpoints.array_store import ArrayStore
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer, Checkpointing


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "run"


@pytest.fixture
def lines():
    return []


@pytest.fixture
def make(folder, lines):
    checkpointers = []

    def new(**config):
        checkpointers.append(Checkpointer(folder, Checkpointing(**config), report=lines.append))
        return checkpointers[-1]

    yield new
    for checkpointer in checkpointers:
        checkpointer.close()


def save(checkpointer, *steps, **options):
    for step in steps:
        checkpointer.save(step, placed(host_state(step), mesh_of(1)), {"at": step}, **options)
    checkpointer.wait()


def files_of(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 8), (8, 2), (2, 8), (8, 1)])
def test_a_state_restored_on_another_mesh_is_bit_equal(make, saved_on, restored_on):
    state = host_state(30)
    make().save(30, placed(state, mesh_of(saved_on)), {"seed": 5}, wait=True)
    target = abstract(state, mesh_of(restored_on))
    restored = make().restore(target)
    assert (restored.step, restored.metadata) == (30, {"seed": 5})
    assert_equal(restored.state, state)
    shardings = [leaf.sharding for leaf in jax.tree.leaves(restored.state)]
    assert shardings == [leaf.sharding for leaf in jax.tree.leaves(target)]


@pytest.mark.parametrize("devices", [1, 8])
def test_a_state_donated_right_after_save_is_saved_as_it_was(make, devices):
    state = {"w": np.random.default_rng(0).normal(size=(2048, 1024)).astype(np.float32)}
    mesh = mesh_of(devices)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda a: a * 0 + 7, tree), donate_argnums=0)
    on_device = jax.tree.map(lambda leaf: leaf + 0, placed(state, mesh))
    checkpointer = make()
    checkpointer.save(1, on_device, {})
    for _ in range(3):
        on_device = jax.block_until_ready(overwrite(on_device))
    checkpointer.wait()
    assert_equal(checkpointer.restore(abstract(state, mesh)).state, state)


def test_bfloat16_and_integer_leaves_keep_their_bits(make):
    state = {"a": jax.numpy.arange(7, dtype=jax.numpy.bfloat16), "b": np.arange(3, dtype=np.uint8)}
    make().save(1, state, {}, wait=True)
    assert_equal(make().restore(abstract(state)).state, jax.tree.map(np.asarray, state))


def test_numbers_that_are_no_arrays_are_saved_as_arrays(make):
    state = {"a": np.float32(2.5), "b": 3, "c": True}
    make().save(1, state, {}, wait=True)
    restored = make().restore(state).state
    assert jax.tree.map(lambda leaf: leaf.item(), restored) == {"a": 2.5, "b": 3, "c": True}


def test_an_empty_folder_restores_nothing_and_says_nothing(make, lines):
    assert make().restore(abstract(host_state(0))) is None
    assert lines == []
    with pytest.raises(CheckpointError, match="train first"):
        make().restore_params({})


def test_files_and_metadata_come_back_without_reading_the_state(make, monkeypatch):
    save(make(), 3, files={"text.model": b"\x00\xff"})
    monkeypatch.setattr(ArrayStore, "load", lambda self, folder, tree: tree)
    restored = make().restore_subtrees({})
    assert (restored.files, restored.metadata, restored.state) == (
        {"text.model": b"\x00\xff"},
        {"at": 3},
        {},
    )


def test_parameters_are_read_without_the_optimizer_state(make):
    save(make(), 3)
    checkpointer = make()
    assert_equal(checkpointer.restore_params(abstract(arrays(3), mesh_of(2))), arrays(3))
    subtrees = {"params": abstract(arrays(3)), "model_state": abstract({"mean": np.zeros(8, "f4")})}
    assert (
        checkpointer.restore_subtrees(subtrees).state["model_state"]["mean"].tolist() == [3.0] * 8
    )


def test_the_average_is_the_float32_mean_of_the_last_checkpoints(make, lines):
    save(make(keep_last=9), 1, 2, 3, 4)
    mean = make().average_params(abstract(arrays(0), mesh_of(8)), 3)
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *map(arrays, (2, 3, 4)))
    for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    make().average_params(abstract(arrays(0)), 5)
    assert lines == ["averaging 4 of the 5 checkpoints asked for"]


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "flipped": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_any_file_is_named_and_the_older_checkpoint_used(make, folder, lines, kind):
    save(make(), 20, 30, files={"text.model": b"tokens"})
    checkpointer, good = make(), folder.parent / "good"
    shutil.copytree(folder / "30", good)
    files = [path.relative_to(folder / "30") for path in files_of(folder / "30")]
    assert len(files) >= 8
    for name in files:
        if not (good / name).read_bytes():
            continue
        DAMAGES[kind](folder / "30" / name)
        lines.clear()
        assert checkpointer.restore_subtrees({}).step == 20, name
        [line] = lines
        assert line.startswith(f"checkpoint 30 is damaged ({name}: ")
        assert line.endswith("); using 20")
        shutil.rmtree(folder / "30")
        shutil.copytree(good, folder / "30")
    restored = checkpointer.restore(abstract(host_state(0)))
    assert_equal(restored.state, host_state(30))


def test_a_short_file_is_reported_with_what_it_lacks(make, folder, lines):
    save(make(), 10, 20, 30)
    data = max(files_of(folder / "30" / "state"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-3])
    restored = make().restore(abstract(host_state(0)))
    assert_equal(restored.state, host_state(20))
    name = data.relative_to(folder / "30")
    assert lines == [f"checkpoint 30 is damaged ({name}: 3 bytes short); using 20"]


def test_when_every_checkpoint_is_damaged_nothing_starts_from_zero(make, folder):
    save(make(), 10, 20)
    (folder / "20" / "manifest.json").unlink()
    flip(folder / "10" / "checkpoint.json")
    with pytest.raises(CheckpointError) as error:
        make().restore(abstract(host_state(0)))
    message = str(error.value)
    assert "checkpoint 20 is damaged (manifest.json: missing)" in message
    assert "checkpoint 10 is damaged (checkpoint.json: its contents have changed)" in message
    assert "\n" not in message


def test_a_damaged_step_is_saved_again(make, folder, lines):
    save(make(), 20, 30)
    flip(max(files_of(folder / "30" / "state"), key=lambda path: path.stat().st_size))
    checkpointer = make()
    assert checkpointer.restore(abstract(host_state(0))).step == 20
    save(checkpointer, 30)
    lines.clear()
    assert_equal(make().restore(abstract(host_state(0))).state, host_state(30))
    assert lines == []


def test_a_damaged_newer_checkpoint_never_costs_the_good_ones(make, folder):
    save(make(keep_last=1), 30)
    save(make(keep_last=3), 20)
    flip(folder / "30" / "checkpoint.json")
    checkpointer = make(keep_last=1)
    assert checkpointer.restore(abstract(host_state(0))).step == 20
    save(checkpointer, 25)
    assert checkpointer.steps() == [25]
    assert make().restore(abstract(host_state(0))).step == 25


def test_a_step_asked_for_by_number_is_used_or_refused(make, folder):
    save(make(), 10, 20)
    flip(folder / "20" / "checkpoint.json")
    checkpointer = make()
    assert checkpointer.restore(abstract(host_state(0)), step=10).step == 10
    with pytest.raises(CheckpointError, match=r"checkpoint 20 .* is damaged .checkpoint.json"):
        checkpointer.restore(abstract(host_state(0)), step=20)
    with pytest.raises(CheckpointError, match=r"no checkpoint 15 .*; there: 10, 20"):
        checkpointer.restore(abstract(host_state(0)), step=15)


# What a kill leaves behind


def unfinish(folder, *, keep=()):
    """Turn a finished checkpoint into one that was killed before its manifest."""
    (folder / "manifest.json").rename(folder / "manifest.json.partial")
    (folder / "incomplete").touch()
    for name in ("checkpoint.json", "state"):
        if name not in keep:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("keep", [(), ("state",), ("state", "checkpoint.json")])
def test_a_half_written_checkpoint_is_passed_over_and_written_again(make, folder, lines, keep):
    save(make(), 20, 30)
    unfinish(folder / "30", keep=keep)
    checkpointer = make()
    assert checkpointer.steps() == [20]
    assert checkpointer.restore(abstract(host_state(0))).step == 20
    assert lines == ["checkpoint 30 is half-written (manifest.json: missing); using 20"]
    save(checkpointer, 25)
    assert not (folder / "30").exists()
    save(checkpointer, 30)
    assert_equal(make().restore(abstract(host_state(0))).state, host_state(30))


def test_a_run_killed_in_its_first_save_starts_again_and_says_so(make, folder, lines):
    save(make(), 10)
    unfinish(folder / "10")
    assert make().restore(abstract(host_state(0))) is None
    assert lines == [
        "checkpoint 10 is half-written (manifest.json: missing); there is no older one"
    ]


# Which are kept


def test_the_last_and_the_best_checkpoints_are_kept(make):
    checkpointer = make(keep_last=2, keep_best=1, best="bleu")
    for step, bleu in [(10, 5.0), (20, 9.0), (30, 7.0), (40, float("nan")), (50, 8.0)]:
        save(checkpointer, step)
        checkpointer.set_metrics(step, {"bleu": bleu})
    assert checkpointer.steps() == [20, 40, 50]
    assert checkpointer.best_step() == 20
    assert make(best="bleu").metrics()[30] == {"bleu": 7.0}


def test_an_older_checkpoint_goes_only_after_the_newer_has_its_manifest(make, monkeypatch):
    checkpointer, write, steps_at_write = make(keep_last=1), manifest.write, []
    save(checkpointer, 10)

    def slow(folder):
        steps_at_write.append(checkpointer.steps())
        write(folder)

    monkeypatch.setattr(manifest, "write", slow)
    save(checkpointer, 20)
    assert steps_at_write == [[10]]
    assert checkpointer.steps() == [20]


def test_the_manifest_is_written_without_waiting_for_the_next_call(make, folder):
    checkpointer = make()
    checkpointer.save(10, placed(host_state(10), mesh_of(1)), {})
    checkpointer._thread.join(30)
    assert manifest.find_damage(folder / "10") is None


def test_the_step_just_saved_is_not_written_again(make, folder):
    checkpointer = make(keep_last=1)
    save(checkpointer, 10)
    before = (folder / "10" / "manifest.json").stat().mtime
    save(checkpointer, 10)
    assert (folder / "10" / "manifest.json").stat().mtime == before


# Errors


def test_another_model_or_optimizer_is_refused_with_the_first_differing_paths(make):
    save(make(), 30)
    wider = host_state(0, width=32)
    with pytest.raises(CheckpointError) as error:
        make().restore(abstract(wider))
    message = str(error.value)
    assert "opt_state/0/mu/embed/table is float32[24, 16] there and float32[24, 32] here" in message
    assert "\n" not in message
    without_optimizer = host_state(0).__class__(
        **{**vars(host_state(0)), "opt_state": optax.EmptyState()}
    )
    with pytest.raises(CheckpointError, match=r"opt_state/0/count is int32\[\] there and absent"):
        make().restore(abstract(without_optimizer))
    with pytest.raises(CheckpointError, match=r"params/embed/table is float32\[24, 16\] there"):
        make().restore_params(abstract(wider.params))


def test_a_read_only_folder_is_one_line_and_the_earlier_checkpoint_stays(make, monkeypatch):
    checkpointer = make()
    save(checkpointer, 20)

    def refuse(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(manifest, "begin", refuse)
    with pytest.raises(CheckpointError) as error:
        save(checkpointer, 30)
    expected = f"cannot write checkpoint 30 to {checkpointer.folder}/30: Read-only file system"
    assert str(error.value) == f"{expected}; checkpoint 20 is still there"
    assert checkpointer.restore(abstract(host_state(0))).step == 20


@pytest.mark.parametrize("surfaces_at", ["save", "wait", "close", "check"])
def test_a_failure_in_the_background_surfaces_at_the_next_call(folder, monkeypatch, surfaces_at):
    checkpointer = Checkpointer(folder, Checkpointing(), report=lambda line: None)

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        checkpointer.save(30, placed(host_state(30), mesh_of(1)), {})
        checkpointer._thread.join()
    calls = {"save": lambda: save(checkpointer, 40)}
    with pytest.raises(CheckpointError, match=r"checkpoint 30 to .*: No space left on device"):
        calls.get(surfaces_at, lambda: getattr(checkpointer, surfaces_at)())()
    if surfaces_at != "close":
        save(checkpointer, 40)
        assert checkpointer.steps() == [40]
    checkpointer.close()


def test_a_failed_save_does_not_hide_what_ended_the_run(folder, lines, monkeypatch):
    monkeypatch.setattr(manifest, "write", lambda folder: 1 / 0)
    with (
        pytest.raises(KeyboardInterrupt),
        Checkpointer(folder, Checkpointing(), report=lines.append) as checkpointer,
    ):
        checkpointer.save(10, placed(host_state(10), mesh_of(1)), {})
        raise KeyboardInterrupt
    assert lines == [
        f"cannot write checkpoint 10 to {folder}/10: ZeroDivisionError: division by zero"
    ]


def test_orbax_writes_nothing_to_the_terminal(make, capfd):
    logger = logging.getLogger("absl")
    level, _ = logger.level, logger.setLevel(logging.DEBUG)
    try:
        save(make(), 10)
        make().restore(abstract(host_state(0), mesh_of(2)))
    finally:
        logger.setLevel(level)
    assert capfd.readouterr() == ("", "")


def test_a_checkpoint_holds_no_pickle(make, folder):
    save(make(), 10)
    for path in files_of(folder / "10"):
        assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05")), path
    assert json.loads((folder / "10" / "checkpoint.json").read_text())["step"] == 10
