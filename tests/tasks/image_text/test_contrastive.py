"""The contrastive task: sharding, microbatches, captions drawn, tokenizers, refusals."""

from dataclasses import replace
from typing import get_args

import jax
import numpy as np
import pytest
from etils import epath

import jaxformers as jf
from jaxformers.data.captions import BundledEmoji, CaptionSource, TfdsCaptions
from jaxformers.data.images import Augmentation, Preprocessing, WholeImage
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.models import CLIPConfig, CLIPImageConfig, CLIPTextConfig, ModifiedResNetConfig
from jaxformers.sharding import MeshConfig, make_mesh, put_batch
from jaxformers.tasks import Contrastive
from jaxformers.tasks.image_text.retrieval import CaptionData
from jaxformers.training import Experiment
from jaxformers.training.config.experiment_files import from_json, to_json
from jaxformers.training.loop import train
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import jit_step

IMAGE = CLIPImageConfig(
    image_size=16, patch_size=8, width=16, heads=4, feed_forward=32, layers=1, projection=8
)
TEXT = CLIPTextConfig(
    300, 12, 16, 4, 32, 1, pooling="eos", eos_id=3, projection=8, activation="gelu_tanh"
)
DATA = BundledEmoji(("twemoji",), limit=120)


def task(**changes):
    fields = dict(
        model=CLIPConfig(IMAGE, TEXT),
        data=DATA,
        augmentation=Augmentation(16, crop=WholeImage(), flip=0.0),
        preprocessing=Preprocessing(16),
        rows=16,
    )
    return Contrastive(**(fields | changes))


def step_result(experiment, shape, batch):
    """Parameters, metrics and other variables after one step on a mesh."""
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
    model = experiment.task.module(Execution())
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, abstract)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        state = jax.jit(lambda: init_state(experiment, model), out_shardings=shardings)()
        state, metrics = step(state, put_batch(batch, mesh, 1))
        return jax.device_get((state.params, metrics, state.model_state))


@pytest.fixture(scope="module")
def one_device():
    """A step of the plain loss on one device: its batch, parameters and metrics."""
    plain_task = task()
    batch = plain_task.example(0)
    params, metrics, _ = step_result(Experiment("toy", plain_task, steps=10), (1, 1, 1), batch)
    return batch, params, metrics


def check_same_step(changed, shape, one_device):
    batch, expected_params, expected = one_device
    params, metrics, _ = step_result(Experiment("toy", changed, steps=10), shape, batch)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    norms = np.sqrt(metrics["squared_norms"]), np.sqrt(expected["squared_norms"])
    np.testing.assert_allclose(*norms, rtol=2e-4, atol=1e-6)
    # The scale's gradient counts once, whatever the parts.
    assert params["logit_scale"] == pytest.approx(float(expected_params["logit_scale"]), abs=1e-6)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("shape", "form"),
    [((2, 2, 2), "ring"), ((8, 1, 1), "ring"), ((2, 4, 1), "plain"), ((2, 2, 2), "plain")],
    ids=str,
)
def test_a_step_on_any_mesh_is_that_of_one_device(shape, form, one_device):
    check_same_step(task(form=form), shape, one_device)


@pytest.mark.slow
def test_microbatches_change_memory_and_not_gradients(one_device):
    check_same_step(task(microbatches=4), (2, 1, 1), one_device)


@pytest.mark.slow
def test_a_resnets_statistics_pass_from_part_to_part():
    image = ModifiedResNetConfig(32, 3, (1, 1, 1, 1), 4, 4, 8)
    resnet = task(
        model=CLIPConfig(image, TEXT),
        augmentation=Augmentation(32),
        preprocessing=Preprocessing(32),
        microbatches=2,
    )
    _, metrics, state = step_result(
        Experiment("toy", resnet, steps=9), (1, 1, 1), resnet.example(0)
    )
    means = jax.tree.leaves(state["batch_stats"])
    assert np.isfinite(metrics["loss"]) and all(np.abs(leaf).max() > 0 for leaf in means)


def test_the_scale_stays_within_its_bounds():
    tight = task(max_logit_scale=2.0)
    for start, bounded in ((3.0, np.log(2.0)), (-1.0, 0.0), (0.5, 0.5)):
        params = tight.constrain_params({"logit_scale": np.float32(start), "other": 1})
        assert params == {"logit_scale": pytest.approx(bounded), "other": 1}


def test_captions_are_drawn_by_seed_and_step(tmp_path):
    data = task().open(epath.Path(tmp_path), seed=0)
    first, again, next_step = (
        next(data.batches(seed, step, 0, 1)) for seed, step in ((0, 3), (0, 3), (0, 4))
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(first["input_ids"] != next_step["input_ids"])
    halves = [next(data.batches(0, 3, host, 2)) for host in (0, 1)]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *halves)
    jax.tree.map(np.testing.assert_array_equal, joined, first)
    assert np.all((first["input_ids"] == 3).sum(1) == 1)  # one end of text in each row
    epoch = [next(data.batches(0, step, 0, 1))["groups"] for step in range(16)]
    # An image has another caption at another visit.
    hashes = {}
    for image, caption in np.concatenate(epoch):
        hashes.setdefault(int(image), set()).add(int(caption))
    assert len(hashes) == 120 and max(map(len, hashes.values())) > 1


def test_a_run_trains_evaluates_and_is_loaded(tmp_path):
    dev = BundledEmoji(("fluent",), limit=20)
    experiment = Experiment("toy", task(dev=dev, duplicates="masked"), steps=3, evaluate_every=3)
    result = train(experiment, tmp_path)
    assert 0 <= result.evaluation.metrics["dev_text_to_image_recall_10"] <= 100
    from jaxformers.pretrained import load_pretrained

    model, variables = load_pretrained(tmp_path)
    assert model.config == experiment.task.model and variables["params"]["logit_scale"] > 2
    picture = np.zeros((20, 16, 3), np.uint8)
    for folder in (tmp_path, tmp_path / "model"):
        (classes,) = jf.zero_shot(folder, picture, ["face", "dog"], template="{}")
        assert sum(share for _, share in classes) == pytest.approx(1)
        assert jf.embed(folder, ["dog"]).shape == jf.embed_images(folder, picture).shape == (1, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(objective="sigmoid"), "the sigmoid loss has a bias"),
        (dict(microbatches=3), "16 rows do not divide into 3"),
        (dict(preprocessing=Preprocessing(24)), "makes images of 24 pixels"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        task(**changes)


def test_a_tokenizer_of_another_end_or_size_is_refused(tmp_path):
    wrong = task(model=CLIPConfig(IMAGE, replace(TEXT, eos_id=5)))
    with pytest.raises(ConfigError, match=r"--task\.model\.text\.eos-id 3"):
        wrong.open(epath.Path(tmp_path / "end"), seed=0)
    wrong = task(model=CLIPConfig(IMAGE, replace(TEXT, pooling="highest_id")))
    with pytest.raises(ConfigError, match="pools at 299"):
        wrong.open(epath.Path(tmp_path / "highest"), seed=0)


def test_accumulation_is_refused_in_favour_of_microbatches():
    experiment = Experiment("toy", task(), steps=9, accumulate=2)
    with pytest.raises(ConfigError, match="compares the rows of a whole batch"):
        step_result(experiment, (1, 1, 1), task().example(0))


def test_every_source_of_captions_is_a_choice_of_the_task():
    assert set(CaptionSource.__subclasses__()) == set(get_args(CaptionData))
    experiment = Experiment(name="coco", task=task(data=TfdsCaptions()), steps=1)
    assert from_json(to_json(experiment)) == experiment
