"""Batches of one kind: without pictures where no row has any, and the same loss as with them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from etils import epath

from jaxformers.costs import model_flops
from jaxformers.data.mixture import Mixture, open_mixture
from jaxformers.data.pipeline.loader import batches
from jaxformers.data.scenes import EmojiScenes
from jaxformers.errors import DataError
from jaxformers.layers import Execution
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks import text_image as ti
from jaxformers.tasks.text_image.rehearsal import rehearsal_mixture

SCENES = EmojiScenes(size=64, side=16, most_objects=2, things=4)
TEXTS = [{"text": f"a red bus and {n} cats are there", "summary": f"{n} cats"} for n in range(20)]
KINDS = {
    "depth": ti.Depth(SCENES),
    "synthesis": ti.Synthesis(SCENES),
    "caption": ti.Captioning(SCENES),
    "summarise": ti.Summarisation(ti.ListedRecords.of(TEXTS)),
}
PICTURES = [{"patches", "target_images"}, {"target_images"}, {"patches"}, set()]


def small_task(**changes):
    base = ti.TextImage(
        UnifiedIOConfig.small(image_tokenizer=VQGANConfig()), rehearsal_mixture(), patches=128
    )
    fields = dict(mixture=Mixture(KINDS, rates="equal"), bucket_by_modality=True)
    return replace(base.rehearsal(), **(fields | changes))


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(scope="module")
def data(task, tmp_path_factory):
    return task.open(epath.Path(tmp_path_factory.mktemp("run")), 0)


def test_each_kind_of_batch_has_the_stated_shapes_and_pictures_only_where_needed(task, data):
    stated = [{n: (s.shape, np.dtype(s.dtype)) for n, s in b.items()} for b in task.batch_shapes()]
    assert [{"patches", "target_images"} & set(shapes) for shapes in stated] == PICTURES
    assert data.plan.shapes == stated
    steps = {}
    for step in range(24):
        batch = data.plan.batch(data.store, 2, step)
        kind = stated.index({name: (x.shape, x.dtype) for name, x in batch.items()})
        assert set(batch["task"].tolist()) == {kind}
        steps[kind] = steps.get(kind, 0) + 1
        assert batch["seen"][0].astype(int).tolist() == [
            task.rows * steps.get(number, 0) for number in range(4)
        ]
    assert task.batch_shares() == [0.25] * 4
    table = task.run_table(data, 24, 2).splitlines()[1:]
    assert [int(line.split()[3]) for line in table] == [16 * steps[n] for n in range(4)]


def test_hosts_and_late_starts_see_the_same_batches(task, data):
    expected = [data.plan.batch(data.store, 5, step) for step in range(4, 9)]
    for hosts in (2, 4):
        late = [
            batches(data.store, data.plan, seed=5, start=4, host=h, hosts=hosts)
            for h in range(hosts)
        ]
        for batch in expected:
            shares = [next(iterator) for iterator in late]
            for name, array in batch.items():
                np.testing.assert_array_equal(np.concatenate([s[name] for s in shares]), array)
        for iterator in late:
            iterator.close()


@pytest.mark.slow
def test_the_loss_is_that_of_rows_with_masked_pictures(task, data):
    model = task.module(Execution())
    shapes = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: 0.3 * rng.standard_normal(s.shape).astype(np.float32), shapes
    )

    @jax.jit
    def mean_loss(variables, batch):
        loss = task.loss(model, variables, task.prepare(batch))
        return loss.total / loss.weight, loss.metrics["image_loss"]

    mixed = task.rows_of(data.mixture, data.processor.tokenizer)
    for kind, shapes in enumerate(task.batch_shapes()):
        tasks, indices = np.full(task.rows, kind), np.arange(task.rows)
        words = rng.integers(0, 2**63, (task.rows, data.store.draws)).astype(np.uint64)
        counts = {name: np.zeros((task.rows, 4), np.float32) for name in ("seen", "epochs")}
        lean = data.store.gather(tasks, indices, words) | counts
        full = mixed.gather(tasks, indices, words) | counts
        assert set(lean) == set(shapes) and len(full) == len(task.batch_shapes()[0])
        loss, image_loss = mean_loss(variables, lean)
        expected, _ = mean_loss(variables, full)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert np.isnan(image_loss) == ("target_images" not in shapes)


@pytest.mark.slow
def test_texts_cost_a_fraction_of_what_pictures_cost():
    """FLOPs of the loss at the published size and lengths."""
    vqgan = VQGANConfig.f16_16384()
    task = small_task(
        model=UnifiedIOConfig.base(image_tokenizer=vqgan),
        rows=1, text_length=256, target_length=128, patches=256,
    )  # fmt: skip
    model = task.module(Execution(target="tpu"))  # stacks are scanned: traced faster
    variables = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))

    def loss(variables, batch):
        return task.loss(model, variables, task.prepare(batch)).total

    flops = [model_flops(loss, variables, batch) for batch in task.batch_shapes()]
    shares = np.array(flops) / flops[0]  # of a row with all pictures
    print(shares, flops[0] / 1e9)
    assert (np.diff(shares) < 0).all()
    assert shares[3] < 0.3 and shares[2] < 0.45, shares


class Misstated(ti.Captioning):
    """A task whose samples have a picture that INPUT denies."""

    INPUT = "text"


def test_a_picture_that_the_task_denies_is_refused(task, data):
    mixture = open_mixture(Mixture({"x": Misstated(SCENES)}))
    store = task.rows_of(mixture, data.processor.tokenizer, by_modality=True)
    words = np.zeros((1, store.draws), np.uint64)
    with pytest.raises(DataError, match=r"x, example 0: it has a picture as input, .* Misstated"):
        store.gather(np.zeros(1, int), np.zeros(1, int), words)
