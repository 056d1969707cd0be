import numpy as np
import pytest

from jaxformers.data.images import BundledFashionMnist
from jaxformers.data.images.sources.labelled_images import check_classes
from jaxformers.errors import ConfigError


def test_the_splits_have_their_sizes_and_share_no_picture():
    sets = {split: BundledFashionMnist(split).open() for split in ("train", "dev", "test")}
    assert {split: len(dataset) for split, dataset in sets.items()} == dict(
        train=9000, dev=1000, test=2000
    )
    pictures = [{image.tobytes() for image in dataset.images} for dataset in sets.values()]
    assert not pictures[0] & pictures[1] and not (pictures[0] | pictures[1]) & pictures[2]
    assert len(BundledFashionMnist("train+dev").open()) == 10_000


def test_pictures_are_grey_and_the_first_is_a_boot():
    images = BundledFashionMnist().open()
    assert images.images.shape == (9000, 28, 28, 1) and images.images.dtype == np.uint8
    assert images.labels.dtype == np.int32
    assert images.class_names[images.labels[0]] == "Ankle boot" and images.classes == 10
    assert np.array_equal(images.image(5), images.images[5])


def test_five_classes_and_the_other_five_are_the_whole():
    first = BundledFashionMnist("test", classes=(0, 2, 4, 6, 8)).open()
    second = BundledFashionMnist("test", classes=(9, 7, 5, 3, 1)).open()
    assert len(first) + len(second) == 2000 and first.classes == second.classes == 5
    assert set(first.labels.tolist()) == set(range(5))
    assert second.class_names[0] == "Ankle boot"
    all_classes = BundledFashionMnist("test").open()
    boots = all_classes.images[all_classes.labels == 9]
    assert np.array_equal(second.images[second.labels == 0], boots)


def test_a_limit_takes_pictures_evenly_and_judging_is_not_limited():
    source = BundledFashionMnist(limit=90, classes=(1, 3))
    assert len(source.open()) == 90
    test = BundledFashionMnist("test").open()
    assert len(source.other("test").open()) == np.isin(test.labels, (1, 3)).sum()


def test_wrong_classes_are_refused():
    with pytest.raises(ConfigError, match="different numbers from 0 to 9"):
        BundledFashionMnist(classes=(1, 1))
    with pytest.raises(ConfigError, match="has 10 classes, but the model 7"):
        check_classes(BundledFashionMnist("dev").open(), 7)
