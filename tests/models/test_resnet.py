"""ResNet, BiT and the hybrid's stem: sizes, shapes, names, meshes, and memory choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models.hybrid_stem import HybridStem, HybridStemConfig
from jaxformers.sharding import MeshConfig, describe_parameters, make_mesh, put_batch, shardings

SMALL = jf.ResNetConfig(
    image_size=16, classes=5, depths=(1, 2), width=8, stem="small", zero_init=False
)
SMALL_BIT = jf.BiTConfig(image_size=32, classes=5, depths=(1, 1), width=8, groups=4)
MODELS = {"resnet": jf.ResNet(SMALL), "bit": jf.BiT(SMALL_BIT)}


def abstract(model, side=32, channels=3):
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(abstract(model)["params"]))


def random_variables(model):
    rng = np.random.RandomState(0)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        spread = 0.1 if "kernel" in name else 0.3
        centre = 1.0 if "scale" in name or "var" in name else 0.0
        return jnp.asarray(centre + spread * rng.standard_normal(leaf.shape), jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract(model))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.abs(x) if "var" in jax.tree_util.keystr(path) else x, variables
    )


def images(rows=8, side=16):
    return np.random.RandomState(1).standard_normal((rows, side, side, 3)).astype(np.float32)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("layers", "parameters"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_resnets_have_the_published_number_of_parameters(layers, parameters):
    assert count(jf.ResNet(getattr(jf.ResNetConfig, f"resnet{layers}")())) == parameters


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (jf.BiTConfig.r50x1(), 25_549_352),
        (jf.BiTConfig.r101x1(), 44_541_480),
        (jf.BiTConfig.r152x2(), 236_335_208),
        (jf.BiTConfig.r152x4(), 936_533_224),
        (jf.BiTConfig.r152x4(classes=37), 928_643_365),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_bits_have_the_published_number_of_parameters(config, parameters):
    assert count(jf.BiT(config)) == parameters


def test_the_hybrids_resnet_completes_the_published_count():
    hybrid = count(HybridStem(HybridStemConfig()))
    vit = 85_798_656 - 16 * 16 * 3 * 768 + 1024 * 768  # patches of one pixel over 1,024 channels
    assert hybrid + vit == 97_890_112


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_full_size_parameters_divide_over_meshes(shape):
    sizes = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
    for model in (
        jf.ResNet(jf.ResNetConfig.resnet50()),
        jf.ResNet(jf.ResNetConfig.resnet34(classes=37)),
        jf.BiT(jf.BiTConfig.r152x4(classes=21_843)),
        HybridStem(HybridStemConfig()),
    ):
        params = abstract(model)["params"]
        held = sum(row[-1] for row in describe_parameters(params, sizes))
        total = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
        assert held < 1.1 * total / shape[1]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", MODELS)
def test_a_head_and_what_lies_below_it(name):
    model = MODELS[name]
    variables, x = random_variables(model), images(2)
    features = model.apply(variables, x, method="features")
    pooled = model.apply(variables, x, method="pooled")
    np.testing.assert_allclose(pooled, np.asarray(features).mean((1, 2)), atol=1e-5)
    head = jax.tree.map(np.asarray, variables["params"]["head"])
    expected = np.asarray(pooled) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-4)


def test_a_small_stem_keeps_the_size_and_an_imagenet_stem_quarters_it():
    for stem, side in (("small", 32), ("imagenet", 8)):
        model = jf.ResNet(jf.ResNetConfig(depths=(1,), width=8, stem=stem))
        features = jax.eval_shape(
            lambda v, x, model=model: model.apply(v, x, method="features"),
            abstract(model),
            jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
        )
        assert features.shape == (2, side, side, 32)


def test_a_fresh_bit_and_a_fresh_zero_initialised_resnet_start_as_they_should():
    variables = MODELS["bit"].init(jax.random.key(0), images(1))
    assert not np.any(variables["params"]["head"]["kernel"])
    config = jf.ResNetConfig(depths=(1,), width=8, zero_init=True)
    params = jf.ResNet(config).init(jax.random.key(0), images(1))["params"]
    block = params["stages_0"]["blocks_0"]
    assert not np.any(block["units_2"]["norm"]["scale"])
    assert np.all(block["units_1"]["norm"]["scale"] == 1.0)


def training(model, variables, x):
    """Logits, gradients and running statistics of a training step's loss."""

    def loss(params):
        collections = {**variables, "params": params}
        logits, new = model.apply(collections, x, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean(), (logits, new)

    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return aux, grads


def close(actual, expected, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), actual, expected)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_on_a_mesh_and_with_rematerialisation(name):
    model, x = MODELS[name], images()
    variables = random_variables(model)
    expected = jax.jit(lambda v, x: training(model, v, x))(variables, x)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    saving = model.clone(execution=Execution(remat="full"))
    with jax.set_mesh(mesh):
        sharded = {**variables, "params": variables["params"]}
        where = shardings(variables["params"], mesh)
        sharded["params"] = jax.device_put(variables["params"], where)
        batch = put_batch({"images": x}, mesh)["images"]
        actual = jax.jit(lambda v, x: training(saving, v, x))(sharded, batch)
    close(actual, expected, 2e-4)


def test_running_statistics_move_only_where_they_may():
    model, x = MODELS["resnet"], images(4)
    variables = random_variables(model)
    first = model.apply(variables, x, train=True)
    second, new = model.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(first, second)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), new, {k: variables[k] for k in new})
    assert jax.tree.all(moved)


@pytest.mark.slow
def test_bfloat16_gives_float32_logits_close_to_float32s():
    for model in MODELS.values():
        variables, x = random_variables(model), images(4)
        half = model.clone(execution=Execution(dtype="bfloat16"))
        logits, expected = half.apply(variables, x), model.apply(variables, x)
        assert logits.dtype == jnp.float32
        assert np.abs(logits - expected).max() < 0.05 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (jf.ResNetConfig, {"depths": (2, 0)}),
        (jf.ResNetConfig, {"classes": -1}),
        (jf.ResNetConfig, {"class_names": ("a",)}),
        (jf.ResNetConfig, {"widths": (64, 128)}),
        (jf.ResNetConfig, {"widths": (64, 128, 3, 512)}),
        (jf.BiTConfig, {"width": 48}),
        (HybridStemConfig, {"width": 48}),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_refused(config, changes):
    with pytest.raises(ConfigError):
        config(**changes)


def test_images_of_other_channels_are_refused_in_one_line():
    with pytest.raises(DataError, match=r"the model takes \[batch, height, width, 3\]"):
        MODELS["resnet"].init(jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32))
