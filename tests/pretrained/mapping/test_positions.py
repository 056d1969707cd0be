"""Position tables for another image size, as SciPy and torch resize them."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import vit_cases as cases

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import at_image_size, resize_positions, save_pretrained

SMALL = jf.ViTConfig(
    image_size=12, patch_size=4, width=8, heads=2, feed_forward=8, layers=1, classes=2
)


@pytest.mark.parametrize("method", ["zoom", "bicubic"])
@pytest.mark.parametrize(("small", "large"), [(14, 24), (7, 12), (12, 7)])
@pytest.mark.parametrize("first", [0, 1])
def test_tables_are_resized_as_the_publishers_do(method, small, large, first):
    table = np.random.RandomState(small).standard_normal((small, small, 3)).astype(np.float32)
    rows = np.concatenate([np.full((first, 3), 7.0, np.float32), table.reshape(-1, 3)])
    found = resize_positions(rows, small, large, method)
    wanted = np.load(cases.POSITIONS)[f"{method}_{small}_{large}"]
    np.testing.assert_allclose(found[first:].reshape(large, large, 3), wanted, atol=1e-5)
    assert (found[:first] == 7.0).all() and found.dtype == np.float32


def test_the_same_grid_changes_nothing():
    table = np.random.RandomState(0).standard_normal((10, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table, 3, 3), table)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("activation", "method"), [("gelu_tanh", "zoom"), ("gelu", "bicubic")])
def test_a_model_is_loaded_for_larger_images(activation, method, tmp_path):
    model = jf.ViT(jf.ViTConfig(**SMALL.__dict__ | {"activation": activation}))
    variables = model.init(jax.random.key(0), np.zeros((1, 12, 12, 3), np.float32))
    save_pretrained(model, variables, tmp_path)
    larger, resized = jf.from_pretrained(tmp_path, image_size=20)
    assert larger.config.image_size == 20
    tables = (v["params"]["position_embedding"]["table"] for v in (variables, resized))
    before, after = (np.asarray(table) for table in tables)
    np.testing.assert_allclose(after, resize_positions(before, 3, 5, method), atol=1e-6)
    logits = larger.apply(resized, np.zeros((1, 20, 20, 3), np.float32))
    assert logits.shape == (1, 2)
    with pytest.raises(WeightsError, match="image size 21: images of 21 pixels do not divide"):
        at_image_size(model, variables, 21)
    with pytest.raises(WeightsError, match="'24' is not a whole number"):
        at_image_size(model, variables, "24")


def test_a_table_without_the_grid_is_refused():
    with pytest.raises(WeightsError, match="8 rows holds no grid of 3 x 3"):
        resize_positions(np.zeros((8, 2), np.float32), 3, 4)


def test_a_model_without_images_has_no_size_to_change():
    with pytest.raises(WeightsError, match="Bert has no image size"):
        at_image_size(jf.Bert(jf.BertConfig.tiny()), {"params": {}}, 32)
