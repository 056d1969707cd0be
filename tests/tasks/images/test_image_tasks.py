"""Classifying images and painting hidden patches, from pictures to an evaluated run."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.data.images import (
    AsIs,
    Augmentation,
    BundledFashionMnist,
    InceptionCrop,
    PaddedCrop,
    Preprocessing,
    RandAugment,
    RandomErasing,
)
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import MAEConfig, ResNetConfig, ViTConfig
from jaxformers.pretrained.mapping.position_resize import resize_positions
from jaxformers.runs.evaluate import evaluate
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.images.image_classification import ImageClassification
from jaxformers.tasks.images.image_evaluation import dataset_logits
from jaxformers.tasks.images.masked_image import MaskedImage
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment
from jaxformers.training.loop import train

GREY = dict(size=28, channels=1)
VIT = ViTConfig(
    image_size=28,
    patch_size=7,
    channels=1,
    width=16,
    heads=4,
    feed_forward=32,
    layers=2,
    classes=10,
)
RESNET = ResNetConfig(
    image_size=28, channels=1, classes=10, block="basic", depths=(1, 1), width=8, stem="small"
)
MAE = MAEConfig(
    encoder=replace(VIT, classes=0, positions="sincos2d_mae"),
    decoder_width=8,
    decoder_layers=1,
    decoder_heads=2,
    decoder_feed_forward=16,
)
EVALUATED = Preprocessing(mean=(0.5,), std=(0.5,), **GREY)
SEEN = Augmentation(crop=PaddedCrop(2), **GREY)
DATA = BundledFashionMnist(limit=96)
SETS = dict(dev=BundledFashionMnist("dev", limit=21), test=BundledFashionMnist("test", limit=19))


def classification(model, **changes):
    fields = dict(augmentation=SEEN, preprocessing=EVALUATED, rows=16, **SETS) | changes
    return ImageClassification(model, DATA, **fields)


def run(task, steps=4, **changes):
    fields = dict(
        optimizer=Adam(weight_decay=0.05),
        schedule=Cosine(1e-2, 1),
        mesh=MeshConfig(8, 1, 1),
        checkpoint=Checkpointing(every=2),
    )
    return Experiment("images", task, steps=steps, **(fields | changes))


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """An MAE's run."""
    task = MaskedImage(MAE, DATA, SEEN, EVALUATED, dev=SETS["dev"], rows=16)
    folder = tmp_path_factory.mktemp("mae") / "run"
    return task, folder, train(run(task), folder)


@pytest.mark.slow
def test_every_picture_is_evaluated_though_the_last_batch_is_not_full(tmp_path):
    task = classification(VIT, rows=8)
    model = task.module(Execution())
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        variables = task.init(model, jax.random.key(0))
        variables["params"]["head"]["kernel"] = (
            np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
        )
        outputs = task.evaluators()[0].outputs(model, variables, None, final=True)
        assert [len(logits) for logits in outputs] == [21, 19]
        images = SETS["test"].open()
        pixels = EVALUATED([images.image(i) for i in range(19)])
        np.testing.assert_allclose(outputs[1], model.apply(variables, pixels), atol=1e-5)
        scored = task.evaluators()[0].score(outputs, task.open(tmp_path, 0).processor, final=True)
    right = outputs[1].argmax(-1) == images.labels
    assert scored.metrics["test_top1"] == pytest.approx(100 * right.mean())
    top5 = [
        label in np.argsort(row)[-5:] for row, label in zip(outputs[1], images.labels, strict=True)
    ]
    assert scored.metrics["test_top5"] == pytest.approx(100 * np.mean(top5))
    assert scored.samples[0][1] in images.class_names


def test_a_resnets_running_statistics_are_trained_kept_and_evaluated_with(tmp_path):
    result = train(run(classification(RESNET)), tmp_path / "run")
    model, variables = jf.from_pretrained(tmp_path / "run")
    mean = variables["batch_stats"]["stem"]["norm"]["mean"]
    assert np.abs(mean).max() > 1e-3

    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        logits = dataset_logits(model, variables, SETS["test"].open(), EVALUATED, 16)
    right = 100 * (logits.argmax(-1) == SETS["test"].open().labels).mean()
    assert result.evaluation.metrics["test_top1"] == pytest.approx(right)


@pytest.mark.slow
def test_a_run_without_its_export_still_has_its_running_statistics(tmp_path):
    train(run(classification(RESNET)), tmp_path / "run")
    _, before = jf.from_pretrained(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    _, after = jf.from_pretrained(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [replace(VIT, drop_path=0.3, dropout=0.1), RESNET], ids=["vit", "resnet"]
)
def test_a_run_that_was_stopped_is_augmented_as_if_it_had_not_been(model, tmp_path):
    augmentation = Augmentation(
        crop=InceptionCrop((0.3, 1.0)),
        distortions=RandAugment(),
        erasing=RandomErasing(0.5, mean=(0.3,), std=(0.3,)),
        **GREY,
    )
    task = classification(model, augmentation=augmentation, mixup=0.5, cutmix=0.5)
    experiment = run(task, 6, ema=0.9, checkpoint=Checkpointing(every=2, keep_last=9))
    train(experiment, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for lost in ("checkpoints/4", "checkpoints/6", "model"):
        shutil.rmtree(tmp_path / "stopped" / lost)
    train(experiment, tmp_path / "stopped")
    variables = [jf.from_pretrained(tmp_path / name)[1] for name in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *variables)


@pytest.mark.slow
def test_any_mesh_and_parts_of_batches_train_alike(tmp_path):
    task = classification(VIT, mixup=0.5, cutmix=0.5, smoothing=0.1)
    expected = train(run(task), tmp_path / "one")
    result = train(run(task, mesh=MeshConfig(2, 2, 2), accumulate=2), tmp_path / "many")
    assert result.evaluation.metrics["test_loss"] == pytest.approx(
        expected.evaluation.metrics["test_loss"], rel=1e-4
    )


@pytest.mark.slow
def test_the_mean_of_a_batchs_statistics_is_taken_over_all_devices(tmp_path):
    # Over `tensor` alone a batch is not cut: every device has all of it.
    mesh = MeshConfig(1, 1, 8)
    expected = train(run(classification(RESNET), steps=2, mesh=mesh), tmp_path / "one")
    result = train(run(classification(RESNET), steps=2), tmp_path / "many")
    assert result.evaluation.metrics["test_loss"] == pytest.approx(
        expected.evaluation.metrics["test_loss"], rel=1e-4
    )


@pytest.mark.slow
def test_a_vit_starts_from_what_an_mae_learned(painted, tmp_path):
    _, folder, result = painted
    assert np.isfinite(result.evaluation.metrics["dev_loss"])
    encoder = replace(VIT, positions="sincos2d_mae")
    task = classification(encoder, weights=str(folder))
    model = task.module(Execution())
    _, variables = jf.from_pretrained(folder)
    start = task.pretrained(model)["params"]
    assert "head" not in start and "decoder" not in start
    jax.tree.map(np.testing.assert_array_equal, start["encoder"], variables["params"]["encoder"])
    probe = train(run(task, frozen=(r"(?!head/).*",)), tmp_path / "probe")
    _, after = jf.from_pretrained(tmp_path / "probe")
    jax.tree.map(
        np.testing.assert_array_equal, after["params"]["encoder"], variables["params"]["encoder"]
    )
    assert np.abs(after["params"]["head"]["kernel"]).max() > 0
    assert probe.step == 4


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("kind", "size"), [("mae", 28), ("mae", 42), ("big_vision", 28)])
def test_a_learned_table_starts_from_the_sines_of_its_source(kind, size, tmp_path):
    from jaxformers.layers import grid_sinusoids

    painter = MaskedImage(MAE, DATA, SEEN, EVALUATED)
    fixed = classification(replace(VIT, positions="sincos2d"))
    source = (painter if kind == "mae" else fixed).module(Execution())
    images = np.zeros((1, 28, 28, 1), np.float32)
    variables = jax.jit(source.init)(jax.random.key(0), images)
    jf.save_pretrained(source, variables, tmp_path / "weights", "jaxformers")
    sizes = dict(augmentation=replace(SEEN, size=size), preprocessing=replace(EVALUATED, size=size))
    model = replace(VIT, image_size=size)
    how = dict(weights=str(tmp_path / "weights"), resize_positions="bicubic")
    task = classification(model, **how, **sizes)
    table = task.pretrained(task.module(Execution()))["params"]["position_embedding"]["table"]
    sines = np.concatenate([np.zeros((1, 16), np.float32), grid_sinusoids(4, 4, 16, kind)])
    np.testing.assert_allclose(table, resize_positions(sines, 4, size // 7, "bicubic"), atol=1e-6)
    assert table[1:].std() > 0.5


@pytest.mark.slow
def test_positions_of_another_size_are_resized(tmp_path):
    small = classification(VIT).module(Execution())
    variables = small.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    jf.save_pretrained(small, variables, tmp_path / "weights", "jaxformers")
    large = replace(VIT, image_size=42)
    sizes = dict(augmentation=replace(SEEN, size=42), preprocessing=replace(EVALUATED, size=42))
    task = classification(large, weights=str(tmp_path / "weights"), **sizes)
    table = task.pretrained(task.module(Execution()))["params"]["position_embedding"]["table"]
    before = variables["params"]["position_embedding"]["table"]
    assert table.shape == (37, 16)
    np.testing.assert_array_equal(table[0], before[0])
    np.testing.assert_allclose(table[[1, 6, 36]], before[np.array([1, 4, 16])], atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(VIT, "layers 2 \\(not 3\\); set --task.model.layers 2"), (RESNET, "a ResNet, no ViT")],
    ids=["other layers", "other network"],
)
def test_weights_of_another_network_are_refused_with_what_to_set(weights, message, tmp_path):
    model = classification(weights).module(Execution())
    variables = model.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    jf.save_pretrained(model, variables, tmp_path / "weights", "jaxformers")
    task = classification(replace(VIT, layers=3), weights=str(tmp_path / "weights"))
    with pytest.raises(WeightsError, match=message):
        task.pretrained(task.module(Execution()))


def test_classes_and_sizes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="has 10 classes, but the model 7"):
        classification(replace(VIT, classes=7)).open(tmp_path, 0)
    with pytest.raises(ConfigError, match=r"set --task.augmentation.size 28"):
        classification(VIT, augmentation=Augmentation(size=32, channels=1, crop=AsIs()))


@pytest.mark.slow
def test_an_evaluation_hides_the_same_patches_every_time(painted):
    task, folder, result = painted
    model, variables = jf.from_pretrained(folder)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        again = task.evaluators()[0].evaluate(model, variables, None, final=False)
    assert evaluate([folder])["dev_loss"] == pytest.approx(again.metrics["dev_loss"])
    assert again.metrics["dev_loss"] == pytest.approx(result.evaluation.metrics["dev_loss"])


@pytest.mark.parametrize("model", [VIT, RESNET, MAE], ids=["vit", "resnet", "mae"])
def test_rehearsals_are_small_and_of_the_same_kind(model, tmp_path):
    if model is MAE:
        task = MaskedImage(MAE, DATA, SEEN, EVALUATED, rows=16)
    else:
        task = classification(model, mixup=0.2)
    small = task.rehearsal()
    assert type(small.model) is type(task.model) and small.model.image_size == 24
    small.open(tmp_path, 0)


@pytest.mark.slow
def test_what_was_trained_names_what_it_sees(tmp_path, capsys):
    from PIL import Image

    from jaxformers.cli.command import main

    result = train(run(classification(VIT)), tmp_path / "run")
    assert evaluate([tmp_path / "run"]) == pytest.approx(result.evaluation.metrics)
    images = SETS["test"].open()
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(images.image(i)[..., 0]).save(tmp_path / "pictures" / f"{i}.png")
    predictions = jf.classify_images(tmp_path / "run", tmp_path / "pictures", top=2)
    assert [len(prediction) for prediction in predictions] == [2, 2, 2]
    model, variables = jf.from_pretrained(tmp_path / "run")
    pixels = jf.load_images(tmp_path / "run")([images.image(i) for i in range(3)])
    logits = np.asarray(model.apply(variables, pixels))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert [prediction[0][0] for prediction in predictions] == [
        images.class_names[k] for k in logits.argmax(-1)
    ]
    np.testing.assert_allclose(
        [prediction[0][1] for prediction in predictions], shares.max(-1), rtol=1e-4
    )
    assert (
        main(["classify-image", str(tmp_path / "run"), str(tmp_path / "pictures"), "--top", "1"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split("\t")[1].rsplit(" ", 1)[0] for line in lines] == [
        e[0][0] for e in predictions
    ]
    grey = np.stack([images.image(i) for i in range(3)])
    assert jf.classify_images(tmp_path / "run", grey, top=2) == predictions
    assert jf.classify_images(tmp_path / "run", grey[1], top=2) == predictions[1:2]
    with pytest.raises(ConfigError, match="top is '3'"):
        jf.classify_images(tmp_path / "run", grey, top="3")
    # Hidden files, other kinds and folders are no pictures; a damaged one is left out if asked.
    (tmp_path / "pictures" / "._0.png").write_text("left by an archive")
    (tmp_path / "pictures" / "notes.pdf").write_text("not a picture")
    (tmp_path / "pictures" / "folder.png").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"damaged")
    words = ["classify-image", str(tmp_path / "run"), str(tmp_path / "pictures"), "--top", "1"]
    assert main(words) == 2
    messages = capsys.readouterr().err.splitlines()
    assert messages[0].endswith("passed over in " + words[2] + ": 1 .pdf, 1 folder, 1 hidden")
    assert len(messages) == 2 and "1.png is not a picture that can be decoded" in messages[1]
    assert main([*words, "--skip-damaged"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [lines[0], lines[2]] and "left out" in captured.err
    # Only damaged images are left out: what is no file, or cannot be read, is an error.
    (tmp_path / "pictures" / "1.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    assert main([*words[:2], str(tmp_path / "pipe.png"), "--skip-damaged"]) == 2
    assert "pipe.png: it is a pipe, not a regular file" in capsys.readouterr().err
    (tmp_path / "pictures" / "1.png").write_bytes(b"damaged")
    for name in ("0.png", "2.png"):
        (tmp_path / "pictures" / name).unlink()
    assert main([*words, "--skip-damaged"]) == 2
    assert "none of the 1 pictures decodes" in capsys.readouterr().err


def test_the_test_pictures_are_evaluated_by_all_their_right_labels_too(tmp_path, monkeypatch):
    import json

    from jaxformers.data.images.sources.labelled_images import LabelledImages
    from jaxformers.data.images.sources.real_labels import RealLabels

    monkeypatch.setattr(
        LabelledImages, "name", lambda self, i: f"ILSVRC2012_val_{i + 1:08d}", raising=False
    )
    images = SETS["test"].open()
    sets = [[int(label), (int(label) + 1) % 10] for label in images.labels]
    sets[0] = []
    (tmp_path / "real.json").write_text(json.dumps(sets))
    task = classification(VIT, real=RealLabels(str(tmp_path / "real.json")))
    logits = [
        np.random.default_rng(s).normal(size=(n, 10)).astype(np.float32)
        for s, n in ((0, 21), (1, 19))
    ]
    metrics = (
        task.evaluators()[0].score(logits, task.open(tmp_path, 0).processor, final=True).metrics
    )
    predictions = logits[1].argmax(-1)
    right = [predictions[i] in sets[i] for i in range(1, 19)]
    assert metrics["test_real"] == pytest.approx(100 * np.mean(right))
    assert "dev_real" not in metrics
