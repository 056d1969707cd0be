"""Images with captions: folders, tables, tar shards, emoji; faults counted or refused."""

import csv
import io
import json
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxformers.data.captions import (
    BundledEmoji,
    CaptionFolder,
    CaptionRows,
    CaptionTable,
    EmojiGroups,
    TarShards,
)
from jaxformers.data.captions.emoji import concepts, family, held_out
from jaxformers.data.images import Augmentation
from jaxformers.errors import ConfigError, DataError
from jaxformers.text import CLIPTokenizer


def encoded(value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def red(images, index) -> int:
    return int(np.asarray(images.image(index))[0, 0, 0])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("b.png", "a.PNG", "sub/c.png"), 1):
        (tmp_path / name).write_bytes(encoded(number))
        (tmp_path / name).with_suffix(".txt").write_text(f"caption {number}\n\nsecond {number}\n")
    return tmp_path


def test_a_folder_has_a_text_beside_each_image(folder):
    images = CaptionFolder(str(folder)).open()
    assert [images.name(i) for i in range(3)] == ["a.PNG", "b.png", "c.png"]
    assert images.captions(1) == ("caption 1", "second 1") and red(images, 1) == 1
    (folder / "lone.png").write_bytes(encoded(4))
    (folder / "lost.txt").write_text("no image")
    with pytest.raises(DataError, match=r"lone.png has no caption in lone.txt and 1 more"):
        CaptionFolder(str(folder)).open()
    images = CaptionFolder(str(folder), skip_faulty=True).open()
    assert len(images) == 3 and images.skipped == 2


@pytest.mark.parametrize("separator", "\u2028\u2029\x85\x0b\x0c\x1c")
def test_unicodes_line_breaks_do_not_split_captions(folder, separator):
    caption = f"one{separator}two"
    row = json.dumps({"image": "a.PNG", "caption": caption}, ensure_ascii=False)
    (folder / "t.jsonl").write_bytes(f"{row}\r\n\n{row}\n".encode())
    assert [CaptionTable(str(folder / "t.jsonl")).open().captions(i) for i in (0, 1)] == [
        (caption,),
        (caption,),
    ]
    (folder / "a.txt").write_bytes(f"{caption}\r\nsecond\rthird\n".encode())
    assert CaptionFolder(str(folder)).open().captions(0) == (caption, "second", "third")


@pytest.mark.parametrize(
    ("value", "captions"),
    [
        ([{"raw": "a dog", "sentid": 1}, {"raw": "two"}], ("a dog", "two")),
        ({"text": " a dog "}, ("a dog",)),
        (["a dog", None, ""], ("a dog",)),
        ({"en": "a dog"}, None),
        ([["a dog"]], None),
        (True, None),
        (5, None),
    ],
)
def test_captions_are_texts_or_objects_with_one(folder, value, captions):
    rows = [{"file_name": "a.PNG", "sentences": value}, {"file_name": "b.png", "sentences": "b"}]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "tar").mkdir()
    json_member = json.dumps({"caption": value}).encode()
    entries = [("1.png", encoded(1)), ("1.json", json_member)]
    write_shard(folder / "tar" / "0.tar", [*entries, ("2.png", encoded(2)), ("2.txt", b"b")])
    for source in (CaptionTable(str(folder / "t.jsonl")), TarShards(str(folder / "tar"))):
        if captions:
            assert source.open().captions(0) == captions
        else:
            with pytest.raises(DataError, match="has a caption that is no text"):
                source.open()
            images = replace(source, skip_faulty=True).open()
            assert images.captions(0) == ("b",) and images.skipped == 1


def test_captions_of_parquet_may_be_bytes(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"path": name, "caption": text}
        for name, text in (("a.PNG", "Überschrift".encode()), ("b.png", b"\xff"))
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    with pytest.raises(DataError, match="row 2 has a caption that is not UTF-8"):
        CaptionTable(str(folder / "t.parquet")).open()
    images = CaptionTable(str(folder / "t.parquet"), skip_faulty=True).open()
    assert images.captions(0) == ("Überschrift",) and images.skipped == 1


def test_damaged_texts_and_images_are_left_out_of_a_folder(folder):
    (folder / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"the caption of a.PNG cannot be read"):
        CaptionFolder(str(folder)).open()
    (folder / "b.png").write_bytes(encoded(2)[:-30])
    images = CaptionFolder(str(folder), skip_faulty=True).open()
    assert [images.name(i) for i in range(len(images))] == ["c.png"] and images.skipped == 2
    assert images.captions(0) == ("caption 3", "second 3") and red(images, 0) == 3
    (folder / "sub" / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match="no image in it decodes"):
        CaptionFolder(str(folder), skip_faulty=True).open()


def test_endings_are_those_of_image_folders(folder):
    (folder / "d.jfif").write_bytes(encoded(4, "JPEG"))
    (folder / "d.txt").write_text("four")
    assert len(CaptionFolder(str(folder)).open()) == 4
    write_shard(folder / "0.tar", [("1.pgm", encoded(1, "PPM")), ("1.txt", b"one")])
    assert len(TarShards(str(folder / "0.tar")).open()) == 1


def test_damaged_members_are_left_out_of_a_shard(tmp_path):
    entries = [
        ("1.png", encoded(1)),
        ("1.txt", b"\xff"),
        ("2.png", encoded(2)),
        ("2.json", b"{bad"),
        ("3.png", encoded(3)),
        ("3.txt", bytes((1 << 20) + 1)),
        ("4.png", b"no image"),
        ("4.txt", b"four"),
        ("5.png", encoded(5)),
        ("5.txt", b"five"),
        ("5.txt", b"a second one"),
    ]
    write_shard(tmp_path / "0.tar", entries)
    with pytest.raises(DataError, match=r"0.tar:5 has two members .txt and 3 more"):
        TarShards(str(tmp_path)).open()
    images = TarShards(str(tmp_path), skip_faulty=True).open()
    assert [images.name(i) for i in range(len(images))] == ["0.tar:5"] and images.skipped == 5
    assert images.captions(0) == ("five",) and red(images, 0) == 5


def test_damaged_rows_are_left_out_of_a_table(folder):
    rows = [b'{"image": "a.PNG", "caption": "a"}', b"{bad", b'{"image": "b.png", "title": "\xff"}']
    rows += [b'{"image": "b.png"}', b'{"image": "b.png", "captions": [], "caption": "b"}']
    (folder / "t.jsonl").write_bytes(b"\n".join(rows))
    with pytest.raises(DataError, match=r"row 2 is not JSON of an object of columns and 2 more"):
        CaptionTable(str(folder / "t.jsonl")).open()
    images = CaptionTable(str(folder / "t.jsonl"), skip_faulty=True).open()
    assert [images.captions(i) for i in range(2)] == [("a",), ("b",)] and images.skipped == 3
    (folder / "t.csv").write_text("filepath,title\na.PNG,a dog, running\nb.png,b\n")
    with pytest.raises(
        DataError, match=r"row 1 has a cell too many, ' running': quote its caption"
    ):
        CaptionTable(str(folder / "t.csv")).open()
    assert CaptionTable(str(folder / "t.csv"), skip_faulty=True).open().captions(0) == ("b",)
    (folder / "t.tsv").write_text("filepath\ttitle\nb.png\tb\t\t \n")
    assert CaptionTable(str(folder / "t.tsv")).open().captions(0) == ("b",)


def test_half_a_surrogate_pair_becomes_a_replacement_character(folder):
    (folder / "t.jsonl").write_text('{"image": "a.PNG", "caption": "x \\ud83d y"}\n')
    images = CaptionTable(str(folder / "t.jsonl")).open()
    assert images.captions(0) == ("x \ufffd y",) and images.fingerprint["content"]
    write_shard(
        folder / "0.tar", [("1.png", encoded(1)), ("1.json", b'{"caption": "x \\ud83d y"}')]
    )
    images = TarShards(str(folder / "0.tar")).open()
    assert images.captions(0) == ("x \ufffd y",) and images.fingerprint["content"]


def test_parquet_may_mix_bytes_and_paths(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    entries = [(None, "a.PNG"), (None, None), (b"no image", None), (encoded(7), None)]
    rows = [
        {"image": {"bytes": data, "path": path}, "caption": str(number)}
        for number, (data, path) in enumerate(entries)
    ]
    path = folder / "t.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match="row 2 has no image"):
        CaptionTable(str(path)).open()
    images = CaptionTable(str(path), skip_faulty=True).open()
    assert images.skipped == 2 and [red(images, i) for i in range(2)] == [2, 7]
    assert [images.name(i) for i in range(2)] == ["a.PNG", "4"]
    assert images.where(1) == f"{path}, row 4" and images.fingerprint["content"]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_tables_name_images_beside_them(folder, kind):
    rows = [
        {"filepath": "a.PNG", "title": 'a "quoted", caption'},
        {"filepath": "b.png", "title": "zweite, Überschrift"},
    ]
    path = folder / f"table.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        rows = [
            {"image": {"bytes": encoded(2), "path": None}, "caption": [row["title"], "other"]}
            for row in rows
        ]
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    images = CaptionTable(str(path)).open()
    assert len(images) == 2 and images.captions(0)[0] == 'a "quoted", caption'
    assert red(images, 0) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "filepath\ttitle\nmissing.png\thello\n", "row 1 names no file: 'missing.png'"),
        ("t.tsv", "filepath\ttitle\nb.png\t \n", "row 1 has no caption"),
        ("t.tsv", "picture\ttitle\nb.png\thello\n", "none of image, filepath"),
        ("t.jsonl", '{"image": "b.png"\n', "row 1 is not JSON"),
        ("t.jsonl", "[1]\n", "row 1 is not JSON of an object"),
        ("t.parquet", "no parquet", "no Parquet table"),
        ("t.doc", "x", "ends in .tsv"),
        ("t.tsv", "filepath\ttitle\n", "no image with a caption"),
    ],
)
def test_faulty_tables_are_refused_in_a_line(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        CaptionTable(str(folder / name)).open()
    assert "\n" not in str(caught.value)


def test_captions_that_are_cut_are_counted(folder, monkeypatch):
    (folder / "a.txt").write_text("tall " * 90 + "\n" + "short\n" + "tall " * 76)
    rows = CaptionRows(CaptionFolder(str(folder)).open(), Augmentation(8), CLIPTokenizer(), 77)
    assert rows.count_cut() == (2, 7)
    monkeypatch.setattr("jaxformers.data.captions.caption_rows.SAMPLED", 2)
    assert rows.count_cut() == (2, 5)  # of the first and the third image


def write_shard(path, entries):
    with tarfile.open(path, "w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_tar_shards_are_read_in_place(tmp_path):
    write_shard(
        tmp_path / "000.tar",
        [
            ("0001.png", encoded(1)),
            ("0001.txt", b"one"),
            ("0001.json", b'{"caption": "unused"}'),
            ("x/0002.JPG", encoded(200, "JPEG")),
            ("x/0002.json", b'{"caption": ["two", "zwei"]}'),
        ],
    )
    write_shard(tmp_path / "001.tar", [("0001.png", encoded(3)), ("0001.txt", b"three\nmore")])
    images = pickle.loads(pickle.dumps(TarShards(str(tmp_path)).open()))
    assert [images.name(i) for i in range(3)] == ["000.tar:0001", "000.tar:x/0002", "001.tar:0001"]
    assert [images.captions(i) for i in range(3)] == [("one",), ("two", "zwei"), ("three", "more")]
    assert [red(images, i) for i in (2, 0)] == [3, 1]
    write_shard(tmp_path / "002.tar", [("0009.png", encoded(1))])
    with pytest.raises(DataError, match=r"002.tar:0009 has no caption"):
        TarShards(str(tmp_path)).open()
    assert TarShards(str(tmp_path), skip_faulty=True).open().skipped == 1
    (tmp_path / "003.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(DataError, match="no tar archive"):
        TarShards(str(tmp_path), skip_faulty=True).open()


def damaged_header(data, header):
    data[header + 10] ^= 0x55


def zeroed_header(data, header):
    data[header : header + 512] = bytes(512)


def cut_within_the_header(data, header):
    del data[header + 100 :]


def cut_before_the_header(data, header):
    del data[header:]


def cut_within_the_member_before(data, header):
    del data[header - 512 :]


@pytest.mark.parametrize(
    "damage",
    [
        damaged_header,
        zeroed_header,
        cut_within_the_header,
        cut_before_the_header,
        cut_within_the_member_before,
    ],
)
def test_a_damaged_shard_is_refused_or_counted_and_never_ends_early(tmp_path, damage):
    path = tmp_path / "000.tar"
    entries = [
        entry
        for number in range(5)
        for entry in ((f"{number}.png", encoded(number)), (f"{number}.txt", b"caption"))
    ]
    write_shard(path, entries)
    assert len(TarShards(str(path)).open()) == 5
    with tarfile.open(path) as archive:
        header = archive.getmember("3.png").offset
    data = bytearray(path.read_bytes())
    damage(data, header)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"000.tar is damaged or cut off at byte [\d,]+ of"):
        TarShards(str(path)).open()
    images = TarShards(str(path), skip_faulty=True).open()
    lost = damage is cut_within_the_member_before  # the text of the third example, too
    assert len(images) == 3 - lost and images.skipped == 1 + lost


def test_a_shard_may_end_in_many_zeros(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxformers.data.captions.tar_shards.CHUNK", 1000)
    path = tmp_path / "000.tar"
    write_shard(path, [("0.png", encoded(0)), ("0.txt", b"caption")])
    path.write_bytes(path.read_bytes() + bytes(50_000))
    assert len(TarShards(str(path)).open()) == 1
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="damaged or cut off"):
        TarShards(str(path)).open()


def test_emoji_of_a_family_are_held_out_together():
    assert family("woman cook") == family("man cook") == family("cook") == "cook"
    assert family("men wrestling") == family("people wrestling") and family("man") == "man"
    seen_images = BundledEmoji(("noto", "twemoji"), "seen").open()
    unseen_images = BundledEmoji(("noto",), "held-out").open()
    everything = BundledEmoji(("noto",)).open()
    assert len(everything) == 1906 and len(seen_images) == 2 * (1906 - len(unseen_images))
    assert 0.08 < len(unseen_images) / 1906 < 0.12
    families = [
        {family(images.concept(i)["name"]) for i in range(len(images))}
        for images in (seen_images, unseen_images)
    ]
    assert not families[0] & families[1]
    assert sum(map(held_out, concepts())) == len(unseen_images)
    image = everything.image(0)
    assert image.size == (48, 48) and everything.captions(0)[0] == "grinning face"
    assert len(BundledEmoji(("fluent",)).open()) == 1811


def test_emoji_have_the_caption_forms_asked_for():
    name, both, keywords = BundledEmoji(("noto",)).open().captions(0)
    assert name == "grinning face" and keywords and both == f"{name} {keywords}"
    chosen = BundledEmoji(("noto",), caption_forms=("keywords", "name")).open()
    assert chosen.captions(0) == (keywords, name)
    grouped = BundledEmoji(("noto",), caption_forms=("name",), groups=True).open()
    assert grouped.captions(0) == (name, f"{name} Smileys & Emotion")
    for forms in ((), ("name", "name")):
        with pytest.raises(ConfigError, match="caption_forms"):
            BundledEmoji(caption_forms=forms)


def test_emoji_are_labelled_with_their_groups():
    emoji = BundledEmoji(("fluent",), "held-out")
    drawings, groups = emoji.open(), EmojiGroups(emoji).open()
    assert len(drawings) == len(groups) > 150 and len(groups.class_names) == 9
    for index in range(0, len(groups), 20):
        image, label = groups.example(index)
        assert groups.class_names[label] == drawings.concept(index)["group"]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(drawings.image(index)))
