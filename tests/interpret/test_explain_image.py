"""`jf.explain` and `jaxformers explain`: heat maps of a picture's likeliest classes."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.data.images import Preprocessing
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.interpret.attention import attention_maps
from jaxformers.interpret.explain import explain
from jaxformers.interpret.explain_image import explain_picture, model_view
from jaxformers.models.vit import ViT
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.tasks.images.image_inference import classify_images


@pytest.fixture(scope="module")
def published(vit, tmp_path_factory):
    """A folder with the small ViT, its preprocessing, and a picture."""
    folder = tmp_path_factory.mktemp("vit")
    config, variables, _ = vit
    config = replace(config, class_names=("ant", "bee", "cat"))
    jf.save_pretrained(ViT(config), variables, folder)
    write_preprocessing(Preprocessing(6), folder)
    pixels = np.random.RandomState(3).randint(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")
    return folder


def test_a_picture_is_explained_by_its_likeliest_classes(published):
    got = jf.explain(published, published / "x.png", "generic", top=2)
    assert got.heat.shape == (2, 6, 6) and got.relevance.shape == (2, 9)
    assert got.picture.shape == (6, 6, 3) and 0 <= got.picture.min() <= got.picture.max() <= 1
    model, variables = jf.from_pretrained(published)
    images = jf.load_images(published)(str(published / "x.png"))
    likely = np.asarray(jax.nn.softmax(model.apply(variables, images)))[0]
    order = np.argsort(-likely)[:2]
    assert got.classes == tuple(("ant", "bee", "cat")[i] for i in order)
    assert_allclose(got.probabilities, likely[order], atol=1e-5)
    assert len(got.figure().axes) == 3


def test_what_the_model_saw_is_shown_as_pixels():
    preprocessing = Preprocessing(4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    pixels = np.random.RandomState(0).randint(0, 256, (4, 4, 3), np.uint8)
    assert_allclose(model_view(preprocessing(pixels)[0], preprocessing), pixels / 255, atol=1e-5)


def test_the_verb_writes_a_picture_and_prints_the_classes(published, tmp_path, capsys):
    out = tmp_path / "heat.png"
    words = ["explain", str(published), "--image", str(published / "x.png"), "--top", "2"]
    assert main([*words, "--method", "generic", "--output", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2] == f"wrote {out}"
    assert {line.split("\t")[0] for line in lines[:2]} < {"ant", "bee", "cat"}
    with Image.open(out) as image:
        assert image.size == (900, 340)


def drawn(figure):
    """(title, heat map or None) of each panel beside the picture, and the end of the colour bar."""
    panels = []
    for axis in figure.axes[1:]:
        heat = next((image for image in axis.images if image.get_cmap().name == "inferno"), None)
        panels.append((axis.get_title(), heat))
    return panels


def test_all_classes_are_on_one_scale_by_their_probability(published):
    got = jf.explain(published, published / "x.png", "generic", top=3)
    figure = got.figure()
    panels = drawn(figure)
    evidence = got.evidence()
    for _, heat in panels:
        assert heat is None or heat.get_clim() == (0.0, pytest.approx(evidence.max()))
    (bar,) = figure.axes[-1].child_axes
    assert "probability" in bar.get_ylabel()
    for (title, _), name, probability in zip(panels, got.classes, got.probabilities, strict=True):
        assert title.startswith(f"{name} {probability:.1%}")
    # Each class's map sums, over its patches, to its probability.
    shares = got.relevance / got.relevance.sum(-1, keepdims=True) * got.probabilities[:, None]
    sharp = replace(got, heat=got.relevance[:, None]).evidence()[:, 0]
    assert_allclose(sharp, shares, rtol=1e-5)


def test_an_unlikely_class_does_not_glow(published):
    got = jf.explain(published, published / "x.png", "generic", top=2)
    got = replace(got, probabilities=np.array([0.997, 0.001]))
    (_, likely), (title, unlikely) = drawn(got.figure())
    assert likely is not None and unlikely is None and "no evidence" in title


@pytest.mark.parametrize("method", ["attribution", "generic", "rollout"])
@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.default_cases(2)
def test_a_uniform_picture_is_no_evidence(level, method, published):
    got = jf.explain(published, np.full((20, 30, 3), level, np.uint8), method, top=2)
    panels = drawn(got.figure())
    assert got.uniform and all(heat is None for _, heat in panels)
    assert all("no evidence" in title.replace("\n", " ") for title, _ in panels)


def test_a_method_that_tells_no_classes_apart_is_drawn_once(published):
    got = jf.explain(published, published / "x.png", "rollout", top=3)
    ((title, heat),) = drawn(got.figure())
    assert heat is not None and "the same for all" in title.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "no.png"], "no.png"),
        (["--image", "x.png", "--method", "rolout"], "did you mean rollout"),
        (["--image", "x.png", "--output", "a.bread"], "call it .png"),
        (["--image", "x.png", "--top", "0"], "--top"),
        ([], "--image is missing"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, published, capsys):
    words = [str(published / "x.png") if word == "x.png" else word for word in words]
    assert main(["explain", str(published), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_model_without_classes_or_patches_is_refused(vit):
    config, variables, _ = vit
    for model in (ViT(replace(config, classes=0)), jf.Bert(jf.BertConfig.tiny())):
        with pytest.raises(WeightsError, match="needs a ViT with a head"):
            explain_picture(model, variables, Preprocessing(6), np.zeros((6, 6, 3), np.uint8))
    picture = np.zeros((6, 6, 3), np.uint8)
    with pytest.raises(ConfigError, match="top is 0"):
        explain_picture(ViT(config), variables, Preprocessing(6), picture, top=0)
    with pytest.raises(ConfigError, match="no method None"):
        explain_picture(ViT(config), variables, Preprocessing(6), picture, None)
    for pictures in ([], [picture, picture]):
        with pytest.raises(DataError, match=f"{len(pictures)} pictures were given"):
            explain_picture(ViT(config), variables, Preprocessing(6), pictures)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_said_to_be_so(value, published):
    model, variables = jf.from_pretrained(published)
    broken = jax.tree.map(lambda leaf: np.full(leaf.shape, value, np.float32), variables)
    picture = published / "x.png"
    with pytest.raises(WeightsError, match="outputs are not finite"):
        explain_picture(model, broken, Preprocessing(6), picture, "attention")
    with pytest.raises(WeightsError, match="outputs are not finite"):
        classify_images(model, broken, Preprocessing(6), [str(picture)])


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        (dict(distillation_token=True, distillation_head=True, register_tokens=2), (0, 1)),
        (dict(distillation_token=True), (0,)),
        (dict(register_tokens=2), (0,)),
        (dict(pooling="class_average"), None),
    ],
    ids=str,
)
def test_relevance_is_of_the_patches_alone_whatever_stands_before_them(changes, rows, vit):
    """Raw attention: the rows of what the head reads, over the patches."""
    config = replace(vit[0], **changes)
    model, images = ViT(config), np.random.RandomState(0).rand(1, 6, 6, 3).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.RandomState(1)
    variables = jax.tree.map(lambda s: 0.3 * random.randn(*s.shape).astype(np.float32), shapes)
    relevance = explain(model, variables, images, method="attention").relevance
    attention = attention_maps(model, variables, images).encoder[-1, 0].mean(0)  # [T, T]
    first = config.prefix_tokens
    averaged = attention[first:].mean(0)
    if rows is None:
        expected = (attention[0] + averaged) / 2
    else:
        expected = attention[np.asarray(rows)].mean(0)
    assert relevance.shape == (1, 1, config.num_patches)
    assert_allclose(relevance[0, 0], expected[first:], atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "average_max"])
def test_a_maximum_has_no_share_of_each_patch(pooling, vit):
    model = ViT(replace(vit[0], pooling=pooling))
    with pytest.raises(ConfigError, match=f"pools by '{pooling}'"):
        explain(model, {}, np.zeros((1, 6, 6, 3), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attribution", "generic", "rollout"])
def test_every_method_explains_a_model_of_the_later_papers(method, vit):
    later = dict(layer_scale=0.1, query_key_norm=True, embedding_norm=True, register_tokens=2)
    config = replace(vit[0], distillation_token=True, **later)
    model, images = ViT(config), np.random.RandomState(0).rand(1, 6, 6, 3).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.RandomState(1)
    variables = jax.tree.map(lambda s: 0.3 * random.randn(*s.shape).astype(np.float32), shapes)
    relevance = explain(model, variables, images, method=method).relevance
    assert relevance.shape == (1, 1, config.num_patches)
    assert np.isfinite(relevance).all() and np.abs(relevance).max() > 0
