"""MAE: sizes, masking, the loss, reconstruction, meshes, and what it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.models.mae import reconstruct, unpatchify
from jaxformers.models.patches import patchify
from jaxformers.sharding import MeshConfig, make_mesh, parameter_spec, path_text, shardings

SMALL = jf.MAEConfig.base(
    4,
    image_size=16,
    width=16,
    heads=4,
    feed_forward=32,
    layers=2,
    decoder_width=16,
    decoder_heads=4,
    decoder_layers=1,
    decoder_feed_forward=32,
)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((8, 16, 16, 3)).astype(np.float32)
NOISE = RNG.random((8, 16)).astype(np.float32)


def random_variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)


@pytest.fixture(scope="module")
def small():
    model = jf.MAE(SMALL)
    variables = random_variables(model)
    return model, variables, jax.jit(model.apply)(variables, IMAGES, NOISE)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (jf.MAEConfig.base(), 111_907_840),
        (jf.MAEConfig.large(), 329_541_888),
        (jf.MAEConfig.huge(), 657_074_508),
    ],
    ids=["B", "L", "H"],
)
def test_parameter_counts_to_the_unit_and_every_one_has_a_row(config, count):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(jf.MAE(config).init, jax.random.key(0), images)["params"]
    tables = config.encoder.tokens * (config.encoder.width + config.decoder_width)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) + tables == count
    for mesh in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)):
        sizes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            parameter_spec(path_text(path), leaf.shape, sizes)


def test_the_published_recipe_keeps_49_of_196_patches():
    assert jf.MAEConfig.base().num_visible(196) == 49


def test_the_patches_with_the_least_noise_are_kept(small):
    _, _, output = small
    visible = np.argsort(NOISE, axis=1)[:, :4]
    mask = np.ones((8, 16))
    np.put_along_axis(mask, visible, 0, axis=1)
    np.testing.assert_array_equal(output.mask, mask)


def test_the_loss_is_of_hidden_patches_normalised_with_the_unbiased_variance(small):
    _, _, output = small
    patches = np.asarray(patchify(IMAGES, 4), np.float64)
    variance = patches.var(-1, ddof=1, keepdims=True)
    target = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-6)
    error = np.square(output.prediction - target).mean(-1)
    expected = error[np.asarray(output.mask) == 1].mean()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_hidden_patches_do_not_reach_the_prediction(small):
    model, variables, output = small
    hidden = np.asarray(output.mask)[..., None] == 1
    patches = np.where(hidden, 7.0, np.asarray(patchify(IMAGES, 4))).astype(np.float32)
    changed = np.asarray(unpatchify(patches, 4, (16, 16)))
    changed_output = jax.jit(model.apply)(variables, changed, NOISE)
    np.testing.assert_allclose(changed_output.prediction, output.prediction, atol=1e-5)


def test_noise_is_drawn_from_the_dropout_stream(small):
    model, variables, _ = small
    draw = jax.jit(lambda key: model.apply(variables, IMAGES, rngs={"dropout": key}).mask)
    mask, same, other_mask = (np.asarray(draw(jax.random.key(seed))) for seed in (0, 0, 1))
    assert (mask == same).all() and (mask != other_mask).any() and (mask.sum(1) == 12).all()
    assert len({row.tobytes() for row in mask}) > 1  # each image hides others
    with pytest.raises(ConfigError, match="needs noise="):
        model.apply(variables, IMAGES)


def test_the_encoder_is_a_vit_by_its_parameters(small):
    model, variables, _ = small
    vit = jf.ViT(SMALL.encoder)
    vit_params = jax.eval_shape(vit.init, jax.random.key(0), IMAGES)["params"]
    params = {name: variables["params"][name] for name in vit_params}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, vit_params)
    tokens = vit.apply({"params": params}, IMAGES, method="features")
    np.testing.assert_allclose(model.apply(variables, IMAGES, method="features"), tokens, atol=1e-5)


def test_a_right_prediction_paints_the_image(small):
    _, _, output = small
    patches = np.asarray(patchify(IMAGES, 4))
    deviation = np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    right = (patches - patches.mean(-1, keepdims=True)) / deviation
    for config, prediction in (
        (SMALL, right),
        (replace(SMALL, norm_pix_loss=False), patches),
    ):
        painted = reconstruct(config, IMAGES, output._replace(prediction=prediction), keep=False)
        np.testing.assert_allclose(painted, IMAGES, atol=1e-5)
    reconstruction = reconstruct(SMALL, IMAGES, output)
    same = np.abs(np.asarray(patchify(reconstruction, 4)) - patches).max(-1) < 1e-6
    np.testing.assert_array_equal(same, np.asarray(output.mask) == 0)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_it_is_the_same_on_a_mesh(small, shape):
    model, variables, expected = small
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(variables, {"params": shardings(variables["params"], mesh)})
        output = jax.jit(model.apply)(sharded, IMAGES, NOISE)
    np.testing.assert_array_equal(output.mask, expected.mask)
    np.testing.assert_allclose(output.prediction, expected.prediction, atol=5e-5)
    np.testing.assert_allclose(output.loss, expected.loss, rtol=1e-5)


def test_noise_of_another_shape_is_refused(small):
    model, variables, _ = small
    with pytest.raises(DataError, match=r"noise of shape \(8, 9\) for 8 images of 16 patches"):
        model.apply(variables, IMAGES, NOISE[:, :9])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio is 0.0; it is above 0 and below 1"),
        ({"mask_ratio": 0.99}, "masks none"),
        ({"decoder_heads": 3}, "3 heads do not divide"),
        ({"encoder": replace(SMALL.encoder, classes=3)}, "no head"),
        ({"encoder": replace(SMALL.encoder, positions="none")}, "positions"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_config_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **changes)
