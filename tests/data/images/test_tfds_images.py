import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from mocked_tfds import picture, prepare
from PIL import Image

from jaxformers.data.images import Augmentation, ImagePlan, ImageRows, InceptionCrop, TfdsImages
from jaxformers.data.images.sources.real_labels import RealLabels
from jaxformers.errors import ConfigError, DataError

DAMAGED = 5


def named(row, index):
    return row | {"file_name": f"ILSVRC2012_val_{index + 1:08d}.JPEG", "label": index * 7}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)

    def pet(row, index):
        if index == DAMAGED:
            row["image"] = io.BytesIO(picture((30, 30, 3), rng).getvalue()[:90])
        return row | {"label": index % 37, "file_name": f"pet {index}"}

    prepare("imagenet2012", folder, {"train": 12, "validation": 9}, named)
    prepare("oxford_iiit_pet", folder, {"train": 40, "test": 8}, pet)
    return str(folder)


def message(config):
    with pytest.raises((DataError, ConfigError)) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_and_classes_are_those_of_the_set(data_dir):
    source = TfdsImages("oxford_iiit_pet", data_dir=data_dir, dev="train[90%:]")
    images = source.open()
    assert len(images) == 40 and images.classes == 37
    numbers = [int(images.name(k).split()[1]) for k in range(40)]
    assert sorted(numbers) == list(range(40))
    assert images.labels.tolist() == [number % 37 for number in numbers]
    assert images.class_names[0] == "Abyssinian"
    assert len(source.other("dev").open()) == 4 and len(source.other("test").open()) == 8
    assert len(TfdsImages("oxford_iiit_pet", "train[:10]+test", data_dir=data_dir).open()) == 18


def test_it_makes_batches_in_worker_processes_too(data_dir):
    images = TfdsImages("imagenet2012", data_dir=data_dir).open()
    assert images.classes == 1000
    rows = ImageRows(images, Augmentation(8, 3, InceptionCrop()))
    plan = ImagePlan(rows, 6)
    batch = plan.batch(rows, 0, 1)
    assert batch["images"].shape == (6, 8, 8, 3)
    again = plan.batch(pickle.loads(pickle.dumps(rows)), 0, 1)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)


def test_a_damaged_picture_is_named_or_skipped_and_counted(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path))
    images = TfdsImages("oxford_iiit_pet", data_dir=data_dir).open()
    index = [images.name(k) for k in range(40)].index(f"pet {DAMAGED}")
    with pytest.raises(DataError, match=rf"oxford_iiit_pet 4\.0\.0, train, picture {index} does"):
        images.image(index)
    sound = TfdsImages("oxford_iiit_pet", data_dir=data_dir, skip_damaged=True).open()
    assert len(sound) == 39 and sound.skipped == 1
    assert f"pet {DAMAGED}" not in [sound.name(k) for k in range(39)]


def test_real_labels_are_found_by_file_name(data_dir, tmp_path):
    (tmp_path / "real.json").write_text("[[0],[7,3],[],[21],[28],[35],[42],[49],[56]]")
    images = TfdsImages("imagenet2012", data_dir=data_dir, test="validation").other("test").open()
    sets = RealLabels(str(tmp_path / "real.json")).of(images)
    assert all(
        label in real_labels or not real_labels
        for label, real_labels in zip(images.labels, sets, strict=True)
    )
    assert sum(not real_labels for real_labels in sets) == 1
    (tmp_path / "short.json").write_text("[[0]]")
    with pytest.raises(DataError, match="is no picture of"):
        RealLabels(str(tmp_path / "short.json")).of(images)
    for content in ("[[1000]]", "{}", "no", "[3]"):
        (tmp_path / "bad.json").write_text(content)
        assert "ReaL" in message(RealLabels(str(tmp_path / "bad.json")))


def test_what_is_missing_is_said_with_the_mend(data_dir, tmp_path):
    assert "jaxformers prepare cifar10" in message(TfdsImages("cifar10", data_dir=str(tmp_path)))
    assert "no split" in message(TfdsImages(split="dev", data_dir=data_dir))
    assert "no feature breed" in message(TfdsImages(label_key="breed", data_dir=data_dir))
    assert TfdsImages().other("dev") is None


def test_reading_imports_no_tensorflow_and_no_opencv(data_dir):
    script = (
        "import sys; from jaxformers.data import TfdsImages\n"
        f"images = TfdsImages('imagenet2012', data_dir={data_dir!r}).open()\n"
        "assert images.image(0).ndim == 3\n"
        "assert not {'tensorflow', 'torch', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_pictures_are_decoded_as_pillow_does(data_dir):
    images = TfdsImages("imagenet2012", data_dir=data_dir).open()
    raw = images._rows.read([2])[0]["image"]
    assert np.array_equal(images.image(2), np.asarray(Image.open(io.BytesIO(raw))))
