import io
import os

import numpy as np
import pytest
from PIL import Image

from jaxformers.data.images import (
    Augmentation,
    ImageFolder,
    ImagePlan,
    ImageRows,
    InceptionCrop,
    Preprocessing,
    WholeImage,
)
from jaxformers.errors import ConfigError, DataError


def encoded(seed, kind="PNG", size=(11, 9)):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))
    for split, classes in {"train": "abc", "val": "ac"}.items():
        for name in classes:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for k in range(3):
                kind = ("PNG", "JPEG")[k % 2]
                file = tmp_path / "set" / split / name / f"{name}{k}.{kind}"
                file.write_bytes(encoded(k, kind))
    return tmp_path / "set"


def message(config):
    with pytest.raises((DataError, ConfigError)) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_folders_in_order_and_a_split_is_numbered_as_training_is(root):
    (root / "train" / "a" / ".hidden.png").write_text("")
    (root / "train" / "a" / "notes.txt").write_text("")
    train = ImageFolder(str(root)).open()
    assert train.class_names == ("a", "b", "c") and train.classes == 3
    assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert train.name(4) == "b1.JPEG" and train.image(4).shape == (9, 11, 3)
    dev = ImageFolder(str(root)).other("dev").open()
    assert dev.labels.tolist() == [0] * 3 + [2] * 3 and dev.class_names == train.class_names
    assert ImageFolder(str(root)).other("test") is None


def test_what_other_programs_leave_is_no_class(root):
    expected = ImageFolder(str(root)).open()
    for name in ("__MACOSX", "__pycache__", ".git"):
        (root / "train" / name).mkdir()
        (root / name).mkdir()
    (root / "train" / "__MACOSX" / "x.png").write_bytes(encoded(0))
    (root / "train" / "a" / "folder.png").mkdir()
    actual = ImageFolder(str(root)).open()
    assert actual.class_names == ("a", "b", "c") and actual.content == expected.content


def test_a_folder_without_splits_is_for_training_and_a_flat_one_for_prediction(root):
    assert len(ImageFolder(str(root / "train")).open()) == 9
    flat = ImageFolder(str(root / "train" / "b")).open()
    assert len(flat) == 3 and not flat.labelled and flat.labels.tolist() == [-1] * 3
    assert "labels" not in ImageRows(flat, Augmentation(8)).gather(np.arange(1))


def test_a_folder_makes_batches(root):
    rows = ImageRows(ImageFolder(str(root)).open(), Augmentation(8, 3, InceptionCrop()))
    batch = ImagePlan(rows, 4).batch(rows, 0, 0)
    assert batch["images"].shape == (4, 8, 8, 3) and batch["images"].std() > 20


def test_a_limit_keeps_all_classes_in_proportion(root):
    few = ImageFolder(str(root), limit=3).open()
    assert few.labels.tolist() == [0, 1, 2] and few.classes == 3
    assert few.content != ImageFolder(str(root)).open().content


def test_images_in_folders_below_a_class_are_of_that_class(tmp_path):
    for k, name in enumerate(("a/1.png", "a/x/2.png", "a/x/y/3.png", "b/4.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(k))
    images = ImageFolder(str(tmp_path)).open()
    assert [images.name(k) for k in range(4)] == ["1.png", "x/2.png", "x/y/3.png", "4.png"]
    assert images.labels.tolist() == [0, 0, 0, 1] and images.image(2).shape == (9, 11, 3)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert "folders deep: does a link lead to" in message(ImageFolder(str(tmp_path)))


def test_all_endings_are_read_and_other_files_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    endings = ("jpg", "JPEG", "jpe", "JPE", "jfif", "Jfif", "png", "PNG")
    for k, ending in enumerate(endings):
        (tmp_path / "a" / f"{k}.{ending}").write_bytes(encoded(k, "JPEG" if k < 6 else "PNG"))
    for name in ("1.heic", "2.HEIC", "notes.txt", "noending", ".hidden.png", ".DS_Store"):
        (tmp_path / "a" / name).touch()
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "nowhere.png").symlink_to(tmp_path / "none")
    (tmp_path / "loose.png").write_bytes(encoded(0))
    images = ImageFolder(str(tmp_path), limit=6).open()
    assert len(ImageFolder(str(tmp_path)).open()) == len(endings) and len(images) == 6
    assert images.passed_over == (
        "2 .heic, 2 no regular file, 1 .txt, 1 beside the class folders, 1 hidden, "
        "1 without an ending"
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.heic").touch()
    assert "holds no image" in message(ImageFolder(str(tmp_path)))
    assert "it has 1 .heic" in message(ImageFolder(str(tmp_path)))


def test_a_folder_that_may_be_a_split_or_a_class_is_refused(root):
    (root / "cats").mkdir()
    assert len(ImageFolder(str(root)).open()) == 9  # no images in it
    (root / "cats" / "x.png").write_bytes(encoded(0))
    for config in (ImageFolder(str(root)), ImageFolder(str(root), "dev")):
        assert "train images, beside folders of images that name none (cats)" in message(config)
    (root / "cats" / "x.png").unlink()
    (root / "Training").mkdir()
    assert "folders Training and train, which both name the train" in message(
        ImageFolder(str(root))
    )
    (root / "Training").rmdir()
    (root / "train").rename(root / "TRAIN")
    (root / "val").rename(root / "Validation")
    assert ImageFolder(str(root)).other("dev").open().class_names == ("a", "b", "c")
    (root / "TRAIN").rename(root.parent / "away")
    assert "has no folder train or training: it has Validation" in message(ImageFolder(str(root)))


def test_a_photo_taken_sideways_is_seen_upright_by_training_evaluation_and_use(root):
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:8] = 255  # the upper half is white
    exif = Image.Exif()
    exif[274] = 8  # turned a quarter to the left to be seen
    for file in (root / "train").rglob("*.*"):
        Image.fromarray(np.rot90(pixels, -1)).save(file, exif=exif)
    form = Preprocessing(8, interpolation="nearest")
    index = np.zeros(1, int)
    for upright, expected in ((True, [255, 255, 0, 0]), (False, [0, 255, 0, 255])):
        images = ImageFolder(str(root), upright=upright).open()
        for transform in (form, Augmentation(8, crop=WholeImage(), flip=0)):
            batch = ImageRows(images, transform).gather(index)["images"][0]
            corners = batch[[1, 1, -2, -2], [1, -2, 1, -2], 0].astype(int)
            assert np.abs(corners - expected).max() < 30
    assert form.pixels(root / "train" / "a" / "a0.PNG")[0, 1, 1, 0] == 255


def test_what_is_wrong_with_a_folder_is_named(root):
    assert "no folder of pictures is named" in message(ImageFolder())
    assert "there is no folder" in message(ImageFolder(str(root / "none")))
    assert "has no folder test" in message(ImageFolder(str(root), "test"))
    (root / "val" / "new").mkdir()
    assert "val/new holds no image" in message(ImageFolder(str(root), "dev"))
    (root / "val" / "new" / "x.png").write_bytes(encoded(0))
    assert "train has no class of this name" in message(ImageFolder(str(root), "dev"))
    (root / "train" / "empty").mkdir()
    assert "class folder" in message(ImageFolder(str(root))) and "empty" in message(
        ImageFolder(str(root))
    )
    assert "neither class folders" in message(ImageFolder(str(root / "train" / "empty")))


def test_a_damaged_picture_is_named_or_skipped_and_counted(root):
    content = (root / "train" / "b" / "b1.JPEG").read_bytes()
    (root / "train" / "b" / "b1.JPEG").write_bytes(content[: len(content) // 2])
    (root / "train" / "c" / "c2.PNG").write_bytes(b"<html>not found</html>")
    images = ImageFolder(str(root)).open()
    for index, pattern in ((4, r"b1\.JPEG does not decode"), (8, r"c2\.PNG is not a picture")):
        with pytest.raises(DataError, match=pattern):
            ImageRows(images, Augmentation(8)).gather(np.array([index]))
    sound = ImageFolder(str(root), skip_damaged=True).open()
    assert len(sound) == 7 and sound.skipped == 2 and sound.classes == 3
    assert [sound.name(k) for k in range(7)] == [images.name(k) for k in (0, 1, 2, 3, 5, 6, 7)]
    (root / "train" / "b" / "b1.JPEG").write_bytes(content)
    assert ImageFolder(str(root), skip_damaged=True).open().skipped == 1
    for file in (root / "train").rglob("*.*"):
        file.write_bytes(b"no")
    assert "none of its 9 pictures decodes" in message(ImageFolder(str(root), skip_damaged=True))


def test_the_content_follows_names_and_bytes(root):
    before = ImageFolder(str(root)).open().content
    assert before == ImageFolder(str(root)).open().content
    (root / "train" / "a" / "a0.PNG").write_bytes(encoded(77))
    changed = ImageFolder(str(root)).open().content
    (root / "train" / "a" / "a0.PNG").rename(root / "train" / "a" / "a9.PNG")
    assert len({before, changed, ImageFolder(str(root)).open().content}) == 3
