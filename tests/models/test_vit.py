"""ViT: sizes, positions, pooling, meshes, and what it refuses."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution, grid_sinusoids
from jaxformers.models.patches import check_images, patchify
from jaxformers.pretrained import at_image_size
from jaxformers.sharding import MeshConfig, make_mesh, parameter_spec, path_text, shardings

SMALL = jf.ViTConfig(
    image_size=12, patch_size=4, width=16, heads=4, feed_forward=32, layers=2, classes=6
)
IMAGES = np.random.default_rng(0).standard_normal((8, 12, 12, 3)).astype(np.float32)


def random_variables(model, images=IMAGES):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)


def shapes_of(config):
    side = config.image_size
    images = jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32)
    return jax.eval_shape(jf.ViT(config).init, jax.random.key(0), images)["params"]


@pytest.fixture(scope="module")
def small():
    model = jf.ViT(SMALL)
    return model, random_variables(model)


@pytest.mark.default_cases(5)
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (jf.ViTConfig.base(classes=0), 85_798_656),
        (jf.ViTConfig.base(), 86_567_656),
        (jf.ViTConfig.base(32, classes=0), 87_455_232),
        (jf.ViTConfig.large(classes=0), 303_301_632),
        (jf.ViTConfig.large(32, classes=0), 305_510_400),
        (jf.ViTConfig.huge(classes=0), 630_764_800),
        (jf.ViTConfig.hybrid_base(classes=0), 97_890_112),
        (jf.ViTConfig.hybrid_base(classes=0, image_size=384), 98_181_952),
        (jf.ViTConfig.tiny(classes=1000), 5_717_416),
        (jf.ViTConfig.small(classes=1000), 22_050_664),
    ],
    ids=["B/16", "B/16 head", "B/32", "L/16", "L/32", "H/14", "R50", "R50 384", "Ti", "S"],
)
def test_parameter_counts_to_the_unit(config, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes_of(config))) == count


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_every_parameter_has_one_row_that_divides(mesh):
    sizes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    for config in (jf.ViTConfig.base(), jf.ViTConfig.large(), jf.ViTConfig.hybrid_base()):
        config = replace(config, pre_logits=config.width)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes_of(config)):
            spec = parameter_spec(path_text(path), leaf.shape, sizes)
            # All that is large is divided over fsdp.
            assert sizes["fsdp"] == 1 or "fsdp" in spec or leaf.size < 200_000, path_text(path)


def test_patches_come_row_after_row_with_channels_last():
    images = np.arange(2 * 4 * 6 * 2, dtype=np.float32).reshape(2, 4, 6, 2)
    patches = np.asarray(patchify(images, 2))
    assert patches.shape == (2, 6, 8)
    for row in range(2):
        for column in range(3):
            expected = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(2, -1)
            np.testing.assert_array_equal(patches[:, 3 * row + column], expected)


@pytest.mark.parametrize("pooling", ["class", "average"])
def test_without_positions_the_order_of_patches_changes_no_logit(pooling):
    model = jf.ViT(replace(SMALL, positions="none", pooling=pooling))
    variables = random_variables(model)
    order = np.random.default_rng(1).permutation(9)
    cut = np.asarray(patchify(IMAGES, 4))[:, order].reshape(8, 3, 3, 4, 4, 3)
    shuffled = cut.swapaxes(2, 3).reshape(8, 12, 12, 3)
    np.testing.assert_allclose(
        model.apply(variables, shuffled), model.apply(variables, IMAGES), atol=2e-5
    )


def test_with_positions_the_order_of_patches_counts(small):
    model, variables = small
    turned = IMAGES[:, ::-1]
    assert np.abs(model.apply(variables, turned) - model.apply(variables, IMAGES)).max() > 1e-2


def test_pooling_is_of_the_features(small):
    model, variables = small
    tokens = model.apply(variables, IMAGES, method="features")
    assert tokens.shape == (8, 10, 16)
    pooled = model.apply(variables, IMAGES, method="pooled")
    np.testing.assert_allclose(pooled, tokens[:, 0], atol=1e-6)
    average = jf.ViT(replace(SMALL, pooling="average"))
    averaged = average.apply(variables, IMAGES, method="pooled")
    np.testing.assert_allclose(averaged, tokens[:, 1:].mean(1), atol=1e-6)


@pytest.mark.slow
def test_a_new_head_says_its_bias():
    model = jf.ViT(replace(SMALL, head_bias=-10.0, layers=1, pre_logits=5))
    variables = model.init(jax.random.key(0), IMAGES[:1])
    np.testing.assert_array_equal(model.apply(variables, IMAGES[:1]), np.full((1, 6), -10.0))


def test_a_probes_head_starts_small_and_any_other_at_zero():
    for probe in (True, False):
        model = jf.ViT(replace(SMALL, classes=500, head_batch_norm=probe))
        kernel = model.init(jax.random.key(0), IMAGES)["params"]["head"]["kernel"]
        assert jnp.std(kernel) == pytest.approx(0.01 * probe, rel=0.05)


def test_both_tables_of_sines_are_their_formulas():
    for kind, step in (("big_vision", 3), ("mae", 4)):
        table = grid_sinusoids(3, 5, 16, kind)
        for row, column in ((0, 0), (1, 4), (2, 3)):
            rates = 10000.0 ** (-np.arange(4) / step)
            waves = (f(at * rates) for at in (column, row) for f in (np.sin, np.cos))
            np.testing.assert_allclose(table[row * 5 + column], np.concatenate([*waves]), atol=1e-6)


def test_every_block_and_map_is_reachable_by_name(small):
    model, variables = small
    _, collections = model.apply(variables, IMAGES, mutable=["probs", "blocks"])
    (probs,), (blocks,) = (
        jax.tree.leaves(collections["probs"]),
        jax.tree.leaves(collections["blocks"]),
    )
    assert probs.shape == (2, 8, 4, 10, 10) and blocks.shape == (2, 8, 10, 16)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_it_is_the_same_on_a_mesh(small, shape):
    model, variables = small
    expected = model.apply(variables, IMAGES)
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(variables, {"params": shardings(variables["params"], mesh)})
        logits = jax.jit(model.apply)(sharded, IMAGES)
    np.testing.assert_allclose(logits, expected, atol=5e-5)


def test_dropout_and_skipped_layers_act_in_training_alone(small):
    _, variables = small
    model = jf.ViT(replace(SMALL, dropout=0.3, drop_path=0.3), Execution(remat="full"))
    still = model.apply(variables, IMAGES)
    np.testing.assert_allclose(still, small[0].apply(variables, IMAGES), atol=1e-6)
    run = jax.jit(lambda key: model.apply(variables, IMAGES, train=True, rngs={"dropout": key}))
    logits, same, other_logits = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(logits, same)
    assert np.abs(logits - other_logits).max() > 1e-2 and np.abs(logits - still).max() > 1e-2


@pytest.mark.parametrize("positions", ["none", "sincos2d"])
def test_images_of_another_grid_pass_where_no_table_is_learned(positions, small):
    model = jf.ViT(replace(SMALL, positions=positions))
    variables = {"params": {k: v for k, v in small[1]["params"].items() if "position" not in k}}
    assert model.apply(variables, np.zeros((1, 8, 20, 3), np.float32)).shape == (1, 6)


def test_a_dynamic_model_resizes_its_table_for_each_image(small):
    """As the model does that is loaded for that size."""
    model, variables = small
    dynamic = jf.ViT(replace(SMALL, dynamic_size=True, position_resize="bicubic_antialiased"))
    images = np.random.default_rng(0).standard_normal((2, 8, 20, 3)).astype(np.float32)
    resized = at_image_size(model, variables, (8, 20), "bicubic_antialiased")
    np.testing.assert_allclose(
        dynamic.apply(variables, images), resized[0].apply(resized[1], images), atol=1e-5
    )


def test_mae_tables_are_of_one_size(small):
    model = jf.ViT(replace(SMALL, positions="sincos2d_mae"))
    variables = {"params": {k: v for k, v in small[1]["params"].items() if "position" not in k}}
    with pytest.raises(DataError, match="load the model with its positions resized"):
        model.apply(variables, np.zeros((1, 8, 20, 3), np.float32))


NEW_FIELDS = dict(
    layer_scale=0.1,
    query_key_norm=True,
    qkv_bias=False,
    register_tokens=3,
    distillation_token=True,
    distillation_head=True,
    embedding_norm=True,
    image_size=(12, 20),
)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("prefix_positions", ["all", "class", "none"])
def test_tokens_without_a_position_have_none(prefix_positions):
    """A table of zeros before the patches' rows, where there are any, is the same."""
    config = replace(SMALL, **NEW_FIELDS, prefix_positions=prefix_positions)
    model, images = jf.ViT(config), np.ones((2, 12, 20, 3), np.float32)
    variables = random_variables(model, images)
    table = variables["params"]["position_embedding"]["table"]
    assert table.shape == ({"all": 5, "class": 1, "none": 0}[prefix_positions] + 15, 16)
    every = jf.ViT(replace(config, prefix_positions="all"))
    zeros = np.zeros((5, 16), np.float32)
    zeros[: config.prefix_rows] = table[: config.prefix_rows]
    params = dict(variables["params"])
    params["position_embedding"] = {"table": np.concatenate([zeros, table[config.prefix_rows :]])}
    np.testing.assert_allclose(
        model.apply(variables, images, method="features"),
        every.apply({"params": params}, images, method="features"),
        atol=1e-6,
    )


@pytest.mark.slow
def test_every_new_field_is_sharded_saved_and_taught(tmp_path):
    config = replace(SMALL, **NEW_FIELDS)
    model, images = jf.ViT(config), np.ones((2, 12, 20, 3), np.float32)
    variables = random_variables(model, images)
    sizes = {"data": 1, "fsdp": 2, "tensor": 2}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        parameter_spec(path_text(path), leaf.shape, sizes)
    jf.save_pretrained(model, variables, tmp_path)
    again, loaded = jf.from_pretrained(tmp_path)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    slope = jax.grad(lambda v: jnp.square(model.apply(v, images) - 1).sum())(loaded)["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        # A key's bias shifts all scores of a query alike.
        assert np.abs(leaf).max() > 0 or "key_norm/bias" in path_text(path), path_text(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 16, 16, 3), "16 x 16 pixels for a model of 12 x 12"),
        ((1, 12, 16, 3), "12 x 16 pixels for a model of 12 x 12"),
        ((1, 12, 13, 3), "12 x 13 pixels do not divide into patches of 4"),
        ((1, 12, 12, 1), "1 channels for a model of 3"),
    ],
)
def test_images_it_was_not_made_for_are_refused(shape, words, small):
    model, variables = small
    with pytest.raises(DataError, match=words):
        model.apply(variables, np.zeros(shape, np.float32))


def test_a_single_image_is_refused():
    with pytest.raises(DataError, match=r"\(12, 12, 3\): the model takes \[batch, height, width"):
        check_images((12, 12, 3), SMALL)


CHOICES = """
import jaxformers as jf

for config, field, value in (
    (jf.ViTConfig, "positions", "learnt"),
    (jf.ViTConfig, "pooling", "mean"),
    (jf.ViTConfig, "activation", "gellu"),
    (jf.ResNetConfig, "block", "basik"),
    (jf.ResNetConfig, "stem", "x"),
):
    try:
        config(**{field: value})
    except jf.errors.ConfigError as error:
        print(error)
"""


def test_a_misspelt_choice_is_refused_where_no_types_are_checked():
    done = subprocess.run([sys.executable, "-c", CHOICES], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "positions is 'learnt', not one of learned, sincos2d, sincos2d_mae, none; "
        "did you mean learned?",
        "pooling is 'mean', not one of class, average, max, average_max, class_average, attention",
        "activation is 'gellu', not one of relu, gelu, gelu_tanh, quick_gelu, silu, tanh; "
        "did you mean gelu?",
        "block is 'basik', not one of basic, bottleneck; did you mean basic?",
        "stem is 'x', not one of imagenet, imagenet_halved, small, deep",
    ], done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 30}, "30 pixels do not divide into patches of 4: choose a multiple"),
        ({"heads": 3}, "3 heads do not divide"),
        ({"class_token": False}, "pooling 'class' needs the class token"),
        ({"positions": "sincos2d", "width": 18, "heads": 2}, "width divisible by 4"),
        ({"class_names": ("a",)}, "1 names for 6 classes"),
        ({"layers": 0}, "layers is 0"),
        ({"feed_forward": 0}, "feed_forward is 0"),
        ({"classes": -3, "class_names": ()}, "classes is -3; it is a whole number, at least 0"),
        ({"pre_logits": -1}, "pre_logits is -1"),
        ({"dropout": 1.5}, "dropout is 1.5; it is from 0 to below 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0; it is above 0"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        replace(SMALL, **changes)
