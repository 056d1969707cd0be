"""R50+ViT in small against Google's code: its arrays' names, its ResNet's map, its logits."""

import json

import hybrid_cases as cases
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.pretrained import load_pretrained

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
