"""Blocks and stacks: norms before or after, dropout of their own, one layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.costs import model_flops
from jaxformers.errors import ConfigError
from jaxformers.layers import (
    BlockConfig,
    DecoderBlock,
    EncoderBlock,
    EncoderStack,
    Execution,
    FeedForward,
    Mask,
    Norm,
    activate,
    pieces,
)
from jaxformers.sharding import MeshConfig, make_mesh

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
    parts = variables["params"]

    def norm(name, x):
        return Norm(epsilon=1e-6).apply({"params": parts[name]}, x)

    def attention(x):
        bound = block.bind(variables)
        return bound.self_attention(x)

    def feed_forward(x):
        return FeedForward(config).apply({"params": parts["feed_forward"]}, x)

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


def many(examples):
    """So many examples of 5 tokens, and masks of several kinds."""
    rng = np.random.default_rng(1)
    keys = np.arange(5) < rng.integers(1, 6, (examples, 1))
    segments = rng.integers(0, 2, (examples, 5))
    masks = dict(
        none=None,
        keys=Mask(keys=keys),
        segments=Mask(query_segments=segments, key_segments=segments, causal=True),
        one_for_all=Mask(dense=rng.random((1, 1, 5, 5)) < 0.7),
        of_heads=Mask(dense=rng.random((examples, 3, 5, 5)) < 0.7),
    )
    return rng.standard_normal((examples, 5, 12)).astype(np.float32), masks


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("none", None),
        ("none", 1),
        ("keys", None),
        ("keys", 1),
        ("segments", None),
        ("one_for_all", None),
        ("of_heads", None),
    ],
)
def test_examples_in_pieces_go_through_a_block_as_together(monkeypatch, kind, first):
    x, masks = many(6)
    mask = masks[kind]
    block = EncoderBlock(BlockConfig(**CONFIG))
    variables = randomized(block.init(jax.random.key(0), x))

    def run(variables, x):
        return block.apply(variables, x, mask, first=first)

    def slopes():
        return jax.grad(lambda *inputs: jnp.square(run(*inputs)).sum(), (0, 1))(variables, x)

    whole, whole_slopes, flops = run(variables, x), slopes(), model_flops(run, variables, x)
    monkeypatch.setattr(pieces, "LARGE", 4 * 4 * 6 * 5 * 12 - 1)
    monkeypatch.setattr(pieces, "ROWS", 10)  # two examples
    jax.clear_caches()  # `run` was traced before
    assert "scan[" in str(jax.make_jaxpr(run)(variables, x))
    np.testing.assert_allclose(run(variables, x), whole, rtol=1e-5, atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (whole_slopes, slopes())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert model_flops(run, variables, x) == flops


def test_what_trains_is_asked_for_or_small_is_not_cut(monkeypatch):
    x, _ = many(6)
    stack = EncoderStack(BlockConfig(**CONFIG), 2)
    variables = randomized(stack.init(jax.random.key(0), x))

    block = EncoderBlock(BlockConfig(**CONFIG))
    alone = {"params": jax.tree.map(lambda p: p[0], variables["params"]["blocks"])}

    def cut(variables=variables, module=stack, **how):
        jax.clear_caches()
        run = jax.make_jaxpr(lambda x: module.apply(variables, x, **how))(x)
        return "length=3\n" in str(run)

    monkeypatch.setattr(pieces, "ROWS", 10)
    assert not cut()
    monkeypatch.setattr(pieces, "LARGE", 4 * 4 * 6 * 5 * 12)
    assert not cut()
    monkeypatch.setattr(pieces, "LARGE", 4 * 4 * 6 * 5 * 12 - 1)
    assert cut() and not cut(train=True)
    assert not cut(mutable=["probs"]) and not cut(mutable=["blocks"])
    assert cut(alone, block)
    assert not cut(alone, block, mutable=["intermediates"], capture_intermediates=True)
    _, shown = stack.apply(variables, x, mutable=["probs"])
    assert not cut({**variables, "perturb": jax.tree.map(jnp.zeros_like, shown["probs"])})
    assert "length=3\n" not in str(jax.make_jaxpr(stack.init)(jax.random.key(0), x))
    with jax.set_mesh(make_mesh(MeshConfig(1, 3, 1), jax.devices()[:3])):
        assert not cut()


@pytest.mark.parametrize(
    ("examples", "length", "some"),
    [(8, 512, 2), (6, 512, 2), (7, 512, 7), (9, 512, 3), (4, 2048, 1), (1, 8192, 1), (16, 128, 8)],
)
def test_a_piece_is_the_fewest_examples_of_enough_tokens(monkeypatch, examples, length, some):
    monkeypatch.setattr(pieces, "LARGE", 4 * 4 * 1500 * 768)
    assert pieces.examples_at_once(examples, length, 768) == some
    assert pieces.examples_at_once(examples, length, 1) == examples


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
    made = EncoderStack(BlockConfig(**CONFIG), 3).init(jax.random.key(0), X)
    kernel = made["params"]["blocks"]["feed_forward"]["up"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


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
    _, found = stack.apply(variables, x, train=True, rngs=rngs, mutable=["blocks"])
    outputs = np.asarray(found["blocks"]["blocks"]["output"])
    added = np.diff(np.concatenate([np.zeros((1, 64, 5, 12)), outputs]), axis=0)
    kept = [added[i] % 200 > 1 for i in range(4)] + [added[i] >= 100 for i in range(4)]
    for i, one in enumerate(kept):
        assert one.mean() == pytest.approx(0.5, abs=0.03)
        for other in kept[:i]:
            assert (one == other).mean() == pytest.approx(0.5, abs=0.04)


def test_a_decoder_block_attends_to_its_memory():
    block = DecoderBlock(BlockConfig(**CONFIG))
    memory = RNG.standard_normal((2, 7, 12)).astype(np.float32)
    variables = randomized(block.init(jax.random.key(0), X, memory))
    one = block.apply(variables, X, memory, Mask(causal=True))
    other = block.apply(variables, X, memory + 1, Mask(causal=True))
    assert one.shape == X.shape and np.abs(one - other).max() > 1e-3


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
    _, found = stack.apply(variables, x, train=True, rngs=rngs, mutable=["blocks"])
    outputs = np.asarray(found["blocks"]["blocks"]["output"])
    added = np.diff(np.concatenate([np.zeros((1, *x.shape)), outputs]), axis=0)
    assert (added == added[:, :, :1, :1]).all()  # an example's tokens share one fate
    added = added[:, :, 0, 0]
    for layer, rate in enumerate((0.0, 0.2, 0.4, 0.6)):
        scale = 1 / (1 - rate)
        attended = added[layer] >= 99
        fed = (added[layer] - 100 * scale * attended) > 0.5
        for kept in (attended, fed):
            assert kept.mean() == pytest.approx(1 - rate, abs=0.04)
        assert (attended & fed).mean() == pytest.approx((1 - rate) ** 2, abs=0.04)
        np.testing.assert_allclose(added[layer], scale * (100.0 * attended + fed), rtol=1e-4)


def test_without_drop_path_training_draws_nothing():
    stack = EncoderStack(BlockConfig(**CONFIG), 2)
    variables = stack.init(jax.random.key(0), X)
    rngs = {"dropout": jax.random.key(0)}
    run = jax.make_jaxpr(lambda x: stack.apply(variables, x, train=True, rngs=rngs))(X)
    assert "random_bits" not in str(run)


PADDED = Mask(keys=np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], bool))


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["whole", "padded"])
def test_leading_tokens_alone_are_those_of_the_whole_stack(position, mask):
    stack = EncoderStack(BlockConfig(**CONFIG, norm_position=position), 3, final_norm=True)
    variables = randomized(stack.init(jax.random.key(0), X))
    weights = RNG.standard_normal((2, 2, 12)).astype(np.float32)

    def total(variables, first):
        y = stack.apply(variables, X, mask, first=first)[:, :2]
        return (y * weights).sum(), y

    whole, alone = (jax.grad(total, has_aux=True)(variables, first) for first in (None, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), alone, whole)


def test_leading_tokens_alone_spare_the_last_block_the_others():
    stack = EncoderStack(BlockConfig(**CONFIG), 3)
    variables = stack.init(jax.random.key(0), X)

    def flops(first, **options):
        return model_flops(lambda v, x: stack.apply(v, x, first=first, **options), variables, X)

    # Per token: query and output 12 x 12 each, two of 12 x 20, attention twice 5 x 12.
    spared = 2 * 2 * 4 * (2 * 12 * 12 + 2 * 12 * 20 + 2 * 5 * 12)
    assert flops(None) - flops(1) == spared
    assert flops(1, mutable=["blocks"]) == flops(None)
    assert flops(1, mutable=["probs"]) == flops(None)


def test_what_is_inside_is_shown_whole_though_leading_tokens_are_asked_for():
    stack = EncoderStack(BlockConfig(**CONFIG), 3)
    variables = stack.init(jax.random.key(0), X)
    y, found = stack.apply(variables, X, first=1, mutable=["blocks", "probs"])
    assert y.shape == (2, 1, 12) and found["blocks"]["blocks"]["output"].shape == (3, 2, 5, 12)
    probs = found["probs"]["blocks"]["self_attention"]["probs"]
    assert probs.shape == (3, 2, 3, 5, 5)
    perturbed = {**variables, "perturb": jax.tree.map(np.ones_like, found["probs"])}
    moved = stack.apply(perturbed, X, first=1)
    np.testing.assert_allclose(moved, stack.apply(perturbed, X)[:, :1], atol=1e-6)
    assert np.abs(moved - y).max() > 1e-3


@pytest.mark.parametrize(
    ("execution", "mask"),
    [
        (Execution(target="tpu"), None),
        (Execution(remat="full"), None),
        (Execution(), Mask(causal=True)),
        (Execution(), Mask(query_segments=X[..., 0] > 0, key_segments=X[..., 0] > 0)),
    ],
    ids=["rolled", "remat", "causal", "segments"],
)
def test_leading_tokens_are_cut_off_at_the_end_where_the_last_block_cannot_stand_apart(
    execution, mask
):
    stack = EncoderStack(BlockConfig(**CONFIG), 3, execution=execution)
    variables = randomized(stack.init(jax.random.key(0), X))
    whole, alone = (stack.apply(variables, X, mask, first=first) for first in (None, 2))
    np.testing.assert_allclose(alone, whole[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    "field", ["dropout", "attention_dropout", "activation_dropout", "drop_path"]
)
def test_leading_tokens_draw_as_the_whole_stack_does(field):
    stack = EncoderStack(BlockConfig(**CONFIG, **{field: 0.5}), 3)
    variables = randomized(stack.init(jax.random.key(0), X))
    options = dict(train=True, rngs={"dropout": jax.random.key(3)})
    whole, alone = (stack.apply(variables, X, first=first, **options) for first in (None, 1))
    np.testing.assert_allclose(alone, whole[:, :1], atol=1e-6)
    plain = stack.apply(variables, X, first=1)
    assert np.abs(plain - alone).max() > 1e-3
