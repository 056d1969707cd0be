"""One model for many tasks: batches, patches, loss over text and codes, evaluation of each task."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from etils import epath

from jaxformers.data.mixture import Mixture, open_mixture
from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.data.scenes import THINGS, EmojiScenes
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks import text_image as ti
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text_image.base import Sample
from jaxformers.tasks.text_image.evaluation import in_size
from jaxformers.text import UnifiedIOTokenizer
from jaxformers.training.step import split_batch

BASE = ti.TextImage(
    UnifiedIOConfig.small(image_tokenizer=VQGANConfig()), Mixture({"vqa": ti.VQA()}), patches=128
)


@pytest.fixture(scope="module")
def task():
    return BASE.rehearsal()


@pytest.fixture(scope="module")
def data(task, tmp_path_factory):
    return task.open(epath.Path(tmp_path_factory.mktemp("run")), 0)


@pytest.fixture(scope="module")
def model(task):
    return task.module(Execution())


@pytest.fixture(scope="module")
def variables(task, model):
    shapes = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: 0.3 * rng.standard_normal(s.shape).astype(np.float32), shapes)


def store_of(task, data, examples, patches=None):
    mixture = open_mixture(Mixture({"x": examples}))
    return replace(task, patches=patches).rows_of(mixture, data.processor.tokenizer)


def row(task, data, sample, patches=None, seed=0):
    store = store_of(task, data, ti.VQA(EmojiScenes(side=16)), patches)
    return store.row(sample, 0, Draws(seed).words(store.draws), "x, example 0")


def test_batches_have_the_stated_shapes_and_are_the_same_on_any_hosts(task, data):
    stated = {n: (s.shape, np.dtype(s.dtype)) for n, s in task.batch_shapes()[0].items()}
    batch = data.plan.batch(data.store, 3, 5)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == stated
    for hosts in (2, 4):
        share = task.rows // hosts
        slices = [slice(h * share, (h + 1) * share) for h in range(hosts)]
        host_batches = [data.plan.batch(data.store, 3, 5, rows) for rows in slices]
        for name, array in batch.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in host_batches]), array)
    assert batch["seen"][0].sum() == 6 * task.rows
    assert (batch["epochs"] <= batch["seen"]).all()
    assert set(task.example(0)) == set(batch)


def test_patches_are_in_order_and_the_drawn_ones_carry_their_positions(task, data):
    image = np.arange(16 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)
    sample = Sample("a", image, text="a")
    full = row(task, data, sample)
    np.testing.assert_array_equal(full["patch_positions"], range(4))
    np.testing.assert_array_equal(full["patches"][1], image[:8, 8:].ravel())
    np.testing.assert_array_equal(full["patches"][2], image[8:, :8].ravel())
    subsets = set()
    for seed in range(20):
        drawn = row(task, data, sample, patches=2, seed=seed)
        positions = drawn["patch_positions"].tolist()
        assert positions == sorted(positions)
        np.testing.assert_array_equal(drawn["patches"], full["patches"][positions])
        subsets.add(tuple(positions))
    assert len(subsets) > 3


def test_padding_hidden_boxes_and_absent_pictures_are_masked(task, data):
    wide = np.full((8, 16, 3), 9, np.uint8)  # the lower half of the square is padding
    assert row(task, data, Sample("a", wide, text="a"))["patch_mask"].tolist() == [1, 1, 0, 0]
    square = np.full((16, 16, 3), 9, np.uint8)
    hidden = Sample("a", square, hidden=(8, 0, 16, 8), text="a")
    assert row(task, data, hidden)["patch_mask"].tolist() == [1, 0, 1, 1]
    beyond = Sample("a", square, hidden=(-3, -3, 99, 99), text="a")
    assert not row(task, data, beyond)["patch_mask"].any()
    absent = row(task, data, Sample("a", text="a"))
    assert not absent["patch_mask"].any()
    assert not absent["target_mask"].any()
    target = row(task, data, Sample("a", target=wide))
    assert target["target_mask"].tolist() == [1, 1, 0, 0]
    assert target["target_ids"].tolist()[:2] == [1, 0]  # an empty text
    # Patches that are read are drawn first.
    few = row(task, data, Sample("a", wide, text="a"), patches=2)
    assert few["patch_mask"].tolist() == [1, 1]


def test_three_patches_in_four_are_masked_in_image_denoising(task):
    scenes = EmojiScenes(side=16, size=3000)
    changes = {"image_rows": 64, "image_columns": 64, "encoder_image_length": 64}
    larger = replace(task, model=replace(task.model, **changes), patches=None)
    mixture = open_mixture(Mixture({"denoise": ti.ImageDenoising(scenes)}))
    text = "What is the complete image? Text: a red bus on the green ground, and two cats."
    tokenizer = UnifiedIOTokenizer.train([text, "abcdefghijklmnopqrstuvwxyz"] * 3, 45)
    store = larger.rows_of(mixture, tokenizer)
    masks = []
    for index in range(300):
        words = Draws(7, index).words(1, store.draws)
        batch = store.gather(np.zeros(1, int), np.array([index]), words)
        masks.append(batch["patch_mask"][0])
    masks = np.stack(masks)
    assert (masks.sum(axis=1) == 16).all()  # of 64
    np.testing.assert_allclose(masks.mean(axis=0), 0.25, atol=0.1)


@pytest.mark.slow
def test_the_loss_is_that_of_text_and_codes_and_of_each_task(task, data, model, variables):
    batch = data.plan.batch(data.store, 0, 0)

    @jax.jit
    def losses(variables, batch):
        # As with gradient accumulation, the sums of two microbatches are added.
        microbatches = split_batch(task.prepare(batch), 2)
        loss = jax.lax.map(lambda rows: task.loss(model, variables, rows), microbatches)
        loss = jax.tree.map(lambda x: x.sum(), loss)
        return loss.total, loss.weight, loss.metrics, task.probe(model, variables, batch)

    total, weight, metrics, outputs = losses(variables, batch)
    text_logits, image_logits = (
        jax.nn.log_softmax(outputs[name]) for name in ("text_logits", "image_logits")
    )
    codes = np.asarray(task._codes(model, variables, task.prepare(batch)))
    expected = np.zeros(task.rows)
    weights = np.zeros(task.rows)
    for i in range(task.rows):
        for j, token in enumerate(batch["target_ids"][i]):
            if token:
                expected[i] -= text_logits[i, j, token]
                weights[i] += 1
        for j, code in enumerate(codes[i]):
            if batch["target_mask"][i, j]:
                expected[i] -= image_logits[i, j, code]
                weights[i] += 1
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(weight, weights.sum())
    for number, name in enumerate(task.mixture.names):
        rows = batch["task"] == number
        own = expected[rows].sum() / weights[rows].sum()
        np.testing.assert_allclose(metrics[f"loss_{name}"] / weight, own, rtol=1e-5)
        np.testing.assert_allclose(metrics[f"examples_{name}"] / weight, rows.sum(), rtol=1e-6)
    alone = task.prepare({**batch, "task": np.zeros_like(batch["task"])})
    assert np.isnan(alone["task_scale"]).all(0).tolist() == [False, True, True]


@pytest.mark.slow
def test_every_task_is_evaluated_beside_its_trivial_answer(task, data, model, variables):
    scenes = EmojiScenes(size=64, side=16, most_objects=2, things=4, held_out=True)
    labels = tuple(thing.name for thing in THINGS[: scenes.things])
    dev = Mixture(
        {
            "vqa": ti.VQA(scenes),
            "depth": ti.Depth(scenes),
            "class": ti.ImageClassification(scenes, options=labels),
        }
    )
    evaluator = ti.TextImageEvaluator(replace(task, dev=dev), examples=8, rows=8)
    processor = Processor(data.processor.tokenizer)
    evaluation = evaluator.evaluate(model, variables, processor, final=True)
    metrics = evaluation.metrics
    assert set(metrics) == {
        f"dev_{name}"
        for task, metric in (("vqa", "accuracy"), ("depth", "rmse"), ("class", "accuracy"))
        for name in (f"{task}_{metric}", f"{task}_trivial_{metric}", f"{task}_gain")
    } | {"dev_vqa_gain_error", "dev_depth_gain_error", "dev_class_gain_error"}
    assert all(np.isfinite(list(metrics.values())))
    # A gain is positive where the model is better: more accuracy, less error.
    difference = metrics["dev_vqa_accuracy"] - metrics["dev_vqa_trivial_accuracy"]
    assert metrics["dev_vqa_gain"] == pytest.approx(difference)
    difference = metrics["dev_depth_trivial_rmse"] - metrics["dev_depth_rmse"]
    assert metrics["dev_depth_gain"] == pytest.approx(difference)
    assert len(evaluation.figures) == 3
    [(columns, *rows)] = evaluation.tables.values()
    assert [row[0] for row in rows] == ["vqa", "depth", "class"]
    assert rows[0][columns.index("gain")] == metrics["dev_vqa_gain"]


def test_pictures_come_back_in_the_size_of_the_input():
    square = np.zeros((8, 8, 3), np.uint8)
    square[:4] = 200  # what a picture of 8 x 16 fills
    assert (in_size(square, (8, 16)) == 200).all()
    assert in_size(square, (30, 20)).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_length": 300}, "text_length is 300; the model has 256"),
        ({"target_length": 300}, "target_length is 300; the model has 256"),
        ({"patches": 600}, "patches is 600; the model has 576"),
        ({"model": UnifiedIOConfig.small()}, "no image_tokenizer"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **changes)


def test_a_development_task_without_a_metric_to_be_evaluated_by_is_refused():
    class Counting(ti.VQA):
        BEST = ""

    with pytest.raises(ConfigError, match="dev task count states no metric as BEST"):
        replace(BASE, dev=Mixture({"count": Counting(EmojiScenes(size=4, side=16))}))


def test_samples_that_cannot_be_rows_are_refused_by_task_and_example(task, data):
    with pytest.raises(DataError, match="x, example 0: it has neither a text nor a picture"):
        row(task, data, Sample("a"))
    with pytest.raises(DataError, match="x, example 0: a picture of float64"):
        row(task, data, Sample("a", np.zeros((4, 4, 3)), text="a"))


def test_another_tokenizer_is_refused(task, data):
    with pytest.raises(ConfigError, match="not T5's SentencePiece"):
        task.rows_of(data.mixture, object())


def test_missing_data_are_listed(task, tmp_path):
    mixture = Mixture({"a": ti.VQA(ti.JsonlRecords("none.jsonl")), "b": ti.KeyPointEstimation()})
    with pytest.raises(DataError, match=r"2 of 2 tasks lack data: a: none.jsonl.*; b: "):
        replace(task, mixture=mixture).open(epath.Path(tmp_path), 0)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_tasks_without_data_are_left_out_on_demand(task, data, tmp_path, position):
    entries = [(e.name, e.task) for e in task.mixture.entries][:2]
    entries.insert(position, ("absent", ti.VQA(ti.JsonlRecords("none.jsonl"))))
    mixture = Mixture(dict(entries), rates="equal", without_missing=True)
    partial = replace(task, mixture=mixture)
    opened = partial.open(epath.Path(tmp_path), 0)
    batch = opened.plan.batch(opened.store, 0, 9)
    stated = {n: (s.shape, np.dtype(s.dtype)) for n, s in partial.batch_shapes()[0].items()}
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == stated
    # Tasks keep the numbers that the loss calls them by.
    present = set(range(3)) - {position}
    assert set(batch["task"].tolist()) == present
    for name in ("seen", "epochs"):
        assert set(np.flatnonzero(batch[name][0]).tolist()) == present
    assert batch["seen"][0].sum() == 10 * task.rows
    table = partial.run_table(opened, 10, 0).splitlines()
    assert [line.split()[0] for line in table[1:3]] == [mixture.names[n] for n in sorted(present)]
    assert table[3].startswith("left out: absent: none.jsonl")


def test_the_table_of_a_run_states_what_each_task_draws(task, data):
    lines = task.run_table(data, 10, 0).splitlines()
    drawn = {line.split()[0]: int(line.split()[3]) for line in lines[1:]}
    assert tuple(drawn) == task.mixture.names
    last = data.plan.batch(data.store, 0, 9)
    assert list(drawn.values()) == last["seen"][0].astype(int).tolist()
    assert data.describe() == f"3 tasks with {sum(data.mixture.sizes.values()):,} examples"
