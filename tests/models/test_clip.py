"""CLIP's model: sizes, pooling, padding, sharding, initial weights, patch dropout."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.models import CLIPConfig, CLIPImageConfig, CLIPTextConfig, ModifiedResNetConfig
from jaxformers.models.clip import CLIPTextTower
from jaxformers.sharding.table import describe_parameters

# Counted on OpenAI's own classes.
PARAMETERS = {
    "vit_b32": 151_277_313,
    "vit_b16": 149_620_737,
    "vit_l14": 427_616_513,
    "vit_l14_336": 427_944_193,
    "rn50": 102_007_137,
    "rn101": 119_688_033,
    "rn50x4": 178_300_601,
    "rn50x16": 290_979_217,
    "rn50x64": 623_258_305,
    "siglip_b16": 203_155_970,  # google/siglip-base-patch16-224
}
TEXT = CLIPTextConfig(60, 11, 24, 3, 40, 2, eos_id=59, projection=20)
IMAGE = CLIPImageConfig(
    image_size=16, patch_size=4, width=32, heads=4, feed_forward=48, layers=2, projection=20
)
TINY = CLIPConfig(IMAGE, TEXT)
RESNET = CLIPConfig(ModifiedResNetConfig(32, 3, (1, 1, 1, 1), 4, 4, 20), TEXT)


def images(config, count=2):
    shape = (count, config.image_size, config.image_size, config.channels)
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def input_ids(*ends):
    ids = np.random.default_rng(1).integers(1, 58, (len(ends), 11))
    for row, end in zip(ids, ends, strict=True):
        row[end:] = 0
        row[end] = 59
    return jnp.asarray(ids)


@pytest.fixture(scope="module")
def tiny():
    model = jf.CLIP(TINY)
    variables = model.init(jax.random.key(0), images(TINY, 1), input_ids(3))
    return model, variables


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", ["vit_b32", "rn50", "siglip_b16", *sorted(PARAMETERS)])
def test_sizes_have_the_published_number_of_parameters_all_with_a_sharding_row(name):
    config = getattr(CLIPConfig, name)()
    inputs = (
        jnp.zeros((1, config.image_size, config.image_size, 3)),
        jnp.zeros((1, config.text.context_length), jnp.int32),
    )
    variables = jax.eval_shape(jf.CLIP(config).init, jax.random.key(0), *inputs)
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])]
    assert sum(sizes) == PARAMETERS[name]
    rows = describe_parameters(variables["params"], {"data": 1, "fsdp": 2, "tensor": 2})
    assert len(rows) == len(sizes)


def test_outputs_are_unit_vectors_and_scaled_cosines(tiny):
    model, variables = tiny
    pixels, ids = images(TINY), input_ids(3, 7, 10)
    output = model.apply(variables, pixels, ids)
    assert output.logits_per_image.shape == (2, 3) and output.logits_per_text.shape == (3, 2)
    image = model.apply(variables, pixels, method="encode_image")
    text = model.apply(variables, ids, method="encode_text")
    for embeds, encoded in ((output.image_embeds, image), (output.text_embeds, text)):
        lengths = np.linalg.norm(encoded, axis=1, keepdims=True)
        assert np.all(np.abs(lengths - 1) > 1e-3)  # the encoders do not normalise
        np.testing.assert_allclose(embeds, encoded / lengths, atol=1e-6)
    scores = np.asarray(output.image_embeds) @ np.asarray(output.text_embeds).T / 0.07
    np.testing.assert_allclose(output.logits_per_image, scores, rtol=1e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("pooling", ["eos", "highest_id"])
def test_what_follows_the_end_of_a_text_does_not_count(tiny, pooling):
    _, variables = tiny
    tower = CLIPTextTower(replace(TEXT, pooling=pooling))
    text = {"params": variables["params"]["text"]}
    ids = input_ids(3, 7)
    embeds = tower.apply(text, ids).text_embeds
    padded = ids.at[0, 4:].set(59).at[1, 8:].set(7)
    np.testing.assert_allclose(tower.apply(text, padded).text_embeds, embeds, atol=1e-6)
    np.testing.assert_allclose(tower.apply(text, ids[:, :8]).text_embeds, embeds, atol=1e-5)
    changed = ids.at[:, 2].set(5)
    assert np.abs(tower.apply(text, changed).text_embeds - embeds).max() > 1e-3


def test_pixels_that_fill_no_patch_have_no_effect(tiny):
    model, variables = tiny
    larger = jf.CLIP(replace(TINY, image=replace(IMAGE, image_size=19)))
    assert larger.config.image.grid == 4 and larger.config.image.tokens == 17
    pixels = images(larger.config)
    embeds = larger.apply(variables, pixels, method="encode_image")
    expected = model.apply(variables, pixels[:, :16, :16], method="encode_image")
    np.testing.assert_array_equal(embeds, expected)


@pytest.mark.slow
def test_the_resnet_updates_its_statistics_in_training_only():
    model, pixels = jf.CLIP(RESNET), images(RESNET)
    variables = model.init(jax.random.key(0), pixels, input_ids(3))
    embeds, updates = model.apply(
        variables, pixels, train=True, method="encode_image", mutable=["batch_stats"]
    )
    assert embeds.shape == (2, 20)
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()),
        updates["batch_stats"],
        variables["batch_stats"],
    )
    assert min(jax.tree.leaves(moved)) > 0
    again = model.apply(variables, pixels, method="encode_image")
    np.testing.assert_array_equal(again, model.apply(variables, pixels, method="encode_image"))


@pytest.mark.slow
def test_initial_weights_have_openais_deviations():
    image = replace(IMAGE, width=64, feed_forward=256)
    text = replace(TEXT, width=96, heads=4, feed_forward=384, layers=3)
    model = jf.CLIP(CLIPConfig(image, text))
    variables = model.init(jax.random.key(0), images(TINY, 1), input_ids(3))
    params = variables["params"]
    block = params["text"]["encoder"]["blocks"]
    residual = 96**-0.5 * 6**-0.5
    for kernel, std in (
        (block["self_attention"]["query"]["kernel"], 96**-0.5),
        (block["self_attention"]["out"]["kernel"], residual),
        (block["feed_forward"]["up"]["kernel"], 192**-0.5),
        (block["feed_forward"]["down"]["kernel"], residual),
        (params["text"]["projection"]["kernel"], 96**-0.5),
        (params["text"]["token_embedding"]["table"], 0.02),
        (params["text"]["position_embedding"]["table"], 0.01),
        (params["image"]["projection"]["kernel"], 64**-0.5),
        (params["image"]["position_embedding"]["table"], 64**-0.5),
    ):
        assert np.std(kernel) == pytest.approx(std, rel=0.08)
    block = params["image"]["encoder"]["blocks"]
    # Uniform distributions of PyTorch: the largest value is near the limit.
    for kernel, limit in (
        (block["self_attention"]["query"]["kernel"], (6 / (4 * 64)) ** 0.5),
        (block["self_attention"]["out"]["kernel"], 64**-0.5),
        (block["feed_forward"]["down"]["kernel"], 256**-0.5),
        (block["feed_forward"]["up"]["bias"], 64**-0.5),
        (params["image"]["patch_embedding"]["kernel"], 48**-0.5),
    ):
        assert 0.95 * limit < np.abs(kernel).max() <= limit
    assert not np.any(block["self_attention"]["query"]["bias"])
    assert params["logit_scale"] == pytest.approx(math.log(1 / 0.07))


@pytest.mark.slow
def test_patch_dropout_leaves_out_patches_in_training_only(tiny):
    model, variables = tiny
    dropped = jf.CLIP(replace(TINY, image=replace(IMAGE, patch_dropout=0.75)))
    pixels = images(TINY)
    embeds = model.apply(variables, pixels, method="encode_image")
    np.testing.assert_array_equal(dropped.apply(variables, pixels, method="encode_image"), embeds)

    def train(key):
        rngs = {"dropout": jax.random.key(key)}
        return dropped.apply(variables, pixels, train=True, method="encode_image", rngs=rngs)

    assert np.abs(train(0) - embeds).max() > 1e-3 and np.abs(train(0) - train(1)).max() > 1e-3
    shape = jax.eval_shape(
        lambda: dropped.bind(variables, rngs={"dropout": jax.random.key(0)}).image.embed(
            pixels, train=True
        )
    )
    assert shape.shape == (2, 1 + 4, 32)  # the class token and a quarter of 16 patches


def test_a_batch_may_lie_on_a_mesh(tiny):
    model, variables = tiny
    pixels, ids = images(TINY, 8), input_ids(*(3 + i % 7 for i in range(8)))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    expected = model.apply(variables, pixels, ids)
    sharded = jax.jit(model.apply)(variables, *jax.device_put((pixels, ids), rows))
    np.testing.assert_allclose(sharded.logits_per_image, expected.logits_per_image, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 5), int)), "16, 16, 3"),
        ((jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 12), int)), "up to 11 tokens"),
    ],
)
def test_inputs_of_another_shape_are_refused(tiny, inputs, message):
    with pytest.raises(DataError, match=message):
        tiny[0].apply(tiny[1], *inputs)


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="20 dimensions and the text tower in 24"):
        CLIPConfig(IMAGE, replace(TEXT, projection=24))
    with pytest.raises(ConfigError, match="3 pixels hold no patch of 4"):
        replace(IMAGE, image_size=3)
    with pytest.raises(ConfigError, match="four stages"):
        ModifiedResNetConfig(depths=(1, 2, 3))
    with pytest.raises(ConfigError, match="eos_id 60"):
        replace(TEXT, pooling="eos", eos_id=60)
