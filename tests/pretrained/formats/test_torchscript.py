"""OpenAI's kind of archive (`torch.jit.save`, half precision) gives its tensors; nothing is run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from jaxformers.errors import WeightsError
from jaxformers.pretrained import torch_to_safetensors
from jaxformers.pretrained.formats.torch_file import TorchFile, follow

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
ARCHIVE = FIXTURES / "torchscript.pt"


def rewritten(path, changes, additions=()):
    """The archive with the contents of some members changed, and members added."""
    with zipfile.ZipFile(ARCHIVE) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            content = old.read(name)
            change = changes.get(name.removeprefix(f"{root}/"), lambda same: same)
            new.writestr(name, change(content))
        for name, content in dict(additions).items():
            new.writestr(f"{root}/{name}", content)
    return path


def test_its_tensors_have_the_names_and_values_of_the_state_dict(tmp_path):
    torch_to_safetensors(ARCHIVE, tmp_path / "weights.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    with np.load(FIXTURES / "torchscript.npz") as expected:
        assert tensors.keys() == set(expected)
        assert {"visual.layers.1.weight", "visual.resolution", "logit_scale"} < tensors.keys()
        for name, value in expected.items():
            assert tensors[name].dtype == np.float32
            np.testing.assert_array_equal(tensors[name], value, err_msg=name)


class Command:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_it_is_not_executed(tmp_path):
    witness = tmp_path / "executed"
    code = f"open({str(witness)!r}, 'w')\n"
    command = pickle.dumps(Command(witness), 2)
    # In place of a value of the description, and in every other member that holds code.
    call = command.removeprefix(b"\x80\x02").removesuffix(b".")
    path = rewritten(
        tmp_path / "evil.pt",
        {
            "data.pkl": lambda content: content[:2] + call + content[2:],
            "constants.pkl": lambda _: command,
        },
        {"code/__torch__/evil.py": code, "code/sitecustomize.py": code, "extra/evil.pkl": command},
    )
    file = TorchFile(path)
    assert len(file.shapes) == len(np.load(FIXTURES / "torchscript.npz"))
    for name in file.shapes:
        file.read(name)
    torch_to_safetensors(path, tmp_path / "weights.safetensors")
    assert not witness.exists()
    pickle.loads(command).close()  # as it would have been
    assert witness.exists()


MODULE = b"c__torch__\nModule\n)\x81"


def test_a_module_that_is_its_own_part_is_refused(tmp_path):
    loop = b"\x80\x02" + MODULE + b"q\x00}(X\x01\x00\x00\x00ah\x00ub."
    assert follow(loop).attributes.keys() == {"a"}
    path = rewritten(tmp_path / "loop.pt", {"data.pkl": lambda _: loop})
    with pytest.raises(WeightsError, match="modules without end"):
        TorchFile(path)


def test_modules_shared_at_every_level_are_bounded(tmp_path):
    pickled = b"\x80\x02" + MODULE + b"}(X\x01\x00\x00\x00xK\x01ubq\x00"
    for level in range(60):  # 2 ** 60 paths
        memory = bytes([level])
        pair = b"}(X\x01\x00\x00\x00ah" + memory + b"X\x01\x00\x00\x00bh" + memory + b"u"
        pickled += MODULE + pair + b"bq" + bytes([level + 1])
    path = rewritten(tmp_path / "many.pt", {"data.pkl": lambda _: pickled + b"."})
    with pytest.raises(WeightsError, match="modules without end"):
        TorchFile(path)
