"""Classifiers that are no softmax: `problem_type`, sigmoid runs, images with several labels."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import dino_cases
import resnet_cases
import vit_cases
from folders import write
from scipy.special import expit, log_expit, softmax

from jaxformers.data.images import Augmentation, BundledFashionMnist, PaddedCrop, Preprocessing
from jaxformers.data.images.sources.labelled_images import ArrayImages
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.evaluation import mean_binary_cross_entropy
from jaxformers.evaluation.image_metrics import multi_label_metrics
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, ViTConfig
from jaxformers.models.problem_type import class_scores
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.tasks import ImageClassification
from jaxformers.tasks.images.image_data import check_labels
from jaxformers.tasks.images.image_losses import image_loss, mixed
from jaxformers.training import Adam, Cosine, Experiment
from jaxformers.training.loop import train

GOLDEN = json.loads((vit_cases.FIXTURES / "problem_types.json").read_text())
PICTURE = np.random.RandomState(5).randint(0, 256, (40, 30, 3), np.uint8)
MULTI_LABEL = "multi_label_classification"


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['problem_type']}-{len(c['logits'])}")
def test_scores_are_those_of_transformers_pipelines(case):
    scores = class_scores(np.float32(case["logits"]), case["problem_type"])
    np.testing.assert_allclose(scores, case["images"], atol=1e-6)
    config = BertConfig(labels=len(case["logits"]), problem_type=case["problem_type"])
    of_text = class_scores(np.float32(case["logits"]), config.resolved_problem_type)
    # A text's single number without a problem type is a regression, as transformers trains it.
    single = case["problem_type"] is None and len(case["logits"]) == 1
    np.testing.assert_allclose(of_text, case["logits"] if single else case["texts"], atol=1e-6)


def published(family: str, folder: Path, **fields) -> Path:
    """A published classifier with random weights and these fields in its `config.json`."""
    if family == "vit":
        config = vit_cases.CASES["classifier"] | fields
        path = write(folder, config, vit_cases.weights(config, 0))
    elif family in dino_cases.CASES:
        config = dino_cases.CASES[family] | fields
        path = write(folder, config, dino_cases.weights(config, 0))
    else:
        config = resnet_cases.CASES[family][0] | fields
        path = write(folder, config, resnet_cases.weights(config, 0))
    write_preprocessing(Preprocessing(config.get("image_size", 24)), path)
    return path


def head_of(classes: int) -> dict:
    names = [f"name {i}" for i in range(classes)]
    return {"id2label": {str(i): n for i, n in enumerate(names)}}


def identity(logits):
    return logits


FAMILIES = ("basic", "bit", "vit", "deit", "deit_teacher", "dinov2_classifier")
RULES = [
    (MULTI_LABEL, 5, expit),
    (None, 1, expit),
    ("regression", 5, identity),
    (None, 5, softmax),
    (MULTI_LABEL, 1, expit),
    ("single_label_classification", 5, softmax),
    ("regression", 1, identity),
]


@pytest.mark.parametrize(
    ("family", "problem_type", "classes", "rule"),
    [("vit", *rule) for rule in RULES[:3]]
    + [(family, *rule) for family in FAMILIES for rule in RULES],
)
@pytest.mark.default_cases(1)
def test_a_published_classifier_goes_by_its_problem_type(
    family, problem_type, classes, rule, tmp_path
):
    stated = {"problem_type": problem_type} if problem_type else {}
    path = published(family, tmp_path / "theirs", **head_of(classes), **stated)
    model, variables = jf.from_pretrained(path)
    logits = np.asarray(model.apply(variables, jf.load_images(path)(PICTURE)))[0]
    scores = dict(jf.classify_images(path, PICTURE)[0])
    expected = {f"name {i}": value for i, value in enumerate(rule(logits))}
    assert scores == pytest.approx(expected, abs=1e-5)

    jf.save_pretrained(model, variables, tmp_path / "ours")
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved.get("problem_type") == problem_type
    assert jf.from_pretrained(tmp_path / "ours")[0].config.problem_type == problem_type

    if family not in ("basic", "bit"):
        explained = jf.explain(path, PICTURE, "generic", top=2)
        best = [scores[name] for name in explained.classes]
        np.testing.assert_allclose(explained.probabilities, best, atol=1e-5)
        assert best == sorted(scores.values(), reverse=True)[:2]


def test_a_problem_type_that_nobody_knows_is_refused(tmp_path):
    path = published("vit", tmp_path / "x", problem_type="ordinal")
    with pytest.raises(WeightsError, match="problem_type is 'ordinal', which is none of single"):
        jf.from_pretrained(path)


# ---------------------------------------------------------------- our own runs

GREY = dict(size=28, channels=1)
VIT = ViTConfig(28, 14, 1, width=8, heads=2, feed_forward=8, layers=1, classes=10)


def classification(**changes):
    fields = dict(
        data=BundledFashionMnist(limit=32),
        augmentation=Augmentation(crop=PaddedCrop(2), **GREY),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,), **GREY),
        dev=BundledFashionMnist("dev", limit=10),
        test=BundledFashionMnist("test", limit=10),
        rows=8,
    )
    return ImageClassification(VIT, **(fields | changes))


def test_a_model_with_the_sigmoid_objective_says_so_and_reports_its_loss(tmp_path):
    task = classification(objective="sigmoid")
    assert task.module(Execution()).config.problem_type == MULTI_LABEL
    assert classification().module(Execution()).config.problem_type is None
    images = BundledFashionMnist("test", limit=10).open()
    logits = np.random.RandomState(0).randn(10, 10).astype(np.float32)
    losses = image_loss(jnp.asarray(logits), jnp.asarray(images.labels), objective="sigmoid")
    (evaluator,) = task.evaluators()
    scored = evaluator.score([logits, logits], task.processor(tmp_path), final=True)
    assert scored.metrics["test_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


@pytest.mark.slow
def test_a_run_with_the_sigmoid_objective_is_used_saved_and_evaluated_as_one(tmp_path):
    task = classification(objective="sigmoid")
    result = train(Experiment("sigmoid", task, 2, Adam(), Cosine(1e-2, 1)), tmp_path / "run")
    picture = BundledFashionMnist("test", limit=10).open().image(0)
    model, variables = jf.from_pretrained(tmp_path / "run")
    logits = np.asarray(model.apply(variables, task.preprocessing(picture)))[0]
    scores = jf.classify_images(tmp_path / "run", picture, top=10)[0]
    assert [value for _, value in scores] == pytest.approx(sorted(expit(logits))[::-1], abs=1e-5)
    jf.save_pretrained(model, variables, tmp_path / "saved")
    assert jf.from_pretrained(tmp_path / "saved")[0].config.problem_type == MULTI_LABEL
    # The reported loss is the one that is trained.
    images = BundledFashionMnist("test", limit=10).open()
    logits = np.asarray(model.apply(variables, task.preprocessing(list(images.images))))
    losses = image_loss(jnp.asarray(logits), jnp.asarray(images.labels), objective="sigmoid")
    assert result.evaluation.metrics["test_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(multi_label=True), "need --task.objective sigmoid"),
        (dict(multi_label=True, objective="sigmoid", smoothing=0.1), "--task.smoothing 0"),
        (dict(model=replace(VIT, classes=1)), "softmax of a single class is always 1"),
        (dict(model=replace(VIT, problem_type=MULTI_LABEL)), "--task.model.problem-type"),
        (dict(model=replace(VIT, problem_type="regression"), objective="sigmoid"), "regression"),
    ],
)
def test_an_objective_that_does_not_suit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(classification(), **changes)


# ---------------------------------------------------------------- several labels

SEVERAL = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], np.int32)


def test_the_loss_of_several_labels_is_the_sum_of_binary_cross_entropies():
    logits = np.random.RandomState(0).randn(4, 3).astype(np.float32)
    expected = -(SEVERAL * log_expit(logits) + (1 - SEVERAL) * log_expit(-logits)).sum(-1)
    losses = image_loss(jnp.asarray(logits), jnp.asarray(SEVERAL), objective="sigmoid")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert mean_binary_cross_entropy(logits, SEVERAL) == pytest.approx(expected.mean(), rel=1e-5)
    single = mean_binary_cross_entropy(logits, np.array([0, 1, 2, 0]))
    one_hot = np.eye(3, dtype=np.int32)[[0, 1, 2, 0]]
    assert single == pytest.approx(mean_binary_cross_entropy(logits, one_hot), rel=1e-6)


def test_mixed_images_have_the_labels_of_both():
    batch = {
        "images": jnp.ones((4, 6, 6, 1)),
        "labels": jnp.asarray(SEVERAL),
    }
    batch = mixed(batch, jax.random.key(0), 0.5, 0.5)
    logits = jnp.asarray(np.random.RandomState(0).randn(4, 3).astype(np.float32))
    share = np.asarray(batch["shares"])[:, None]
    targets = share * SEVERAL + (1 - share) * SEVERAL[::-1]
    expected = -(targets * log_expit(logits) + (1 - targets) * log_expit(-logits)).sum(-1)
    losses = image_loss(
        logits,
        batch["labels"],
        objective="sigmoid",
        partners=batch["partners"],
        shares=batch["shares"],
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_metrics_of_several_labels_are_those_of_their_definitions():
    logits = np.array([[2.0, -1.0, 1.0], [0.5, -2.0, -1.0], [-1.0, -0.5, -3.0], [3.0, -4.0, 0.1]])
    metrics = multi_label_metrics(logits, SEVERAL)
    # Ranked by logit: class 0 right, right, wrong; class 1 first; class 2 first.
    assert metrics["mean_average_precision"] == pytest.approx(1.0)
    # Predicted 0 2 | 0 | - | 0 2: right 3, wrong 2, missed 1.
    assert metrics["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    assert metrics["f1_macro"] == pytest.approx((0.8 + 0.0 + 2 / 3) / 3)
    assert metrics["exact_match"] == 0.25
    worse = logits.copy()
    worse[1, 0] = 2.5  # class 0: the wrong one between the right ones
    average = multi_label_metrics(worse, SEVERAL)["mean_average_precision"]
    assert average == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1) / 3)


def test_one_label_and_several_are_not_confused():
    images = ArrayImages(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 2, 0]))
    with pytest.raises(ConfigError, match="one label each: set --task"):
        check_labels(images, 3, multi_label=True)
