"""Images labelled by a table, development sets held out, and what a set of images is like."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxformers.data.images import HeldOut, ImageFolder, ImageTable, Preprocessing
from jaxformers.data.images.survey import pixel_statistics, survey
from jaxformers.errors import ConfigError, DataError


def picture(path, level=(10, 200, 30), size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, level).save(path)


@pytest.fixture
def folder(tmp_path):
    """Four images of two kinds."""
    for i in range(4):
        picture(tmp_path / "images" / f"{i}.png", (i, 0, 0))
    return tmp_path


def table(folder, text, name="labels.csv"):
    (folder / name).write_text(text)
    return ImageTable(str(folder))


def test_a_csv_names_the_label_of_each_image(folder):
    images = table(
        folder,
        'file_name,label\nimages/0.png,"dog, small"\nimages/1.png,cat\n\nimages/2.png,cat\n',
    ).open()
    assert images.class_names == ("cat", "dog, small") and images.classes == 2
    assert images.labels.tolist() == [1, 0, 0] and images.labels.dtype == np.int32
    assert images.where(1) == str(folder / "images" / "1.png")
    assert images.image(2)[0, 0].tolist() == [2, 0, 0]
    assert images.passed_over == "1 not in the table"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "Image,tags\nimages/0.png,dog|cat\nimages/1.png,\nimages/2.png,dog\n"),
        ("labels.csv", "file;labels\nimages/0.png;dog|cat\nimages/1.png;\nimages/2.png;dog\n"),
        ("labels.tsv", "path\tclasses\nimages/0.png\tdog;cat\nimages/1.png\t\nimages/2.png\tdog\n"),
        ("labels.csv", "image,cat,dog\nimages/0.png,1,1\nimages/1.png,0,0\nimages/2.png,0,1\n"),
        (
            "metadata.jsonl",
            '{"file_name": "images/0.png", "labels": ["dog", "cat"]}\n'
            '{"file_name": "images/1.png", "labels": []}\n'
            '{"file_name": "images/2.png", "labels": ["dog"]}\n',
        ),
    ],
)
def test_an_image_may_have_any_number_of_labels(name, text, folder):
    images = table(folder, text, name).open()
    assert images.multi_label and images.class_names == ("cat", "dog") and images.classes == 2
    assert images.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    np.testing.assert_array_equal(images.example(0)[1], [1, 1])


def test_a_column_says_the_split_of_each_image(folder):
    lines = [
        {"file_name": f"images/{i}.png", "label": label, "split": split}
        for i, (label, split) in enumerate([(10, "train"), (9, "val"), (9, "train"), (2, "test")])
    ]
    source = table(folder, "\n".join(map(json.dumps, lines)), "metadata.jsonl")
    # Numbers are ordered by value, and all splits have the classes of the whole table.
    assert source.open().class_names == ("2", "9", "10")
    assert source.open().labels.tolist() == [2, 1]
    assert source.other("dev").open().labels.tolist() == [1]
    assert source.other("test").open().labels.tolist() == [0]
    assert table(folder, "file_name,label\nimages/0.png,a\n", "metadata.jsonl") is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,label\n", "has no line"),
        ("name,label\nx,y\n", "no column 'file_name'; it has name, label"),
        ("file_name,size\nimages/0.png,9\n", "no column 'label' or 'labels'"),
        ("file_name,label\nimages/9.png,a\n", "line 2: there is no file .*9.png"),
        ("file_name,label\n../x.png,a\n", "line 2: '../x.png' is no path below"),
        ("file_name,label\n/etc/passwd,a\n", "is no path below"),
        ("file_name,label\nimages/0.png\n", "line 2 has not as many values"),
        ("file_name,label\nimages/0.png,\n", "line 2: '' is no label"),
        ("file_name,label,split\nimages/0.png,a,hold\n", "the split 'hold' is none of train"),
        ("file_name,label,split\nimages/0.png,a,test\n", "no image of the split 'train'"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_its_line(text, message, folder):
    with pytest.raises(DataError, match=message):
        table(folder, text).open()


def test_a_table_is_found_once_or_named(folder):
    with pytest.raises(DataError, match="has no table of labels"):
        ImageTable(str(folder)).open()
    table(folder, "file_name,label\nimages/0.png,a\n")
    with pytest.raises(DataError, match=r"labels\.csv and labels\.jsonl: name one"):
        table(folder, "[]\n", "labels.jsonl").open()
    with pytest.raises(DataError, match="line 1 is no JSON object"):
        ImageTable(str(folder), str(folder / "labels.jsonl")).open()
    with pytest.raises(DataError, match="there is no table of labels"):
        ImageTable(str(folder), str(folder / "no.csv")).open()


# ---------------------------------------------------------------- held out


@pytest.fixture
def classes(tmp_path):
    for name, count in (("ant", 20), ("bee", 10), ("cat", 2), ("dog", 1)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png")
    return ImageFolder(str(tmp_path))


def test_the_same_share_of_every_class_is_held_out(classes):
    held = HeldOut(classes, share=0.2)
    train, dev = held.open(), held.other("dev").open()
    assert np.bincount(dev.labels).tolist() == [4, 2, 1]
    assert np.bincount(train.labels).tolist() == [16, 8, 1, 1]
    assert dev.class_names == train.class_names == ("ant", "bee", "cat", "dog")
    paths = [images.where(i) for images in (train, dev) for i in range(len(images))]
    assert len(set(paths)) == len(paths) == 33
    assert train.fingerprint != dev.fingerprint
    assert held.other("test") is None


def test_what_is_held_out_stays_when_images_are_added(classes, tmp_path):
    dev = HeldOut(classes, share=0.2).other("dev")
    before = {images.where(i) for images in [dev.open()] for i in range(len(images))}
    picture(tmp_path / "ant" / "new.png")
    after = {images.where(i) for images in [dev.open()] for i in range(len(images))}
    assert len(before - after) <= 1


def test_too_few_images_to_hold_any_out_are_refused(tmp_path):
    picture(tmp_path / "ant" / "1.png")
    with pytest.raises(ConfigError, match="no development set can be held out of 1 images"):
        HeldOut(ImageFolder(str(tmp_path))).open()
    with pytest.raises(ConfigError, match="give --data FOLDER"):
        HeldOut().open()
    with pytest.raises(ConfigError, match="share"):
        HeldOut(ImageFolder("x"), share=1.0)


# ---------------------------------------------------------------- surveys


def test_a_survey_measures_sizes_colours_mean_and_deviation(tmp_path):
    rng = np.random.RandomState(0)
    arrays = [rng.randint(0, 256, (20, 30, 3), np.uint8) for _ in range(3)]
    for i, array in enumerate(arrays):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "a" / f"{i}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    images = ImageFolder(str(tmp_path)).open()
    result = survey(images)
    assert result.channels == 3 and result.sizes == ((30, 20),) * 3 and result.shorter_side == 20
    assert len(result.unreadable) == 1 and "broken.png" in result.unreadable[0]
    mean, std = pixel_statistics(images, Preprocessing((20, 30)))
    pixels = np.stack(arrays) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), atol=6e-4)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), atol=6e-4)


def test_grey_images_saved_in_colour_are_grey(tmp_path):
    picture(tmp_path / "1.png", (7, 7, 7))
    Image.new("L", (5, 5), 9).save(tmp_path / "2.png")
    images = ImageFolder(str(tmp_path)).open()
    assert survey(images).channels == 1
    _, std = pixel_statistics(images, Preprocessing(4, channels=1, mean=(0,), std=(1,)))
    assert std[0] >= 1 / 256  # nothing is divided by 0
    picture(tmp_path / "3.png", (7, 7, 11))
    assert survey(ImageFolder(str(tmp_path)).open()).channels == 3
    for name in os.listdir(tmp_path):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match="no image decodes"):
        survey(ImageFolder(str(tmp_path)).open())
