import itertools
import pickle

import numpy as np
import pytest

from jaxformers.data import batches
from jaxformers.data.images import (
    ArrayImages,
    Augmentation,
    ImagePlan,
    ImageRows,
    InceptionCrop,
    PaddedCrop,
    Preprocessing,
    RandAugment,
    RandomErasing,
)
from jaxformers.data.pipeline.fixed_length import Rows, every_row
from jaxformers.errors import DataError

SIMPLE = Augmentation(12, 1, PaddedCrop(2))
HEAVY = Augmentation(9, 3, InceptionCrop(), 0.5, RandAugment(), RandomErasing(1.0))


def images(count=21, side=12):
    """Grey pictures whose pixels tell which they are."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 1)).astype(np.uint8)
    return ArrayImages(pixels, np.arange(count))


def read_batches(rows, plan, steps, hosts=1, start=0, workers=0):
    iterators = [
        batches(rows, plan, seed=5, start=start, host=h, hosts=hosts, workers=workers)
        for h in range(hosts)
    ]
    host_batches = [[next(iterator) for iterator in iterators] for _ in range(steps)]
    for iterator in iterators:
        iterator.close()
    return [{n: np.concatenate([p[n] for p in step]) for n in step[0]} for step in host_batches]


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first | second)


@pytest.mark.parametrize("transform", [SIMPLE, HEAVY], ids=["at once", "one by one"])
def test_a_batch_is_the_same_on_any_hosts_threads_and_after_a_restart(transform):
    rows = ImageRows(images(), transform, threads=1)
    plan = ImagePlan(rows, 8)
    expected = read_batches(rows, plan, 4)
    for hosts in (2, 4):
        assert all(map(same, expected, read_batches(rows, plan, 4, hosts)))
    assert all(map(same, expected[2:], read_batches(rows, plan, 2, start=2)))
    threaded = ImageRows(images(), transform, threads=3)
    assert all(map(same, expected, read_batches(threaded, plan, 4)))
    again = pickle.loads(pickle.dumps(threaded))
    assert same(plan.batch(again, 5, 3), expected[3])


def test_a_batch_has_the_shapes_that_the_plan_says():
    rows = ImageRows(images(), HEAVY)
    plan = ImagePlan(rows, 6)
    batch = plan.batch(rows, 0, 0)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == plan.shapes[0]
    unlabelled = ImageRows(ArrayImages(images().images), SIMPLE)
    assert set(ImagePlan(unlabelled, 4).batch(unlabelled, 0, 0)) == {"images"}


def test_every_picture_comes_once_an_epoch_and_is_augmented_anew():
    rows = ImageRows(images(), SIMPLE)
    plan = ImagePlan(rows, 7)
    first, second = (
        [plan.batch(rows, 1, step) for step in steps] for steps in ([0, 1, 2], [3, 4, 5])
    )
    for epoch in (first, second):
        assert sorted(np.concatenate([b["labels"] for b in epoch])) == list(range(21))
    assert plan.steps_per_epoch == 3
    first_images, second_images = (
        {label: image for b in epoch for label, image in zip(b["labels"], b["images"], strict=True)}
        for epoch in (first, second)
    )
    assert (
        sum(not np.array_equal(first_images[label], second_images[label]) for label in first_images)
        > 15
    )
    assert not same(plan.batch(rows, 1, 0), plan.batch(rows, 2, 0))


@pytest.mark.parametrize("transform", [SIMPLE, Augmentation(14, 3, PaddedCrop(1), 1.0)])
def test_all_at_once_equals_one_by_one(transform):
    store = images()
    u = np.random.default_rng(1).random((21, transform.draws))
    together = transform.arrays(store.images, u)
    alone = [transform.picture(store.example(k)[0], u[k]) for k in range(21)]
    assert np.array_equal(together, np.stack(alone))


def test_judging_takes_every_picture_once_whatever_the_batch():
    rows = ImageRows(images(), Preprocessing(12, channels=1, mean=(0.5,), std=(0.5,)))
    assert isinstance(rows, Rows)
    labels = [batch["labels"][:real] for batch, real in every_row(rows, 8)]
    assert np.concatenate(labels).tolist() == list(range(21))
    assert np.array_equal(rows.gather(np.arange(21))["images"], images().images)


def test_the_fingerprint_names_pixels_labels_and_transform():
    prints = [
        ImageRows(images(), SIMPLE).fingerprint,
        ImageRows(images(20), SIMPLE).fingerprint,
        ImageRows(ArrayImages(images().images, np.zeros(21, int)), SIMPLE).fingerprint,
        ImageRows(images(), HEAVY).fingerprint,
    ]
    assert all(first != second for first, second in itertools.combinations(prints, 2))
    assert prints[0] == ImageRows(images(), SIMPLE).fingerprint


def test_a_picture_of_another_size_is_named():
    rows = ImageRows(
        images(side=10), Preprocessing(12, rule="none", channels=1, mean=(0.5,), std=(0.5,))
    )
    with pytest.raises(DataError, match=r"arrays, picture 3: .*10 x 10 is not 12 x 12"):
        rows.gather(np.array([3]))
