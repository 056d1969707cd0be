"""The bookkeeping of a folder of checkpoints, without arrays."""

import json
import os
import shutil
from pathlib import Path

import pytest
from etils import epath

from jaxformers.errors import CheckpointError
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


def rewritten(path, change):
    """Changes the manifest's rows and writes it with a digest that is right."""
    rows = json.loads(path.read_text())["files"]
    files = {name: (row["size"], row["sha256"]) for name, row in rows.items()}
    change(files)
    path.write_bytes(manifest._encode(files))


def replaced(path, make):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


NESTED = "[" * 100_000
OUTSIDE = {"../10/checkpoint.json": (2, "")}
FILE_DAMAGES = {
    "a folder": (lambda path: replaced(path, lambda p: p.mkdir()), "not a regular file"),
    "a pipe": (lambda path: replaced(path, os.mkfifo), "not a regular file"),
    "a device": (
        lambda path: replaced(path, lambda p: os.symlink("/dev/zero", p)),
        "not a regular",
    ),
    "a link to itself": (
        lambda path: replaced(path, lambda p: os.symlink(p.name, p)),
        "Too many levels of symbolic links",
    ),
    "nested": (lambda path: path.write_text(NESTED), "nested too deeply"),
    "a list": (lambda path: path.write_text("[1]"), "list in place of dict"),
    "invalid UTF-8": (lambda path: path.write_bytes(b"\xff\xfe"), "not JSON"),
    "a folder's name": (
        lambda path: rewritten(path, lambda files: files.update({"state": (4096, "")})),
        "state: not a regular file",
    ),
    "a NUL": (
        lambda path: rewritten(path, lambda files: files.update({"a\0b": (1, "")})),
        r"a\x00b: ",
    ),
    "an over-long name": (
        lambda path: rewritten(path, lambda files: files.update({"n" * 5000: (1, "")})),
        "File name too long",
    ),
    "a name outside": (
        lambda path: rewritten(path, lambda files: files.update(OUTSIDE)),
        "which is no file of a checkpoint",
    ),
}


@pytest.mark.parametrize("name", FILE_DAMAGES)
def test_a_damaged_manifest_is_damage_like_another(folder, name):
    lines = []
    checkpoints = CheckpointFolder(folder, Checkpointing(), lines.append)
    save(checkpoints, 10)
    save(checkpoints, 20)
    damage, message = FILE_DAMAGES[name]
    damage(Path(folder / "20" / "manifest.json"))
    assert checkpoints.newest_good(1) == [10]
    assert len(lines) == 1 and message in lines[0] and lines[0].isprintable(), lines
    assert len(lines[0]) < 400
    save(checkpoints, 20)  # writes the damaged one anew
    assert checkpoints.newest_good(1) == [20]


@pytest.mark.parametrize("target", [None, "nowhere", "20", "/dev/zero"])
def test_a_file_or_a_link_in_place_of_a_checkpoint_is_damage(folder, target):
    lines = []
    checkpoints = CheckpointFolder(folder, Checkpointing(), lines.append)
    save(checkpoints, 10)
    path = Path(folder / "20")
    path.write_text("x") if target is None else path.symlink_to(target)
    assert checkpoints.newest_good(1) == [10]
    assert lines == ["checkpoint 20 is damaged (not a folder); using 10"]
    save(checkpoints, 20)
    assert checkpoints.newest_good(1) == [20]


def test_names_that_no_step_is_written_as_are_passed_over(folder):
    checkpoints = CheckpointFolder(folder, Checkpointing(), print)
    save(checkpoints, 10)
    for name in ("٣", "007", "99999999999", "4294967296", "-1", "+5", "1e3"):
        shutil.copytree(folder / "10", folder / name)
    assert checkpoints.all_steps() == [10]


def test_a_file_in_place_of_the_folder_is_refused(folder):
    folder.write_text("x")
    with pytest.raises(CheckpointError, match="a file where the folder of the checkpoints belongs"):
        CheckpointFolder(folder, Checkpointing(), print).newest_good(1)


def test_a_checkpoint_alone_and_damaged_names_the_way_on(folder):
    checkpoints = CheckpointFolder(folder, Checkpointing(), print)
    save(checkpoints, 10)
    with (folder / "10" / "checkpoint.json").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.newest_good(1)
    message = str(caught.value)
    assert "checkpoint 10 is damaged (checkpoint.json: 1 byte too long)" in message
    assert message.endswith("or remove that folder to train from the first step again")


@pytest.mark.parametrize(
    "content", [NESTED, "[1]", '{"x": {}}', '{"10": 3}', '{"10": {"a": "b"}}', '{"10": null}']
)
def test_damaged_metrics_are_ignored_aloud(folder, content):
    lines = []
    checkpoints = CheckpointFolder(folder, Checkpointing(best="a"), lines.append)
    save(checkpoints, 10)
    (folder / "metrics.json").write_text(content)
    assert checkpoints.metrics() == {} and checkpoints.best() is None
    assert set(lines) == {f"{folder}/metrics.json cannot be read; its results are ignored"}
