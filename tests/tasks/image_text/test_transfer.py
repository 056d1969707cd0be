"""Frozen features kept on disk, and their evaluators: zero-shot, linear probe, neighbours."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from mocked_tfds import prepare
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import clip_use as use

import jaxformers as jf
from jaxformers.data.images import ImageFolder, TfdsImages
from jaxformers.errors import ConfigError, DataError
from jaxformers.evaluation.probes.linear_probe import clip_linear_probe
from jaxformers.evaluation.probes.nearest_neighbours import neighbour_scores
from jaxformers.evaluation.probes.standardized_probe import Split
from jaxformers.evaluation.zero_shot import load_class_prompts
from jaxformers.planning.planner import plan
from jaxformers.sharding.mesh import MeshConfig, make_mesh
from jaxformers.tasks import Processor, PromptedImages
from jaxformers.tasks.image_text import image_features as features_module
from jaxformers.tasks.image_text.image_features import image_features
from jaxformers.tasks.image_text.transfer import (
    LinearProbeEvaluator,
    NeighbourEvaluator,
    ZeroShotEvaluator,
)
from jaxformers.text import CLIPTokenizer
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments" / "clip"
CLASSES = ("blue thing", "green_thing", "red thing")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = use.folder(tmp_path_factory.mktemp("transfer") / "clip")
    return *jf.from_pretrained(folder), Processor(CLIPTokenizer(), jf.load_images(folder))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of noisy images of three colours, split."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 6), ("dev", 3), ("test", 4)):
        for channel, name in zip((2, 1, 0), CLASSES, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3))
                pixels[..., channel] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "image_features"


def source(pictures, split):
    return ImageFolder(str(pictures), split)


def test_features_are_kept_on_disk_and_resumed(clip, pictures, cache, monkeypatch):
    model, variables, processor = clip
    monkeypatch.setattr(features_module, "CHUNK", 5)
    images = source(pictures, "train").open()
    calls = []
    arguments = (model, variables, processor.preprocessing, images)
    result = image_features(*arguments, projected=True, rows=3, progress=lambda *n: calls.append(n))
    assert calls == [(5, 18), (10, 18), (15, 18), (18, 18)]
    paths = [images.where(i) for i in range(len(images))]
    expected = jf.embed_images((model, variables, processor), paths)
    np.testing.assert_allclose(result.features, expected, atol=2e-5)
    np.testing.assert_array_equal(result.labels, np.repeat([0, 1, 2], 6))

    files = sorted(cache.glob("*/*.safetensors"))
    assert len(files) == 4
    files[1].unlink()
    files[2].write_bytes(b"damaged")
    image_program, programs = features_module.image_program, []
    monkeypatch.setattr(
        features_module,
        "image_program",
        lambda *args: lambda *inputs: programs.append(1) or image_program(*args)(*inputs),
    )
    again = image_features(*arguments, projected=True, rows=3)
    assert len(programs) == 4  # the missing file and the damaged one, two batches each
    np.testing.assert_allclose(again.features, result.features, atol=1e-6)
    image_features(*arguments, projected=True)
    assert len(programs) == 4
    # Before the projection, of other weights, of other images: other files.
    before = image_features(*arguments, rows=3)
    assert before.features.shape[1] == model.config.image.width != result.features.shape[1]
    changed = jax.tree.map(lambda x: x + 1e-3, variables)
    image_features(model, changed, processor.preprocessing, images, projected=True, rows=3)
    image_features(*arguments[:3], source(pictures, "dev").open(), projected=True, rows=3)
    assert len(list(cache.iterdir())) == 2 * 4  # a lock beside each folder
    image_features(*arguments, projected=True, store=False, rows=3)
    assert len(list(cache.iterdir())) == 2 * 4


def test_features_are_computed_over_the_mesh(clip, pictures):
    model, variables, processor = clip
    images = source(pictures, "dev").open()
    arguments = (model, variables, processor.preprocessing, images)
    single = image_features(*arguments, store=False)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=4))):
        sharded = image_features(*arguments, store=False, rows=3)
    np.testing.assert_allclose(sharded.features, single.features, atol=1e-5)


def test_zero_shot_matches_classes_by_name(clip, pictures, tmp_path):
    # Names in another order than the data's labels, one of them spelled otherwise.
    path = tmp_path / "prompts.json"
    classes = ["a tomato", ["a leaf", "green thing"], "blue thing"]
    classes[0] = ["a tomato", "red thing"]
    templates = ["a photo of {}.", "{}"]
    path.write_text(json.dumps({"classes": classes, "templates": {"published": templates}}))
    evaluator = ZeroShotEvaluator(test=source(pictures, "test"), prompts=str(path))
    result = evaluator.evaluate(*clip, final=True)
    paths = [pictures / "test" / name / f"{n}.png" for name in CLASSES for n in range(4)]
    answers = jf.zero_shot(clip, paths, ["blue thing", "a leaf", "a tomato"], template=templates)
    labels = np.repeat(["blue thing", "a leaf", "a tomato"], 4)
    correct = [answer[0][0] == label for answer, label in zip(answers, labels, strict=True)]
    assert result.metrics == {
        "test_zero_shot_top1": pytest.approx(100 * np.mean(correct)),
        "test_zero_shot_mean_per_class": pytest.approx(100 * np.mean(correct)),
    }
    assert [sample[1:] for sample in result.samples] == [
        (label, answer[0][0]) for answer, label in zip(answers, labels, strict=True)
    ]
    assert evaluator.evaluate(*clip, final=False).metrics == {}
    plain = ZeroShotEvaluator(test=source(pictures, "test"))
    assert plain.class_prompts(source(pictures, "test").open()) == (CLASSES, ("a photo of a {}.",))
    named = ZeroShotEvaluator(test=source(pictures, "test"), template="{} here")
    assert named.class_prompts(source(pictures, "test").open()) == (CLASSES, ("{} here",))
    flowers = ZeroShotEvaluator(test=source(pictures, "test"), prompts="oxford_flowers102")
    with pytest.raises(DataError, match="3 of the data's 3 class names"):
        flowers.evaluate(*clip, final=True)


def test_probes_equal_those_of_the_features(clip, pictures):
    sets = {split: source(pictures, split) for split in ("train", "dev", "test")}
    model, variables, processor = clip
    train, dev, test = (
        image_features(model, variables, processor.preprocessing, images.open())
        for images in sets.values()
    )
    evaluation = LinearProbeEvaluator(**sets).evaluate(*clip, final=True)
    metrics, expected = evaluation.metrics, clip_linear_probe(train, dev, test)
    (axis,) = evaluation.figures["Search of the penalty"].axes
    strengths, accuracies = axis.lines[0].get_data()
    assert list(accuracies) == list(expected.search.values())
    np.testing.assert_allclose(strengths, [1 / penalty for penalty in expected.search])
    assert metrics["test_linear_probe_top1"] == expected.accuracy
    assert metrics["linear_probe_penalty"] == expected.penalty
    evaluator = NeighbourEvaluator(**sets, numbers=(1, 3), projected=False)
    evaluation = evaluator.evaluate(*clip, final=True)
    train_and_dev = Split(*(np.concatenate(arrays) for arrays in zip(train, dev, strict=True)))
    scores = [
        neighbour_scores(train_and_dev, test, (1, 3), metric=metric, weights=weights)
        for metric in ("cosine", "euclidean")
        for weights in ("uniform", "distance")
    ]
    assert len(evaluation.lists["Nearest neighbours, test set"]) == 8
    assert evaluation.metrics["test_knn_top1"] in [s.accuracy for k in scores for s in k.values()]
    assert evaluation.metrics["knn_neighbours"] in (1, 3)
    (axis,) = evaluation.figures["Accuracy by the number of neighbours"].axes
    drawn = [dict(zip(*line.get_data(), strict=True)) for line in axis.lines]
    assert drawn == [{k: s.accuracy for k, s in by_number.items()} for by_number in scores]


def test_a_class_is_captioned_by_its_prompts(pictures, tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"classes": list(CLASSES[::-1]), "templates": ["a {}.", "{}!"]}))
    images = PromptedImages(source(pictures, "dev"), str(path)).open()
    assert len(images) == 9 and images.captions(4) == ("a green_thing.", "green_thing!")
    with Image.open(images.where(4)) as expected:
        np.testing.assert_array_equal(images.image(4), expected)
    train_images = PromptedImages(source(pictures, "train"), str(path)).open()
    assert images.content != train_images.content
    with pytest.raises(DataError, match="match no class of mnist"):
        PromptedImages(source(pictures, "dev"), "mnist").open()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero_shot", "knn", "linear_probe"])
def test_flowers_are_evaluated_from_weights_and_prepared_data(name, clip, tmp_path, monkeypatch):
    prepare("oxford_flowers102", tmp_path, {"train": 40, "validation": 30, "test": 50})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    model = clip[0].config
    weights = use.folder(tmp_path / "weights")
    experiment = load_experiment(str(EXPERIMENTS / f"flowers102_{name}.py"))
    size = model.image_size  # in place of ViT-B/32's
    task = replace(
        experiment.task,
        model=model,
        weights=str(weights),
        augmentation=replace(experiment.task.augmentation, size=size),
        preprocessing=replace(experiment.task.preprocessing, size=size),
        rows=8,
    )
    result = train(replace(experiment, task=task), tmp_path / "run")
    assert result.finished and result.step == 0 and not result.losses
    prefix = {"knn": "knn"}.get(name, name)
    report = (tmp_path / "run" / "report.md").read_text()
    assert f"test_{prefix}_mean_per_class" in result.evaluation.metrics
    assert ("Beside published results" in report) == (name != "knn")
    if name != "zero_shot":
        return
    # Prompts in the order of TFDS's labels; Hugging Face's rule for the probabilities' order.
    images = TfdsImages("oxford_flowers102", "test").open()
    names = load_class_prompts("oxford_flowers102").names_for(images.class_names)
    pixels = [images.image(index) for index in range(len(images))]
    source = (*jf.from_pretrained(weights), clip[2])
    answers = jf.zero_shot(source, pixels, names, template="a photo of a {}, a type of flower.")
    predictions = [names.index(answer[0][0]) for answer in answers]
    accuracy = 100 * np.mean(np.array(predictions) == images.labels)
    # Preprocessings differ by a pixel of the crop at most.
    assert result.evaluation.metrics["test_zero_shot_top1"] == pytest.approx(accuracy, abs=4)


def test_a_run_without_steps_is_not_planned():
    experiment = load_experiment(str(EXPERIMENTS / "flowers102_knn.py"))
    with pytest.raises(ConfigError, match="no steps"):
        plan(experiment)


def test_flowers_are_compared_with_the_paper():
    flowers = TfdsImages("oxford_flowers102:2.1.1", "test")
    evaluator = ZeroShotEvaluator(test=flowers, prompts="oxford_flowers102")
    metrics = {"test_zero_shot_top1": 66.0, "test_zero_shot_mean_per_class": 67.0}
    (table,) = evaluator.published(metrics)
    assert table.ours == (67.0,) and ("CLIP ViT-B/32", (66.7,)) in table.rows
    probe = LinearProbeEvaluator(train=flowers, dev=flowers, test=flowers)
    (table,) = probe.published(
        {"test_linear_probe_top1": 1.0, "test_linear_probe_mean_per_class": 2.0}
    )
    assert table.ours == (2.0,) and ("CLIP ViT-B/32", (96.9,)) in table.rows
    assert probe.published({}) == []
