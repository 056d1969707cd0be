"""Blocks and stacks: norms before or after, dropout of their own, one layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.errors import ConfigError
from jaxformers.layers import (
    BlockConfig,
    DecoderBlock,
    EncoderBlock,
    EncoderStack,
    FeedForward,
    Mask,
    Norm,
    activate,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 12)).astype(np.float32)
CONFIG = dict(width=12, heads=3, feed_forward=20, activation="gelu")


def randomized(variables):
    return jax.tree.map(lambda x: 0.3 * RNG.standard_normal(x.shape).astype(np.float32), variables)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_a_block_norms_before_or_after_each_sublayer(position):
    config = BlockConfig(**CONFIG, norm_position=position)
    block = EncoderBlock(config)
    variables = randomized(block.init(jax.random.key(0), X))
    params = variables["params"]

    def norm(name, x):
        return Norm(epsilon=1e-6).apply({"params": params[name]}, x)

    def attention(x):
        bound = block.bind(variables)
        return bound.self_attention(x)

    def feed_forward(x):
        return FeedForward(config).apply({"params": params["feed_forward"]}, x)

    if position == "pre":
        y = X + attention(norm("self_attention_norm", X))
        expected = y + feed_forward(norm("feed_forward_norm", y))
    else:
        y = norm("self_attention_norm", X + attention(X))
        expected = norm("feed_forward_norm", y + feed_forward(y))
    np.testing.assert_allclose(block.apply(variables, X), expected, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_the_feed_forward_layer_is_its_formula(gated):
    layer = FeedForward(BlockConfig(**CONFIG, gated=gated))
    variables = randomized(layer.init(jax.random.key(0), X))
    p, x = variables["params"], X.reshape(-1, 12)
    up = x @ p["up"]["kernel"] + p["up"]["bias"][None]
    hidden = activate(up, "gelu")
    if gated:
        hidden = activate(x @ p["gate"]["kernel"] + p["gate"]["bias"][None], "gelu") * up
    expected = hidden @ p["down"]["kernel"] + p["down"]["bias"][None]
    np.testing.assert_allclose(layer.apply(variables, X).reshape(-1, 12), expected, atol=1e-5)


def test_a_stack_is_its_blocks_in_turn():
    config = BlockConfig(**CONFIG)
    stack = EncoderStack(config, 3, final_norm=True)
    variables = randomized(stack.init(jax.random.key(0), X))
    mask = Mask(keys=np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool))
    y = X
    for i in range(3):
        layer = jax.tree.map(lambda x, i=i: x[i], variables["params"]["blocks"])
        y = EncoderBlock(config).apply({"params": layer}, y, mask)
    y = Norm().apply({"params": variables["params"]["norm"]}, y)
    np.testing.assert_allclose(stack.apply(variables, X, mask), y, atol=1e-5)


def test_each_layer_of_a_stack_starts_from_its_own_draw():
    variables = EncoderStack(BlockConfig(**CONFIG), 3).init(jax.random.key(0), X)
    kernel = variables["params"]["blocks"]["feed_forward"]["up"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


@pytest.mark.slow
def test_each_layer_and_sublayer_drops_entries_of_its_own():
    # With all weights zero and biases one, pre-norm layers add dropped ones to x.
    config = BlockConfig(**CONFIG, norm_position="pre", dropout=0.5)
    stack = EncoderStack(config, 4)
    variables = jax.tree.map(jnp.zeros_like, stack.init(jax.random.key(0), X))
    blocks = variables["params"]["blocks"]
    blocks["feed_forward"]["down"]["bias"] = jnp.ones((4, 12))
    blocks["self_attention"]["out"]["bias"] = 100 * jnp.ones((4, 12))
    rngs = {"dropout": jax.random.key(3)}
    x = jnp.zeros((64, 5, 12))
    _, collections = stack.apply(variables, x, train=True, rngs=rngs, mutable=["blocks"])
    outputs = np.asarray(collections["blocks"]["blocks"]["output"])
    added = np.diff(np.concatenate([np.zeros((1, 64, 5, 12)), outputs]), axis=0)
    masks = [added[i] % 200 > 1 for i in range(4)] + [added[i] >= 100 for i in range(4)]
    for i, mask in enumerate(masks):
        assert mask.mean() == pytest.approx(0.5, abs=0.03)
        for earlier in masks[:i]:
            assert (mask == earlier).mean() == pytest.approx(0.5, abs=0.04)


def test_a_decoder_block_attends_to_its_memory():
    block = DecoderBlock(BlockConfig(**CONFIG))
    memory = RNG.standard_normal((2, 7, 12)).astype(np.float32)
    variables = randomized(block.init(jax.random.key(0), X, memory))
    output = block.apply(variables, X, memory, Mask(causal=True))
    changed_output = block.apply(variables, X, memory + 1, Mask(causal=True))
    assert output.shape == X.shape and np.abs(output - changed_output).max() > 1e-3


def test_a_block_works_without_a_mesh_and_takes_numpy():
    block = EncoderBlock(BlockConfig(**CONFIG))
    variables = jax.device_get(block.init(jax.random.key(0), X))
    assert block.apply(variables, X).shape == X.shape


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="5 heads do not divide a width of 12"):
        BlockConfig(12, 5, 20)
    assert BlockConfig(12, 5, 20, head_width=4).width_of_head == 4


def test_examples_skip_sublayers_more_often_the_deeper_they_are():
    # With all weights zero, each sub-layer adds its bias, scaled up where it is not skipped.
    config = BlockConfig(**CONFIG, norm_position="pre", drop_path=0.6)
    stack, examples = EncoderStack(config, 4), 2000
    variables = jax.tree.map(jnp.zeros_like, stack.init(jax.random.key(0), X))
    blocks = variables["params"]["blocks"]
    blocks["feed_forward"]["down"]["bias"] = jnp.ones((4, 12))
    blocks["self_attention"]["out"]["bias"] = 100 * jnp.ones((4, 12))
    x, rngs = jnp.zeros((examples, 2, 12)), {"dropout": jax.random.key(3)}
    _, collections = stack.apply(variables, x, train=True, rngs=rngs, mutable=["blocks"])
    outputs = np.asarray(collections["blocks"]["blocks"]["output"])
    added = np.diff(np.concatenate([np.zeros((1, *x.shape)), outputs]), axis=0)
    assert (added == added[:, :, :1, :1]).all()  # an example's tokens share one fate
    added = added[:, :, 0, 0]
    for layer, rate in enumerate((0.0, 0.2, 0.4, 0.6)):
        scale = 1 / (1 - rate)
        attended = added[layer] >= 99
        fed = (added[layer] - 100 * scale * attended) > 0.5
        for mask in (attended, fed):
            assert mask.mean() == pytest.approx(1 - rate, abs=0.04)
        assert (attended & fed).mean() == pytest.approx((1 - rate) ** 2, abs=0.04)
        np.testing.assert_allclose(added[layer], scale * (100.0 * attended + fed), rtol=1e-4)


def test_without_drop_path_training_draws_nothing():
    stack = EncoderStack(BlockConfig(**CONFIG), 2)
    variables = stack.init(jax.random.key(0), X)
    rngs = {"dropout": jax.random.key(0)}
    jaxpr = jax.make_jaxpr(lambda x: stack.apply(variables, x, train=True, rngs=rngs))(X)
    assert "random_bits" not in str(jaxpr)


PADDED = Mask(keys=np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool))


def test_a_causal_encoder_stack_sees_nothing_of_what_comes_later():
    stack = EncoderStack(BlockConfig(**CONFIG), 2)
    variables = randomized(stack.init(jax.random.key(0), X))
    changed = X.copy()
    changed[:, 3:] += 5
    ours = [stack.apply(variables, x, Mask(causal=True)) for x in (X, changed)]
    np.testing.assert_allclose(ours[0][:, :3], ours[1][:, :3], atol=1e-6)
    assert np.abs(ours[0][:, 3:] - ours[1][:, 3:]).max() > 1e-3
