"""Damaged and hostile files of weights: one line that names them, in time and in little memory."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
import vit_cases
from etils import epath

import jaxformers as jf
from jaxformers.errors import MESSAGE_LENGTH, UserError, WeightsError, printable
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.formats import safetensors_folder, torch_file
from jaxformers.pretrained.formats.crc32c import crc32c, masked
from jaxformers.pretrained.formats.npz_file import NpzFile
from jaxformers.pretrained.formats.tf_checkpoint import TensorBundle
from jaxformers.pretrained.formats.torch_file import TorchFile

ARRAY = np.random.RandomState(0).standard_normal((40, 30)).astype(np.float32)


def refusal(open_file, *words):
    """The one line with which a file is refused."""
    start = time.process_time()
    with pytest.raises(WeightsError) as caught:
        open_file()
    line = str(caught.value)
    assert time.process_time() - start < 5
    assert "\n" not in line and len(line) <= 1.1 * MESSAGE_LENGTH
    assert all(char.isprintable() for char in line)
    for word in words:
        assert word in line, line
    return line


def npz(path, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **(arrays or {"a": ARRAY}))
    return path


def directory(content, offset, form, value):
    """The bytes of an archive with a field of every central directory record changed."""
    content, position = bytearray(content), 0
    while (position := content.find(b"PK\x01\x02", position)) >= 0:
        struct.pack_into(form, content, position + offset, value)
        position += 4
    return bytes(content)


FLAGS, METHOD = (8, "<H"), (10, "<H")
CHANGES = {
    "encrypted": (FLAGS, 1, "is encrypted: save the file without a password"),
    "strongly encrypted": (FLAGS, 65, "is encrypted"),
    "unknown method": (METHOD, 99, "is compressed by method 99"),
    "lzma": (METHOD, 14, "is compressed by method 14, and only deflate is supported"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["npz", "pth"])
def test_an_archive_that_is_encrypted_or_of_an_unknown_method_is_refused(kind, change, tmp_path):
    path = tmp_path / f"weights.{kind}"
    content = npz(tmp_path / "a.npz").read_bytes() if kind == "npz" else None
    (offset, form), value, words = CHANGES[change]
    path.write_bytes(directory(content or vit_cases.PICKLED.read_bytes(), offset, form, value))
    refusal(lambda: (NpzFile if kind == "npz" else TorchFile)(path), str(path), words)


def test_damaged_deflate_data_are_refused(tmp_path):
    path = npz(tmp_path / "weights.npz")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[0].header_offset + 60
    for where in (start, start + 2000):  # in the array's header, in its numbers
        damaged = content.copy()
        damaged[where : where + 40] = b"\xff" * 40
        path.write_bytes(damaged)
        refusal(lambda: NpzFile(path).read("a"), str(path), "a", "damaged")


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("megabytes", [384, 3072])
def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_that(megabytes, tmp_path):
    path = tmp_path / "weights.npz"
    header = io.BytesIO()
    shape = (megabytes, 1 << 18)  # float32
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("embedding/kernel.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(megabytes // 128):
            member.write(bytes(1 << 27))
    assert path.stat().st_size < 20 << 20
    words = f"to {(megabytes << 20) + 128:,} bytes"
    refusal(lambda: jf.from_pretrained(path), "would unpack from", words, "numpy.savez")


def test_members_that_overlap_count_each(tmp_path):
    member = npz(tmp_path / "one.npz", a=np.zeros((1 << 20, 8), np.float32)).read_bytes()
    directory_start = member.index(b"PK\x01\x02")
    record = member[directory_start : member.index(b"PK\x05\x06")]
    count, end = 20, bytearray(member[member.index(b"PK\x05\x06") :])
    records = b"".join(record.replace(b"a.npy", b"%c.npy" % (97 + i)) for i in range(count))
    struct.pack_into("<HHI", end, 8, count, count, len(records))
    (tmp_path / "many.npz").write_bytes(member[:directory_start] + records + end)
    refusal(lambda: NpzFile(tmp_path / "many.npz"))


def test_a_directory_that_lacks_members_is_refused(tmp_path):
    path = npz(tmp_path / "weights.npz", a=ARRAY, b=ARRAY)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = 46 + len("a.npy")
        assert len(archive.infolist()) == 2
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", content, end + 16)[0]
    struct.pack_into("<II", content, end + 12, end - start - first, start + first)
    path.write_bytes(content)  # as if it began with the second
    refusal(lambda: NpzFile(path), "its directory is incomplete")
    path.write_bytes(bytes(content[:end]) + b"PK\x05\x06" + bytes(18))  # as if it were empty
    refusal(lambda: NpzFile(path), "its directory is incomplete")
    content[end + 10 : end + 12] = b"\xff\xff"
    path.write_bytes(content)
    refusal(lambda: NpzFile(path), "damaged")


def test_names_that_occur_twice_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    for names in (("a.npy", "a.npy"), ("a", "a.npy")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                array = io.BytesIO()
                np.save(array, ARRAY)
                with pytest.warns(UserWarning) if name in archive.namelist() else _nothing():
                    archive.writestr(name, array.getvalue())
        refusal(lambda: NpzFile(path), "fetch it again")


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 6)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (6L,)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': 6}",
        b"{'descr': " + b"[" * 3000,
        b"(" * 5000,
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",)}",
        b"\xff\xfe{",
    ],
)
def test_an_arrays_header_that_cannot_be_is_refused(header, tmp_path):
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("a.npy", head + bytes(24))
    refusal(lambda: NpzFile(path), str(path))


# ---------------------------------------------------------------- torch.save


def pickled_pth(path, description):
    """A `.pth` file of this description and one array of 6 numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", description)
        archive.writestr("weights/data/0", np.arange(6, dtype=np.float32).tobytes())
    return path


INT = {n: b"K" + bytes([n]) for n in range(7)}
TEXT = b"X\x01\x00\x00\x00x"


def tensor(
    storage=b"ctorch\nFloatStorage\n",
    key=b"X\x01\x00\x00\x000",
    length=INT[6],
    offset=INT[0],
    shape=INT[2] + INT[3] + b"\x86",
    strides=INT[3] + INT[1] + b"\x86",
):
    """A state dict with one tensor, some of its fields replaced by other instructions."""
    identity = (
        b"(X\x07\x00\x00\x00storage" + storage + key + b"X\x03\x00\x00\x00cpu" + length + b"t"
    )
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"Q" + offset + shape + strides
    return b"\x80\x02}(" + TEXT + call + b"\x89}tRu."


DEEP = b")" + b"\x85" * 100_000
BAD_FIELDS = {
    "shape of words": {"shape": TEXT + TEXT + b"\x86"},
    "shape of nothing": {"shape": b"N"},
    "shape of numbers with a point": {"shape": b"G" + struct.pack(">d", 2.0) + INT[3] + b"\x86"},
    "shape of truths": {"shape": b"\x88" + INT[6] + b"\x86"},
    "negative shape": {"shape": b"J\xfe\xff\xff\xff" + b"J\xfd\xff\xff\xff" + b"\x86"},
    "shape of one dimension more": {"shape": INT[1] + INT[2] + INT[3] + b"\x87"},
    "shape as a word": {"shape": b"X\x02\x00\x00\x00ab"},
    "nested shape": {"shape": DEEP},
    "no strides": {"strides": b")"},
    "strides of words": {"strides": TEXT + TEXT + b"\x86"},
    "negative strides": {"strides": b"J\xfd\xff\xff\xff" + INT[1] + b"\x86"},
    "offset of words": {"offset": TEXT},
    "negative offset": {"offset": b"J\xff\xff\xff\xff"},
    "length of words": {"length": TEXT},
    "huge length": {"length": b"\x8a\x20" + b"\x7f" * 32},
    "key of numbers": {"key": INT[0]},
    "key of a tuple": {"key": DEEP},
    "storage of words": {"storage": TEXT},
    "storage of a list": {"storage": b"]"},
    "storage named by numbers": {"storage": INT[1] + INT[2] + b"\x93"},
}


def test_the_file_that_the_next_test_damages_is_read(tmp_path):
    file = TorchFile(pickled_pth(tmp_path / "weights.pth", tensor()))
    np.testing.assert_array_equal(file.read("x"), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_tensor_whose_fields_are_of_the_wrong_type_or_length_is_refused(case, tmp_path):
    path = pickled_pth(tmp_path / "weights.pth", tensor(**BAD_FIELDS[case]))
    refusal(lambda: TorchFile(path).read("x"), str(path))


@pytest.mark.parametrize(
    "description",
    [
        b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
        b"\x80\x02}" + DEEP + b"K\x01s.",  # a deep tuple as a key: its hash would recurse
        b"\x80\x02]" + b"(K\x01e" * 70_000 + b".",
        b"\x80\x02t.",
        b"\x80\x02" + b"h\x05.",
        b"\x80\x02.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"",
    ],
    ids=["marks", "deep key", "too long", "no mark", "no memory", "empty", "long word", "nothing"],
)
def test_a_description_that_cannot_be_is_refused_in_time(description, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "INSTRUCTIONS", 200_000)
    path = pickled_pth(tmp_path / "weights.pth", description)
    refusal(lambda: TorchFile(path), str(path))


# ---------------------------------------------------------------- names


HOSTILE = [
    "a" * 100_000,
    "\x1b[2J\x1b]0;owned\x07",
    "x\ny\rz",
    "\u202eabc",
    "\u2028",
    "b " * 50_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_from_a_file_is_cut_and_escaped(name, tmp_path):
    safetensors.numpy.save_file({name: ARRAY}, tmp_path / "weights.safetensors")
    line = refusal(lambda: jf.from_pretrained(tmp_path / "weights.safetensors"), "no known model")
    assert len(line) < 1000
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        array = io.BytesIO()
        np.save(array, ARRAY)
        archive.writestr(f"{name[:60_000]}.npy", array.getvalue()[:-4])
    assert len(refusal(lambda: NpzFile(tmp_path / "weights.npz"))) < 1000


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_in_a_folder_is_cut_and_escaped(name, tmp_path):
    model = jf.ViT(jf.ViTConfig(image_size=4, patch_size=4, width=8, heads=2, layers=1))
    variables = model.init(jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32))
    save_pretrained(model, variables, tmp_path, format="jaxformers")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(
        safetensors.numpy.save(tensors | {name: np.zeros(3, np.float32)})
    )
    assert len(refusal(lambda: load_pretrained(tmp_path), "unexpected")) < 1000
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"family": name}, {"config": {name: 1}}, {"config": {"heads": name}}):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        assert len(refusal(lambda: load_pretrained(tmp_path), "config.json")) < 1000
    vit = {"model_type": "vit", "hidden_size": name}
    for change in (vit, {"model_type": name}, vit | {"hidden_size": [name] * 3}):
        (tmp_path / "config.json").write_text(json.dumps(change))
        assert len(refusal(lambda: load_pretrained(tmp_path), "config.json")) < 1500


def test_any_error_of_a_user_is_printable_and_bounded():
    for name in HOSTILE:
        line = str(UserError(f"cannot read {name}"))
        assert len(line) <= 1.1 * MESSAGE_LENGTH
        assert all(char.isprintable() or char == "\n" for char in line)
        assert str(UserError(line)) == line  # as an error that is copied
    assert printable("a" * 130) == "a" * 50 + "..." + "a" * 50 + " (130 characters)"
    text = "Kr\u00e4he \u0645\u06cc\u200c\u0634\u0648\u062f \U0001f469\u200d\U0001f52c"
    assert printable(text) == text
    assert printable("\x1b[31m\ud800") == r"\x1b[31m\ud800"


# ---------------------------------------------------------------- what is no regular file


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_in_a_folder_is_refused_at_once(kind, name, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    refusal(lambda: load_pretrained(tmp_path), name, f"a {kind}")


@pytest.mark.parametrize("kind", ["npz", "pth", "index"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(kind, tmp_path):
    path = tmp_path / f"weights.{kind}"
    os.mkfifo(path)
    opened = {"npz": NpzFile, "pth": TorchFile, "index": TensorBundle}[kind]
    refusal(lambda: opened(path), "a pipe")


# ---------------------------------------------------------------- checksums, bounds


def test_a_changed_number_in_weights_that_we_wrote_is_noticed(tmp_path):
    path = tmp_path / safetensors_folder.WEIGHTS
    safetensors_folder.write_tensors(tmp_path, {"a": ARRAY, "b": ARRAY[:3]})
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    file = safetensors_folder.TensorFile(path, "weights")
    refusal(lambda: file.read("b"), "weights: b is damaged")
    np.testing.assert_array_equal(file.read("a"), ARRAY)


def test_keys_of_a_tensorflow_index_cannot_outgrow_the_file(tmp_path):
    entries, length = b"", 0
    for _ in range(4_000):  # each repeats the one before and adds 255 bytes
        entries += _varint(length) + _varint(255) + b"\x00" + b"k" * 255
        length += 255
    block = entries + struct.pack("<II", 0, 1)
    index_entry = b"\x00\x01" + bytes([len(h := _varint(0) + _varint(len(block)))]) + b"z" + h
    index = index_entry + struct.pack("<II", 0, 1)
    content = _sealed(block)
    index_handle = _varint(len(content)) + _varint(len(index))
    content += _sealed(index) + (b"\x00\x00" + index_handle).ljust(40, b"\x00")
    (tmp_path / "model.index").write_bytes(content + struct.pack("<Q", 0xDB4775248B80FB57))
    refusal(lambda: TensorBundle(epath.Path(tmp_path / "model.index")), "damaged")


def _varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _sealed(block):
    return block + b"\x00" + struct.pack("<I", masked(crc32c(block + b"\x00")))


@pytest.mark.parametrize(
    ("field", "value"),
    [("layers", 10**9), ("width", 10**12), ("norm_epsilon", "NaN"), ("dropout", "-Infinity")],
)
def test_numbers_that_no_model_has_are_refused_in_our_own_format(field, value, tmp_path):
    config = f'{{"family": "vit", "format": "jaxformers", "config": {{"{field}": {value}}}}}'
    (tmp_path / "config.json").write_text(config)
    refusal(lambda: load_pretrained(tmp_path), f"config.json: {field} is ")
