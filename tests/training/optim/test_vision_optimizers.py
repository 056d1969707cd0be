"""SGD, LARS, layer-wise decay, frozen parameters and BiT's rule, against their formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxformers.errors import ConfigError
from jaxformers.training import Adam, Lars, Sgd, Steps, hyperrule
from jaxformers.training.optim.optimizers import scale_by_layer, transformation

RATE = 0.1


def params():
    rng = np.random.default_rng(0)
    arrays = {
        "patch_embedding": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)},
        "class_token": rng.normal(size=3),
        "position_embedding": {"table": rng.normal(size=(5, 3))},
        "encoder": {
            "blocks": {
                "up": {"kernel": rng.normal(size=(2, 3, 4)), "bias": rng.normal(size=(2, 4))}
            },
            "norm": {"scale": rng.normal(size=3)},
        },
        "head": {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)


def ones_like(tree):
    return jax.tree.map(jnp.ones_like, tree)


def updates(tx, grads, weights, times=1):
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(weights)
        for _ in range(times):
            out, state = tx.update(grads, state, weights)
    return out


def test_momentum_adds_up_gradients_and_decay_joins_them_before():
    weights, grads = params(), ones_like(params())
    update = updates(Sgd(weight_decay=0.01).build(lambda _: RATE), grads, weights, times=2)
    kernel = weights["head"]["kernel"]
    np.testing.assert_allclose(
        update["head"]["kernel"], -RATE * 1.9 * (1 + 0.01 * kernel), rtol=1e-5
    )
    np.testing.assert_allclose(update["head"]["bias"], -RATE * 1.9, rtol=1e-6)


def test_lars_scales_each_tensor_and_each_layer_to_its_weights_and_leaves_biases():
    weights, grads = params(), ones_like(params())
    update = updates(Lars(trust=0.01, weight_decay=0.1).build(lambda _: RATE), grads, weights)

    def expected(w):
        g = 1 + 0.1 * w
        return -RATE * 0.01 * np.linalg.norm(w) / np.linalg.norm(g) * g

    for layer in range(2):
        w = np.asarray(weights["encoder"]["blocks"]["up"]["kernel"][layer])
        got = update["encoder"]["blocks"]["up"]["kernel"][layer]
        np.testing.assert_allclose(got, expected(w), rtol=1e-5)
    np.testing.assert_allclose(update["head"]["bias"], -RATE)
    np.testing.assert_allclose(
        update["head"]["kernel"], expected(np.asarray(weights["head"]["kernel"])), rtol=1e-5
    )


def test_layers_below_learn_more_slowly():
    update = updates(scale_by_layer(0.5), ones_like(params()), params())
    assert float(update["head"]["kernel"][0, 0]) == 1.0
    assert float(update["encoder"]["norm"]["scale"][0]) == 1.0
    assert update["encoder"]["blocks"]["up"]["kernel"][:, 0, 0].tolist() == [0.25, 0.5]
    assert update["encoder"]["blocks"]["up"]["bias"][:, 0].tolist() == [0.25, 0.5]
    below = (
        update["patch_embedding"]["kernel"],
        update["class_token"],
        update["position_embedding"],
    )
    assert {float(x) for leaf in jax.tree.leaves(below) for x in leaf.ravel()} == {0.125}


def test_layer_decay_needs_one_stack():
    with pytest.raises(ConfigError, match="layer_decay needs one stack"):
        updates(scale_by_layer(0.5), {"head": jnp.ones(3)}, {"head": jnp.ones(3)})
    with pytest.raises(ConfigError, match="layer_decay is"):
        Adam(layer_decay=1.5).build(lambda _: RATE)


@pytest.mark.parametrize(
    ("decays", "token", "table"),
    [("kernels", False, False), ("matrices", False, True), ("weights", True, True)],
)
def test_tokens_and_tables_decay_as_the_rule_says(decays, token, table):
    weights = params()
    zeros = jax.tree.map(jnp.zeros_like, weights)
    tx = Adam(weight_decay=0.1, decays=decays).build(lambda _: RATE)
    update = updates(tx, zeros, weights)
    assert bool(jnp.any(update["class_token"] != 0)) == token
    assert bool(jnp.any(update["position_embedding"]["table"] != 0)) == table
    assert not np.any(update["encoder"]["blocks"]["up"]["bias"])  # [L, D], of one axis a layer
    np.testing.assert_allclose(
        update["head"]["kernel"], -RATE * 0.1 * weights["head"]["kernel"], rtol=1e-5
    )
    assert not np.any(update["head"]["bias"]) and not np.any(update["encoder"]["norm"]["scale"])


def test_frozen_parameters_stay_although_they_decay():
    weights = params()
    tx = transformation(Adam(weight_decay=0.1), lambda _: RATE, 1.0, (r"encoder/.*", "class_token"))
    new = optax.apply_updates(weights, updates(tx, ones_like(weights), weights))
    jax.tree.map(np.testing.assert_array_equal, new["encoder"], weights["encoder"])
    np.testing.assert_array_equal(new["class_token"], weights["class_token"])
    assert np.all(np.asarray(new["head"]["kernel"]) != np.asarray(weights["head"]["kernel"]))


def test_steps_fall_at_their_shares():
    rates = [
        float(Steps(1.0, 10, (0.4, 0.6, 0.8)).rate(n, 100)) for n in (0, 5, 10, 39, 40, 60, 80)
    ]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1, 0.1, 0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize(
    ("examples", "area", "expected"),
    [
        (3_680, 400 * 500, (512, 480, 500, 0.0)),
        (19_999, 32 * 32, (160, 128, 500, 0.0)),
        (50_000, 32 * 32, (160, 128, 10_000, 0.1)),
        (1_281_167, 400 * 500, (512, 480, 20_000, 0.1)),
    ],
)
def test_bits_rule_follows_the_size_of_the_data(examples, area, expected):
    rule = hyperrule(examples, area)
    assert (rule.resize, rule.crop, rule.steps, rule.mixup) == expected
    assert hyperrule(examples, area, 128).schedule.peak == pytest.approx(rule.schedule.peak / 4)
