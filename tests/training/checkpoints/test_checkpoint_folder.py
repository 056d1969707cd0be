"""The bookkeeping of a folder of checkpoints, without arrays."""

import shutil

import pytest
from etils import epath

from jaxformers.training.checkpoints import manifest
from jaxformers.training.checkpoints.directory import CheckpointFolder, Checkpointing


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "run"


def save(checkpoints, step):
    checkpoints.begin(step)
    (checkpoints.path_of(step) / "state").mkdir()
    (checkpoints.path_of(step) / "state" / "data").write_bytes(bytes([step]) * 10)
    checkpoints.finish(step, {"checkpoint.json": b"{}"})


@pytest.mark.parametrize("victim", ["rmtree", "unlink", "rmdir"])
def test_a_deletion_cut_short_leaves_no_damaged_checkpoint(folder, monkeypatch, victim):
    lines = []
    checkpoints = CheckpointFolder(folder, Checkpointing(), lines.append)
    save(checkpoints, 10)
    shutil.copytree(folder / "10", folder / "20")

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), victim, die)
        with pytest.raises(KeyboardInterrupt):
            manifest.remove(folder / "20")
    checkpoints.newest_good(1)
    assert not [line for line in lines if "damaged" in line]
    save(checkpoints, 20)
    assert checkpoints.newest_good(1) == [20]


def test_the_lowest_is_best_in_mode_min_and_without_a_metric_none_is():
    rows = {1: {"loss": 3.0}, 2: {"loss": 1.0}, 3: {"loss": 2.0}, 4: {}}
    config = Checkpointing(keep_last=1, keep_best=2, best="loss", mode="min")
    assert config.retained([1, 2, 3, 4], rows) == {2, 3, 4}
    assert Checkpointing(keep_last=1).retained([1, 2, 3, 4], rows) == {4}


def test_metrics_that_cannot_be_read_are_ignored_aloud(folder):
    lines = []
    checkpoints = CheckpointFolder(folder, Checkpointing(best="bleu"), lines.append)
    save(checkpoints, 10)
    (folder / "metrics.json").write_text("[1")
    assert checkpoints.best() is None
    assert lines == [f"{folder}/metrics.json cannot be read; its results are ignored"]
    checkpoints.set_metrics(10, {"bleu": 1.0})
    assert checkpoints.best() == 10


def test_a_changed_manifest_is_named_and_not_the_files_it_lists(folder):
    checkpoints = CheckpointFolder(folder, Checkpointing(), print)
    save(checkpoints, 10)
    path = folder / "10" / "manifest.json"
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert manifest.find_damage(folder / "10").startswith("manifest.json: ")
    path.write_bytes(content)
    assert manifest.find_damage(folder / "10") is None
