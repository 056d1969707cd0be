"""Random damage to every format of weights: refused in one line, in time, or without effect.

Formats without checksums (published safetensors, Flax's msgpack) cannot tell a changed number, so
there the damage is to everything but the numbers. A published `config.json` that is damaged into
another valid one is another model: what is read must then be what it says.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import bert_cases
import jax
import numpy as np
import pytest
import safetensors.numpy
from folders import write

import jaxformers as jf
from jaxformers.errors import MESSAGE_LENGTH, WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.formats.flax_msgpack import FlaxTensors
from jaxformers.pretrained.formats.npz_file import NpzFile
from jaxformers.pretrained.formats.torch_file import TorchFile
from jaxformers.pretrained.model_variables import flatten, variable_shapes
from jaxformers.pretrained.vit import vit_timm

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
CORRUPTIONS = 300
SECONDS = 10.0


def damaged(content: bytes, random: np.random.RandomState, end: int) -> bytes:
    """`content` with one random fault in its first `end` bytes."""
    data, at = bytearray(content), random.randint(end)
    size = min(random.choice([1, 1, 2, 4, 16, 256]), end - at)
    match random.choice(["flip", "bytes", "zeros", "cut", "insert", "remove", "copy", "swap"]):
        case "flip":
            data[at] ^= 1 << random.randint(8)
        case "bytes":
            data[at : at + size] = random.bytes(size)
        case "zeros":
            data[at : at + size] = bytes(size)
        case "cut":
            del data[at:]
        case "insert":
            data[at:at] = random.bytes(size)
        case "remove":
            del data[at : at + size]
        case "copy":
            source = random.randint(end)
            data[at : at + size] = data[source : source + size]
        case "swap":
            source = random.randint(end)
            data[at], data[source] = data[source], data[at]
    return bytes(data)


def outcome(load):
    """What a load gives, or None where it is refused in one line."""
    start = time.process_time()
    try:
        result = load()
    except WeightsError as error:
        line = str(error)
        assert "\n" not in line and len(line) <= 1.1 * MESSAGE_LENGTH
        assert all(char.isprintable() for char in line), line
        result = None
    assert time.process_time() - start < SECONDS
    return result


def fuzz(file: Path, load, seed: int, end: int | None = None, same=None) -> int:
    """Damages the file again and again; how often that was refused."""
    content, expected, num_refused = file.read_bytes(), load(), 0
    random = np.random.RandomState(seed)
    for _ in range(CORRUPTIONS):
        file.write_bytes(damaged(content, random, end or len(content)))
        result = outcome(load)
        num_refused += result is None
        if result is not None:
            (same or assert_same)(result, expected)
    file.write_bytes(content)
    assert_same(load(), expected)
    return num_refused


def assert_same(result, expected):
    config, leaves = result
    assert config == expected[0]
    assert leaves.keys() == expected[1].keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, expected[1][name], err_msg=name)


def tensors_of(opened, path):
    """A function that reads all tensors of a file."""

    def load():
        file = opened(path)
        return None, {name: file.read(name) for name in file.shapes}

    return load


def model_of(path):
    """A function that loads a model."""

    def load():
        model, variables = load_pretrained(path)
        return (type(model), model.config), flatten(variables)

    return load


def small_vit(width=16, heads=2):
    config = jf.ViTConfig(
        image_size=8, patch_size=4, width=width, heads=heads, feed_forward=8, layers=2, classes=3
    )
    model = jf.ViT(config)
    return model, model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    random = np.random.RandomState(0)
    save(tmp_path / "a.npz", **{f"layer/{i}": random.standard_normal((5, i)) for i in range(1, 9)})
    assert fuzz(tmp_path / "a.npz", tensors_of(NpzFile, tmp_path / "a.npz"), 1) > 200


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["weights.pth", "torchscript.pt"])
def test_pth(archive, tmp_path):
    shutil.copy(FIXTURES / archive, tmp_path / archive)
    assert fuzz(tmp_path / archive, tensors_of(TorchFile, tmp_path / archive), 2) > 50


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_our_own_format(file, tmp_path):
    save_pretrained(*small_vit(), tmp_path, format="jaxformers")
    same = None if file == "model.safetensors" else as_configured(tmp_path)
    assert fuzz(tmp_path / file, model_of(tmp_path), 3, same=same) > 100


@pytest.mark.slow
@pytest.mark.parametrize("case", ["safetensors", "config", "index"])
def test_hugging_face_folders(case, tmp_path):
    config = bert_cases.CASES["classifier"]
    folder = Path(write(tmp_path, config, bert_cases.weights(config, 0)))
    weights = folder / "model.safetensors"
    if case == "safetensors":
        end = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
        assert fuzz(weights, model_of(folder), 4, end) > 250
    elif case == "config":
        fuzz(folder / "config.json", model_of(folder), 5, same=as_configured(folder))
    else:
        names = list(safetensors.numpy.load_file(weights))
        weights.rename(folder / "part.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "part.safetensors")}))
        assert fuzz(index, model_of(folder), 6) > 200


def as_configured(folder: Path):
    """Checks that the tensors are those of the file, in a model of what the configuration says."""
    _, expected = model_of(folder)()

    def check(result, _):
        (kind, config), leaves = result
        json.loads((folder / "config.json").read_bytes())  # it is another, or an equal, valid one
        assert variable_shapes(kind(config)).keys() == leaves.keys()
        for name, leaf in leaves.items():
            # Another number of heads divides the same matrices in another way.
            np.testing.assert_array_equal(leaf.ravel(), expected[name].ravel(), err_msg=name)

    return check


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_file_alone(suffix, tmp_path):
    _, variables = small_vit(width=64, heads=1)
    tensors = vit_timm.name_map(fixed=False).write(
        {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    )
    file, end = tmp_path / f"weights.{suffix}", None
    if suffix == "npz":
        np.savez(file, **tensors)
    else:
        safetensors.numpy.save_file(tensors, file)
        end = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert fuzz(file, model_of(file), 7, end) > 200


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_tensorflow_checkpoints(suffix, tmp_path):
    shutil.copytree(FIXTURES / "bert_google" / "classifier", tmp_path / "bert")
    file = tmp_path / "bert" / f"model.ckpt-343.{suffix}"
    fuzz(file, model_of(tmp_path / "bert"), 8)


@pytest.mark.slow
def test_flax_folders(tmp_path):
    shutil.copytree(FIXTURES / "flax" / "bert", tmp_path / "bert")
    file = tmp_path / "bert" / "flax_model.msgpack"
    tensors = FlaxTensors(tmp_path / "bert")
    numbers = np.zeros(file.stat().st_size, bool)
    for array in tensors._arrays.values():
        size = int(np.prod(array.shape)) * array.dtype.itemsize
        numbers[array.offset : array.offset + size] = True
    content, load = file.read_bytes(), model_of(tmp_path / "bert")
    expected, headers = load(), np.flatnonzero(~numbers)
    random = np.random.RandomState(9)
    for _ in range(CORRUPTIONS):
        at = int(random.choice(headers))
        data = bytearray(content)
        match random.choice(["flip", "byte", "cut", "insert", "remove"]):
            case "flip":
                data[at] ^= 1 << random.randint(8)
            case "byte":
                data[at] = random.randint(256)
            case "cut":
                del data[at:]
            case "insert":
                data[at:at] = random.bytes(3)
            case "remove":
                del data[at]
        file.write_bytes(data)
        if (result := outcome(load)) is not None:
            assert_same(result, expected)
