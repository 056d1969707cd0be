"""Google's TensorFlow checkpoints of BERT, written by TensorFlow: read, converted, refused."""

import re
import shutil
import struct
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import bert_cases as cases

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, load_text_backbone
from jaxformers.pretrained.formats.crc32c import crc32c, masked
from jaxformers.pretrained.formats.tf_checkpoint import TensorBundle, _table

FOLDERS = cases.GOOGLE_LOGITS.parent
NAMES = list(cases.GOOGLE)
INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FOLDERS / "pretraining", tmp_path / "google"))


def complaint(path):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outputs(model, variables, name):
    output = model.apply(variables, **cases.batch(cases.GOOGLE[name], NAMES.index(name)))
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces_with_the_same_weights(name):
    golden = np.load(cases.GOOGLE_LOGITS)
    model, variables = load_pretrained(FOLDERS / name)
    for i, output in enumerate(outputs(model, variables, name)):
        np.testing.assert_allclose(output, golden[f"{name}_{i}"], rtol=0, atol=2e-5)


def test_a_folder_is_converted_with_its_tokenizer(folder, tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a"]
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    assert not (tmp_path / "ours" / "vocab.txt").exists()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    model, variables = load_pretrained(folder)
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    long = ["a" * 150]  # Google's limit on a word's length is twice Hugging Face's
    assert jf.load_text(tmp_path / "ours").encode(long) == jf.load_text(folder).encode(long)


def test_fine_tuning_starts_from_a_checkpoint():
    source, variables = load_pretrained(FOLDERS / "pretraining")
    backbone = load_text_backbone(
        FOLDERS / "pretraining", jf.BertForSequenceClassification(source.config)
    )
    jax.tree.map(np.testing.assert_array_equal, backbone["bert"], variables["params"]["bert"])


def rewritten(file, change):
    """An index with its entries changed, its checksums right."""
    entries = dict(_table(file.read_bytes()))
    change(entries)
    packed = [_entry(key, value) for key, value in sorted(entries.items())]
    content, handle = _appended(b"", b"".join(packed))
    content, of_index = _appended(content, _entry(b"z", handle))
    footer = (b"\0\0" + of_index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    file.write_bytes(content + footer)


def _varint(value):
    low = value & 0x7F
    return bytes([low | 0x80]) + _varint(value >> 7) if value > 0x7F else bytes([low])


def _entry(key, value):
    return b"\0" + _varint(len(key)) + _varint(len(value)) + key + value


def _appended(content, entries, compression=0):
    block = entries + struct.pack("<II", 0, 1) + bytes([compression])
    handle = _varint(len(content)) + _varint(len(block) - 1)
    return content + block + struct.pack("<I", masked(crc32c(block))), handle


def test_every_fault_is_named_at_once(folder):
    def change(entries):
        entries[b"bert/surprise"] = entries.pop(b"bert/pooler/dense/bias")
        entries[b"bert/pooler/dense/kernel"] = entries[b"cls/predictions/output_bias"]

    rewritten(folder / INDEX, change)
    message = complaint(folder)
    assert "missing bert/pooler/dense/bias" in message
    assert "unexpected bert/surprise" in message
    assert "misshapen bert/pooler/dense/kernel [97] instead of [24, 24]" in message


def number(field, value):
    return _varint(field << 3) + _varint(value)


def shape(*sizes):
    dims = b"".join(b"\x12" + _varint(len(number(1, s))) + number(1, s) for s in sizes)
    return b"\x12" + _varint(len(dims)) + dims


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (number(1, 1) + shape(24) + number(5, 96), "damaged at bert/pooler/dense/bias"),
        (number(1, 1) + shape(24) + number(5, 92), "has not the size of its shape"),
        (number(1, 1) + shape(24) + number(4, 2**40) + number(5, 96), "it is truncated"),
        (number(1, 1) + shape(2**50) + number(5, 2**52), r"misshapen .* \[1125899906842624\]"),
        (number(1, 3) + shape(24) + number(5, 96), "not of floating point"),
        (number(1, 1) + shape(24) + number(3, 7) + number(5, 96), "data-00007-of-00001"),
        (number(1, 1) + shape(24) + number(5, 96) + b"\x3a\0", "kept in pieces"),
        (b"\x12\x7f", "is truncated, damaged"),
        (b"\x0b", "is truncated, damaged"),
        (b"\xff" * 11, "is truncated, damaged"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(entry, words, folder):
    rewritten(folder / INDEX, lambda entries: entries.update({b"bert/pooler/dense/bias": entry}))
    assert re.search(words, complaint(folder))


@pytest.mark.slow
def test_a_flipped_byte_is_found_wherever_it_is(folder):
    for name in (INDEX, DATA):
        original = (folder / name).read_bytes()
        # A footer's padding says nothing.
        for at in np.linspace(0, len(original) - 57, 9, dtype=int):
            damaged = bytearray(original)
            damaged[at] ^= 4
            (folder / name).write_bytes(damaged)
            assert "fetch it again" in complaint(folder)
        (folder / name).write_bytes(original)


@pytest.mark.parametrize(("name", "end"), [(INDEX, 0), (INDEX, 40), (INDEX, -1), (DATA, -1)])
def test_a_truncated_file_is_refused(name, end, folder):
    (folder / name).write_bytes((folder / name).read_bytes()[:end])
    assert "truncated" in complaint(folder)


def test_a_compressed_index_is_refused(folder):
    content, handle = _appended(b"", b"", compression=1)
    footer = (b"\0\0" + handle).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / INDEX).write_bytes(content + footer)
    assert "is compressed" in complaint(folder)


def test_files_that_are_not_there_are_named(folder):
    (folder / DATA).unlink()
    assert f"cannot read {folder / DATA}" in complaint(folder)
    (folder / INDEX).rename(folder / "model.ckpt-1.index")
    (folder / "model.ckpt-2.index").touch()
    assert "several checkpoints (model.ckpt-1.index, model.ckpt-2.index)" in complaint(folder)
    for file in folder.glob("*.index"):
        file.unlink()
    assert "bert_model.ckpt.index is missing" in complaint(folder)
    (folder / "bert_model.ckpt").touch()
    assert "TensorFlow's first format" in complaint(folder)


def test_a_large_index_is_not_read(folder):
    with (folder / INDEX).open("ab") as file:
        file.truncate(1 << 30)
    assert "not an index" in complaint(folder)


def test_the_optimizers_slots_are_seen_and_left_aside():
    shapes = TensorBundle(FOLDERS / "classifier" / "model.ckpt-343.index").shapes
    assert {"global_step", "output_weights/adam_m", "output_weights/adam_v"} <= set(shapes)
    assert load_pretrained(FOLDERS / "classifier")[0].config.labels == 5


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000, 8188, 8192, 100_001])
def test_the_checksum_equals_one_taken_bit_by_bit(size):
    data, state = np.random.default_rng(size).bytes(size), 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    assert crc32c(data) == state ^ 0xFFFFFFFF


def test_the_checksum_of_the_nine_digits_is_the_standards():
    assert crc32c(b"123456789") == 0xE3069283
