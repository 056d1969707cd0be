"""R50+ViT in small against Google's code: its arrays' names, its ResNet's map, its logits."""

import json
from dataclasses import replace

import hybrid_cases as cases
import jax
import numpy as np
import pytest
from jax import lax

import jaxformers as jf
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.pretrained import load_pretrained
from jaxformers.pretrained.model_variables import flatten
from jaxformers.pretrained.vit.vit_google import name_map

GOLDEN = json.loads(cases.GOLDEN.read_text())
CONFIG = jf.ViTConfig(
    image_size=cases.SIDE,
    patch_size=cases.PATCH,
    width=cases.WIDTH,
    heads=cases.HEADS,
    feed_forward=cases.FEED_FORWARD,
    layers=cases.LAYERS,
    pre_logits=cases.PRE_LOGITS,
    classes=cases.CLASSES,
    stem=HybridStemConfig(cases.DEPTHS, cases.STEM_WIDTH),
)


def with_ones(name, array):
    """A group norm's arrays as files of 2020 hold them."""
    return array[None, None, None] if "gn" in name else array


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("form", [lambda name, array: array, with_ones], ids=["today", "2020"])
def test_a_hybrid_file_gives_googles_map_and_logits(form, tmp_path):
    arrays = {name: form(name, x) for name, x in cases.weights(GOLDEN["shapes"]).items()}
    np.savez(tmp_path / "hybrid.npz", **arrays)
    model, variables = load_pretrained(tmp_path / "hybrid.npz")
    assert model.config == CONFIG
    stem = model.apply(variables, cases.images(), method=lambda vit, x: vit.stem(x))
    np.testing.assert_allclose(stem[..., :: cases.SHOWN], GOLDEN["stem"], rtol=0, atol=1e-4)
    logits = model.apply(variables, cases.images())
    np.testing.assert_allclose(logits, GOLDEN["logits"], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_hybrid_without_stages_cuts_the_pooled_first_convolution_into_patches(tmp_path):
    """R+ViT-Ti/16: against JAX's own convolution and pooling, from a file of Google's names."""
    config = replace(CONFIG, image_size=40, stem=HybridStemConfig((), cases.STEM_WIDTH))
    shapes = jax.eval_shape(jf.ViT(config).init, jax.random.key(0), np.zeros((1, 40, 40, 3)))
    random = np.random.default_rng(0)
    drawn = {
        path: random.standard_normal(leaf.shape).astype(np.float32)
        for path, leaf in flatten(shapes).items()
    }
    np.savez(tmp_path / "hybrid.npz", **name_map(config).write(drawn))
    model, variables = load_pretrained(tmp_path / "hybrid.npz")
    assert model.config == config and config.grid == (5, 5)
    images = cases.images()[:, :40, :40]
    actual = model.apply(variables, images, method=lambda vit, x: vit.stem(x))
    kernel = drawn["params/stem/root/conv/kernel"]
    kernel = (kernel - kernel.mean((0, 1, 2))) / (kernel.std((0, 1, 2)) + 1e-5)
    axes = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=axes)
    groups = np.asarray(x).reshape(2, 400, 32, -1)
    groups = groups - groups.mean((1, 3), keepdims=True)
    groups = groups / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-6)
    x = groups.reshape(x.shape) * drawn["params/stem/root/norm/scale"]
    x = np.maximum(x + drawn["params/stem/root/norm/bias"], 0)
    x = lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    np.testing.assert_allclose(actual, x, rtol=0, atol=1e-4)
    assert model.apply(variables, images).shape == (2, cases.CLASSES)
