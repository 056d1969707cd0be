"""Position tables for another image size, as SciPy and torch resize them."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import vit_cases as cases
from folders import write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import at_image_size, resize_positions, save_pretrained

SMALL = jf.ViTConfig(
    image_size=12, patch_size=4, width=8, heads=2, feed_forward=8, layers=1, classes=2
)


@pytest.mark.parametrize("method", ["zoom", "bilinear", "bicubic", "bicubic_antialiased"])
@pytest.mark.parametrize("name", cases.GRIDS)
def test_tables_are_resized_as_the_publishers_do(method, name):
    old, new = cases.GRIDS[name]
    rows = np.concatenate([np.full((2, 3), 7.0), cases.position_table(old).reshape(-1, 3)])
    resized = resize_positions(rows.astype(np.float32), old, new, method)
    expected = np.load(cases.POSITIONS)[f"{method}_{name}"]
    np.testing.assert_allclose(resized[2:].reshape(*new, 3), expected, atol=1e-5)
    assert (resized[:2] == 7.0).all() and resized.dtype == np.float32


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", cases.OTHER_SIZES)
def test_an_mae_at_another_size_equals_hugging_faces(name, tmp_path):
    """The table is resized, fixed or not, as its authors do; sines are not computed anew."""
    config, shape = cases.CASES[name], cases.OTHER_SIZES[name]
    seed = list(cases.CASES).index(name)
    folder = write(tmp_path, config, cases.weights(config, seed, sines=name in cases.SINES))
    model, variables = jf.from_pretrained(folder, image_size=shape)
    features = model.apply(variables, cases.images_of(shape), method="features")
    np.testing.assert_allclose(features, np.load(cases.SIZES)[name], rtol=1e-5, atol=5e-5)
    if name != "mae_encoder":
        patches = shape[0] * shape[1] // config["patch_size"] ** 2
        output = model.apply(variables, cases.images_of(shape), np.ones((2, patches), np.float32))
        assert output.prediction.shape == (2, patches, model.config.patch_dim)


def test_the_same_grid_changes_nothing():
    table = np.random.RandomState(0).standard_normal((10, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize_positions(table, 3, 3), table)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bicubic_antialiased", "zoom", "bicubic"])
def test_a_model_is_loaded_for_larger_images(method, tmp_path):
    """Its positions are resized as its publisher does, which every format keeps."""
    model = jf.ViT(replace(SMALL, position_resize=method))
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
    with pytest.raises(WeightsError, match="'24' is not a whole number, nor a pair"):
        at_image_size(model, variables, "24")


def test_a_table_without_the_grid_is_refused():
    with pytest.raises(WeightsError, match="8 rows holds no grid of 3 x 3"):
        resize_positions(np.zeros((8, 2), np.float32), 3, 4)


def test_a_model_without_images_has_no_size_to_change():
    with pytest.raises(WeightsError, match="Bert has no image size"):
        at_image_size(jf.Bert(jf.BertConfig.tiny()), {"params": {}}, 32)
