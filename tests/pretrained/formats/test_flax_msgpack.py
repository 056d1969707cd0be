"""Folders of Hugging Face's Flax classes, `flax_model.msgpack`, read without unpickling."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import flax
import jax
import numpy as np
import pytest
from etils import epath
from flax import traverse_util

from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.formats.flax_msgpack import FlaxFile, FlaxTensors, write_file

INPUTS = ("pixel_values", "input_ids", "decoder_input_ids")
FLAX = Path(__file__).resolve().parents[2] / "fixtures" / "flax"


def outputs(name, model, variables):
    """Our logits, and those of the Flax class that wrote the folder."""
    with np.load(FLAX / "outputs.npz") as arrays:
        golden = {
            key.removeprefix(f"{name}/"): array
            for key, array in arrays.items()
            if key.startswith(f"{name}/")
        }
    if "pixel_values" in golden:
        golden["pixel_values"] = golden["pixel_values"].transpose(0, 2, 3, 1)
    inputs = [golden[key] for key in INPUTS if key in golden]
    out = jax.jit(model.apply)(variables, *inputs)
    if name == "clip":
        return out.logits_per_image, golden["logits_per_image"]
    return out[0] if isinstance(out, tuple) else out, golden["logits"]


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", ["bert", "bert_classifier", "vit", "marian", "resnet", "clip"])
def test_outputs_equal_those_of_the_flax_class(name):
    logits, expected = outputs(name, *load_pretrained(FLAX / name))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_folder_is_saved_again_as_safetensors(tmp_path):
    model, variables = load_pretrained(FLAX / "bert_classifier")
    save_pretrained(model, variables, tmp_path)
    again, loaded = load_pretrained(tmp_path)
    assert again == model and (tmp_path / "model.safetensors").exists()
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_safetensors_are_preferred(tmp_path):
    model, variables = load_pretrained(FLAX / "bert")
    save_pretrained(model, variables, tmp_path)
    (tmp_path / "flax_model.msgpack").write_bytes(b"damaged")
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(tmp_path)[1], variables)


def packed(shape=(2, 3), dtype="float32", data=None, code=1, name="kernel"):
    """A file of one array, as Flax writes it, with what is given in place of what is true."""
    data = bytes(24) if data is None else data
    body = b"\x93" + bytes([0x90 | len(shape)])
    body += b"".join(b"\xcf" + struct.pack(">Q", side) for side in shape)
    body += bytes([0xA0 | len(dtype)]) + dtype.encode() + b"\xc6" + struct.pack(">I", len(data))
    extension = b"\xc9" + struct.pack(">IB", len(body) + len(data), code) + body + data
    key = b"\xdb" + struct.pack(">I", len(name)) + name.encode()
    return b"\x81\xa5layer\x81" + key + extension


def refusal(folder, content):
    (folder / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(WeightsError, match=r"flax_model.msgpack is truncated, damaged") as error:
        FlaxTensors(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_a_kernel_has_pytorchs_name_and_layout(tmp_path):
    data = np.arange(6, dtype=np.float32)
    (tmp_path / "flax_model.msgpack").write_bytes(packed(data=data.tobytes()))
    tensors = FlaxTensors(tmp_path)
    assert tensors.shapes == {"layer.weight": (3, 2)}
    np.testing.assert_array_equal(tensors.read("layer.weight"), data.reshape(2, 3).T)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it ends at byte 0"),
        (packed()[:-1], "is to go on to"),
        (packed()[:30], "is to go on to"),
        (packed() + b"\x00", "1 bytes after its end"),
        (packed(shape=(1 << 40, 1 << 40)), "another size than its shape"),
        (packed(shape=(3, 3)), "another size than its shape"),
        (packed(dtype="float64"), "another size than its shape"),
        (packed(dtype="object"), "an array of type object"),
        (packed(code=2), "an extension that is no array"),
        (packed(name="k" * 100_000), "a name of 100,000 bytes"),
        (packed(name="\x1b[2J", dtype="\x1b[2J"), r"an array of type \x1b[2J"),
        (b"\xdf\xff\xff\xff\xff" + packed()[1:], "ends at byte"),
        (b"\x81\xa1a" * 1000 + b"\x80", "neither an array nor a map"),
        (b"\xdf\x00\x01\x86\xa1" + b"\xa1a\x80" * 100_001, "more than 100,000 names"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "neither an array nor a map"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93", "ends at byte"),
        (b"\x81\xdb\xff\xff\xff\xff", "a name of 4,294,967,295 bytes"),
        (b"\x81\xc0", "a value of code 0xc0"),
        (b"\x93\x01\x02\x03", "neither an array nor a map"),
        (b"\x80\x02}q\x00.", "bytes after its end"),
    ],
)
def test_a_truncated_file_and_lengths_that_lie_are_refused(content, words, tmp_path):
    assert words in refusal(tmp_path, content)


def test_every_truncation_is_refused(tmp_path):
    content = (FLAX / "vit" / "flax_model.msgpack").read_bytes()
    for end in range(0, len(content), 97):
        refusal(tmp_path, content[:end])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda folder: (folder / "flax_model-00002-of-00003.msgpack").unlink(),
            "which is missing",
        ),
        (
            lambda folder: shutil.copy(
                folder / "flax_model-00001-of-00003.msgpack",
                folder / "flax_model-00002-of-00003.msgpack",
            ),
            "repeats bert.embeddings",
        ),
        (
            lambda folder: (folder / "flax_model.msgpack.index.json").write_text(
                '{"weight_map": {"a": "../x.msgpack"}}'
            ),
            "which is no msgpack file beside it",
        ),
        (
            lambda folder: (folder / "flax_model.msgpack.index.json").write_text("{}"),
            "has no weight_map",
        ),
    ],
)
def test_shards_that_do_not_fit_their_index_are_refused(change, words, tmp_path):
    folder = Path(shutil.copytree(FLAX / "bert_classifier", tmp_path / "copy"))
    change(folder)
    with pytest.raises(WeightsError, match=words):
        load_pretrained(folder)


def test_a_written_file_is_flaxs_own_byte_for_byte(tmp_path):
    random = np.random.RandomState(0)
    shapes = [(), (0,), (3,), (40,), (5, 17), (300, 70), (1, 2, 3, 4)]
    tensors = {
        f"layers_{i}/kernel": np.array(random.rand(*s), np.float32) for i, s in enumerate(shapes)
    }
    tensors |= {f"wide/{'n' * n}": np.float16(random.rand(n)) for n in (1, 31, 32, 256)}
    tensors |= {f"many/{i}": np.zeros(1, np.int32) for i in range(20)}
    path = epath.Path(tmp_path / "weights.bin")
    write_file(path, tensors)
    expected = flax.serialization.to_bytes(traverse_util.unflatten_dict(tensors, sep="/"))
    assert path.read_bytes() == expected
    file = FlaxFile(path)
    assert dict(file.shapes) == {name: array.shape for name, array in tensors.items()}
    for name, array in tensors.items():
        np.testing.assert_array_equal(file.read(name), array.astype(np.float32))


def test_a_collection_around_all_arrays_is_no_part_of_their_names(tmp_path):
    path = epath.Path(tmp_path / "weights.bin")
    write_file(path, {"params/a/b": np.ones(2, np.float32)})
    assert dict(FlaxFile(path).shapes) == {"a/b": (2,)}
