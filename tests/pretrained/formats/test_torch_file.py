"""PyTorch's `.pth` files give their tensors, and nothing in them is run."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import vit_cases as cases

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import torch_to_safetensors
from jaxformers.pretrained.formats.torch_file import TensorEntry, TorchFile, follow


def rewritten(folder, change):
    """The golden file with its members changed: name and bytes to bytes, or None to leave out."""
    path = folder / "changed.pth"
    with zipfile.ZipFile(cases.PICKLED) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return path


def test_its_tensors_become_a_safetensors_file_and_its_calls_are_not_made(tmp_path, capsys):
    torch_to_safetensors(cases.PICKLED, tmp_path / "weights.safetensors")
    loaded, expected = (
        safetensors.numpy.load_file(tmp_path / "weights.safetensors"),
        cases.pickled(),
    )
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(loaded[name], value, err_msg=name)
    assert capsys.readouterr().out == ""


def test_nobody_opens_one_without_asking_by_name():
    with pytest.raises(WeightsError, match=r"is a pickle.*torch_to_safetensors"):
        jf.from_pretrained(cases.PICKLED)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: None if name.endswith("data.pkl") else content,
        lambda name, content: content[:-40] if name.endswith("data.pkl") else content,
        lambda name, content: b"cposix\nsystem\n." if name.endswith("data.pkl") else content,
    ],
    ids=["no pickle", "cut short", "no containers"],
)
def test_a_damaged_description_is_refused(change, tmp_path):
    with pytest.raises(WeightsError, match=r"damaged|no tensors") as error:
        TorchFile(rewritten(tmp_path, change))
    assert "\n" not in str(error.value)


def of_kind(folder, storage, kind, values):
    """The golden file whose whole numbers are of another kind."""
    long = np.arange(4).tobytes()
    return rewritten(
        folder,
        lambda name, content: (
            np.array(values, kind).tobytes()
            if content == long
            else content.replace(b"LongStorage", storage)
        ),
    )


@pytest.mark.parametrize(("storage", "kind"), [(b"CharStorage", "i1"), (b"ShortStorage", "<i2")])
def test_short_whole_numbers_are_read(storage, kind, tmp_path):
    file = TorchFile(of_kind(tmp_path, storage, kind, [-128, 127, 0, 1]))
    np.testing.assert_array_equal(file.read("whole"), [-128, 127, 0, 1])


def test_a_kind_of_tensor_that_is_not_read_is_named_and_others_are(tmp_path):
    file = TorchFile(of_kind(tmp_path, b"ComplexFloatStorage", "c8", [1, 2, 3, 4]))
    np.testing.assert_array_equal(file.read("matrix"), cases.pickled()["matrix"])
    with pytest.raises(WeightsError, match="whole is of the kind ComplexFloatStorage, which is"):
        file.read("whole")
    file = TorchFile(
        rewritten(tmp_path, lambda _, content: content.replace(b"_tensor_v2", b"_qtensor"))
    )
    assert file.shapes.keys() == cases.pickled().keys()
    with pytest.raises(WeightsError, match="half is of the kind qtensor, which is not supported"):
        file.read("half")
    # As torch.save writes torch.zeros(3, dtype=torch.uint16), with None for its storage.
    opcodes = b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(NK\x00K\x03\x85K\x01\x85\x89}"
    entry = follow(opcodes + b"ctorch\nuint16\ntR.")
    assert isinstance(entry, TensorEntry) and (entry.dtype, entry.shape) == ("uint16", (3,))


@pytest.mark.parametrize("what", ["missing", "short"])
def test_a_damaged_array_is_refused(what, tmp_path):
    def change(name, content):
        if "/data/" not in name:
            return content
        return None if what == "missing" else content[:-2]

    file = TorchFile(rewritten(tmp_path, change))
    with pytest.raises(WeightsError, match="matrix is damaged"):
        file.read("matrix")


def test_a_tensor_that_reaches_beyond_its_array_is_refused():
    file = TorchFile(cases.PICKLED)
    lazy = file._tensors["matrix"]
    for changes in ({"offset": 1}, {"shape": (7, 5)}, {"strides": (0, 0), "shape": (99, 99)}):
        file._tensors["matrix"] = lazy._replace(**changes)
        with pytest.raises(WeightsError, match="reaches beyond its array"):
            file.read("matrix")


def test_numbers_of_a_big_endian_machine_are_refused(tmp_path):
    path = rewritten(tmp_path, lambda _, content: content.replace(b"little", b"big"))
    with pytest.raises(WeightsError, match="is of a big-endian machine"):
        TorchFile(path)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "old.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(
        WeightsError, match=r"no file of torch.save since 2020 \(File is not a zip file\)"
    ):
        TorchFile(tmp_path / "old.pth")
    with pytest.raises(WeightsError, match=r"cannot read .*none.pth: No such file"):
        TorchFile(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"x.safetensors cannot be written"):
        torch_to_safetensors(cases.PICKLED, tmp_path / "none" / "x.safetensors")
