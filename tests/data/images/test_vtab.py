from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from mocked_tfds import prepare

from jaxformers.data.images import Vtab
from jaxformers.data.images.sources.vtab import TASKS, vtab_split
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.pretrained import registry
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.images.image_data import resized
from jaxformers.training.config.experiment_files import load_experiment

FILE = Path(__file__).resolve().parents[3] / "experiments" / "vit" / "vtab.py"
TASKS_CLASSES = [form.classes for form in TASKS.values()]

SPLIT_SIZES = {
    "validation": {"train": 3, "validation": 2, "test": 2},
    "tenth": {"train": 10, "test": 2},
    "fifth": {"train": 10, "test": 2},
    "cut": {"train": 10},
    "cut8": {"train": 10},
    "clevr": {"train": 10, "validation": 2},
    "half": {"train": 3, "test": 6},
}
SETS = {form.name: form for form in TASKS.values()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vtab")
    for name, form in SETS.items():
        prepare(name, folder, SPLIT_SIZES[form.splits])
    return str(folder)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_read_from_its_sets_real_features(task, data_dir):
    train, test = Vtab(task, data_dir=data_dir).open(), Vtab(task, "test", data_dir).open()
    for images in (train, test):
        assert len(images) and images.classes == Vtab(task).classes
        assert images.image(0).dtype == np.uint8 and images.image(0).ndim == 3
        assert images.labels.min() >= 0 and images.labels.max() < images.classes


@pytest.mark.slow
@pytest.mark.parametrize("number", range(19), ids=list(TASKS))
def test_every_run_of_the_experiment_learns_from_its_task(number, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    experiment = load_experiment(FILE)
    task = (experiment, *experiment.after)[number].task
    assert task.data.task == list(TASKS)[number]
    small = registry.shrink(task.model)
    transforms = dict(
        augmentation=resized(task.augmentation, small.image_size),
        preprocessing=replace(task.preprocessing, size=small.image_size),
    )
    task = replace(task, model=small, rows=4, weights=None, workers=0, **transforms)
    opened = task.open(tmp_path, 0)
    iterator = opened.batches(0, 0, 0, 1)
    batch = next(iterator)
    iterator.close()
    model = task.module(Execution())
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        variables = task.init(model, jax.random.key(0))
        loss = task.loss(model, variables, task.prepare(batch))
    # A fresh head is zero: all classes are alike.
    np.testing.assert_allclose(loss.total / loss.weight, np.log(TASKS_CLASSES[number]), rtol=1e-5)


def test_nothing_is_evaluated_on_pictures_that_it_was_trained_on():
    assert Vtab("dtd").other("dev") is None and Vtab("dtd").other("test").split == "test"
    assert Vtab("dtd", "train800").other("dev").split == "dev"


def test_dsprites_are_white_on_black(data_dir):
    image = Vtab("dsprites_location", data_dir=data_dir).open().image(0)
    assert set(np.unique(image)) == {0, 255} and image.shape == (64, 64, 1)


def split(task, name, **sizes):
    return vtab_split(TASKS[task], name, sizes)


def test_the_splits_are_googles():
    assert split("cifar100", "train", train=50_000) == "train[:800]+train[45000:45200]"
    assert split("cifar100", "dev", train=50_000) == "train[45000:45200]"
    assert split("cifar100", "test", train=50_000) == "test"
    assert split("pets", "train", train=3680) == "train[:800]+train[2944:3144]"
    assert split("dtd", "train") == "train[:800]+validation[:200]"
    assert split("resisc45", "dev", train=31_500) == "train[18900:19100]"
    assert split("resisc45", "test", train=31_500) == "train[25200:]"
    assert split("dsprites_location", "test", train=737_280) == "train[663552:]"
    assert split("clevr_count", "test", train=70_000) == "validation"
    assert split("clevr_count", "dev", train=70_000) == "train[63000:63200]"
    assert split("smallnorb_azimuth", "train") == "train[:800]+test[:200]"
    assert split("smallnorb_azimuth", "test") == "test[50%:]"
    assert split("kitti_distance", "train800") == "train[:800]"


def label(task, **row):
    return TASKS[task].label(row)


def test_objects_become_classes_as_published():
    near = {"size": [0] * 5, "pixel_coords": [[1, 2, 9.2], [0, 0, 8.2]]}
    assert label("clevr_count", objects=near) == 2
    assert label("clevr_distance", objects=near) == 1
    edges = [
        label("clevr_distance", objects={"pixel_coords": [[0, 0, z]]}) for z in (7, 8, 8.1, 50)
    ]
    assert edges == [0, 0, 1, 5]

    def kitti(*objects):
        annotations = {"type": [t for t, _ in objects], "location": [[0, 0, z] for _, z in objects]}
        return label("kitti_distance", objects=annotations)

    assert kitti((0, 5.0), (1, 30.0)) == 0
    assert kitti((2, 15.0), (3, 1.0)) == 1  # a pedestrian is no vehicle
    assert kitti((0, 20.5)) == 2
    assert kitti() == kitti((4, 3.0)) == 3
    assert label("dsprites_orientation", label_orientation=39) == 15
    assert label("dsprites_orientation", label_orientation=5) == 2
    assert label("dsprites_location", label_x_position=31) == 15
    assert label("smallnorb_azimuth", label_azimuth=17) == 17


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean clevr"):
        Vtab("clevr_counts")
