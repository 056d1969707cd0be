"""Published DeiT and DINOv2 folders used and fine-tuned: classes, explanations, new heads."""

import json
from dataclasses import replace

import dino_cases as cases
import jax
import numpy as np
import pytest
from folders import read, write

import jaxformers as jf
from jaxformers.cli import command
from jaxformers.data.images import Augmentation, BundledFashionMnist, Preprocessing, WholeImage
from jaxformers.layers import Execution
from jaxformers.pretrained import resize_positions
from jaxformers.sharding import MeshConfig
from jaxformers.tasks.images.image_classification import ImageClassification
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment
from jaxformers.training.loop import train

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def published(name, folder, size):
    """A case's folder with preprocessing to images of `size`."""
    config = cases.CASES[name]
    write(folder, config, cases.weights(config, list(cases.CASES).index(name)))
    fields = dict(image_processor_type="ViTImageProcessor", size=size)
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("registers_classifier", 35),  # its table is for 21 pixels
        ("deit_pair", [12, 20]),
        ("deit_teacher", 20),
        ("dinov2_giant", [35, 28]),
    ],
)
def test_a_published_folder_classifies_and_is_explained(name, size, tmp_path):
    folder = published(name, tmp_path, size)
    model, variables = jf.from_pretrained(folder)
    images = jf.load_images(folder)(PIXELS)
    probabilities = jax.nn.softmax(model.apply(variables, images))[0]
    best = int(probabilities.argmax())
    ((label, probability),) = jf.classify_images(folder, PIXELS, top=1)[0]
    assert label == model.config.class_names[best]
    assert probability == pytest.approx(float(probabilities[best]), abs=1e-6)
    explained = jf.explain(folder, PIXELS)
    assert explained.heat.shape[1:] == images.shape[1:3]
    assert explained.classes[0] == label and np.isfinite(explained.relevance).all()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("name", "size", "method"),
    [
        ("registers_classifier", 28, "bicubic_antialiased"),
        ("deit_pair", (12, 20), None),
        ("dinov2_classifier", 14, "bicubic"),
        ("deit", 28, "bicubic"),
    ],
)
def test_a_published_folder_is_fine_tuned_and_saved_as_it_came(name, size, method, tmp_path):
    folder = published(name, tmp_path / "theirs", 21)
    published_model, variables = jf.from_pretrained(folder)
    config = replace(published_model.config, image_size=size, classes=10, class_names=())
    data = dict(data=BundledFashionMnist(limit=32), test=BundledFashionMnist("test", limit=9))
    sizes = dict(
        augmentation=Augmentation(size, crop=WholeImage()), preprocessing=Preprocessing(size)
    )
    task = ImageClassification(config, rows=16, weights=str(folder), **data, **sizes)
    start = task.pretrained(task.module(Execution()))["params"]
    assert "head" not in start and "distillation_head" not in start
    table = variables["params"]["position_embedding"]["table"]
    if method:
        table = resize_positions(table, published_model.config.grid, config.grid, method)
    np.testing.assert_array_equal(start["position_embedding"]["table"], table)

    fields = dict(optimizer=Adam(), schedule=Cosine(1e-3, 1), mesh=MeshConfig(8, 1, 1))
    experiment = Experiment("fine_tuned", task, steps=2, checkpoint=Checkpointing(2), **fields)
    result = train(experiment, tmp_path / "run")
    assert np.isfinite(result.evaluation.metrics["test_loss"])
    target = tmp_path / "ours"
    assert command.main(["convert", str(tmp_path / "run"), str(target)]) == 0
    saved, tensors = read(target)
    expected = cases.CASES[name]
    assert saved["model_type"] == expected["model_type"]
    assert saved["architectures"] == expected["architectures"]
    ours = {key for key in tensors if not key.endswith("mask_token")}
    theirs = {key for key in cases.shapes(expected) if not key.endswith("mask_token")}
    assert ours == theirs
    assert jf.load_images(target) == task.preprocessing
    assert jf.classify_images(target, PIXELS) == jf.classify_images(tmp_path / "run", PIXELS)
