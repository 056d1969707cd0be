"""NNX modules of every family compute what the Linen modules compute."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import jaxformers as jf
from jaxformers.errors import ConfigError
from jaxformers.layers import BlockConfig, EncoderBlock
from jaxformers.pretrained.registry import families

TINY = {"width": 16, "heads": 4, "feed_forward": 32}
CONFIGS = {
    "transformer": jf.TransformerConfig.base(50, **TINY, encoder_layers=2, decoder_layers=2),
    "bert": jf.BertConfig(vocab_size=50, **TINY, layers=2, max_length=8),
    "mae": jf.MAEConfig.base(
        8,
        image_size=24,
        **TINY,
        layers=2,
        decoder_width=16,
        decoder_layers=1,
        decoder_heads=4,
        decoder_feed_forward=32,
    ),
}
CASES = [(family, name) for family in families() for name in family.modules]


def inputs_of(family, config):
    """Random inputs of the smallest shapes that the family takes, two rows each."""
    rng = np.random.default_rng(0)
    shapes = [(2, *shape.shape[1:]) for shape in family.inputs(config)]
    shapes = [(2, max(7, shape[1])) if len(shape) == 2 else shape for shape in shapes]
    return [
        rng.integers(1, 20, shape) if len(shape) == 2 else rng.normal(size=shape).astype("float32")
        for shape in shapes
    ]


def total(outputs):
    """A scalar of all floating outputs, whose gradient reaches every used parameter."""
    leaves = [x for x in jax.tree.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("family", "name"), CASES, ids=[name for _, name in CASES])
def test_every_module_under_nnx_jit_and_grad_equals_linen(family, name):
    config = CONFIGS.get(family.name) or family.shrink(family.config())
    model, inputs = family.modules[name](config), inputs_of(family, config)
    if name == "mae":  # the noise that chooses the visible patches
        inputs += [np.random.default_rng(1).random((2, config.encoder.num_patches), np.float32)]
    variables = jax.jit(model.init)(jax.random.key(0), *inputs)
    constants = {key: value for key, value in variables.items() if key != "params"}

    @jax.jit
    def linen_step(params):
        return jax.value_and_grad(
            lambda params: total(model.apply({"params": params, **constants}, *inputs))
        )(params)

    @nnx.jit
    def nnx_step(module):
        return nnx.value_and_grad(lambda module: total(module(*inputs)))(module)

    value, gradients = linen_step(variables["params"])
    nnx_value, nnx_gradients = nnx_step(jf.to_nnx(model, variables))
    np.testing.assert_allclose(nnx_value, value, rtol=1e-6)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6),
        gradients,
        nnx.to_pure_dict(nnx_gradients),
    )


@pytest.mark.slow
def test_a_trained_nnx_module_comes_back_as_linen_variables(tmp_path):
    config = jf.BertConfig(
        vocab_size=50, width=16, heads=2, feed_forward=32, layers=2, max_length=8
    )
    model, ids = jf.BertForSequenceClassification(config), np.array([[2, 5, 6, 3], [2, 7, 3, 0]])
    variables = model.init(jax.random.key(0), ids)
    module = jf.to_nnx(model, variables, nnx.Rngs(dropout=0))
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer):
        def loss(module):
            return -jax.nn.log_softmax(module(ids, train=True))[
                jnp.arange(2), jnp.array([0, 1])
            ].sum()

        value, gradients = nnx.value_and_grad(loss)(module)
        optimizer.update(module, gradients)
        return value

    with jax.numpy_dtype_promotion("standard"):  # optax's update
        losses = [float(step(module, optimizer)) for _ in range(20)]
    assert losses[-1] < 0.2 * losses[0]
    again, trained = jf.from_nnx(module)
    assert again is model
    assert jax.tree.structure(trained) == jax.tree.structure(variables)
    jf.save_pretrained(again, trained, tmp_path / "trained")
    loaded = jf.from_pretrained(tmp_path / "trained")
    np.testing.assert_allclose(module(ids), loaded[0].apply(loaded[1], ids), atol=1e-6)


def test_running_statistics_are_updated_in_place():
    config = jf.ResNetConfig(stem="small", width=8, depths=(1,), image_size=8)
    model, images = jf.ResNet(config), np.random.default_rng(0).normal(size=(4, 8, 8, 3))
    images = images.astype("float32")
    variables = model.init(jax.random.key(0), images)
    _, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    module = jf.to_nnx(model, variables)
    module(images, train=True, mutable=["batch_stats"])
    jax.tree.map(
        np.testing.assert_allclose, jf.from_nnx(module)[1]["batch_stats"], updates["batch_stats"]
    )


def test_a_block_becomes_part_of_an_nnx_model_and_its_variables_may_come_later():
    class Model(nnx.Module):
        def __init__(self, rngs):
            block = EncoderBlock(BlockConfig(16, 4, 32))
            self.block = jf.to_nnx(block, rngs=rngs).lazy_init(jnp.ones((1, 3, 16)))
            self.head = nnx.Linear(16, 5, rngs=rngs)

        def __call__(self, x):
            return self.head(self.block(x))

    model = Model(nnx.Rngs(0))
    assert model(jnp.ones((2, 3, 16))).shape == (2, 3, 5)
    gradients = nnx.grad(lambda model: model(jnp.ones((2, 3, 16))).sum())(model)
    assert {"block", "head"} == set(nnx.to_pure_dict(gradients))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((optax.adam(0.1), None), "takes a Flax Linen module, not a GradientTransformation"),
        ((linen.Dense(3), {"kernel": np.ones((2, 3))}), 'no collection "params", but kernel'),
    ],
)
def test_what_is_no_linen_module_with_variables_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        jf.to_nnx(*arguments)


def test_from_nnx_refuses_modules_that_to_nnx_did_not_make():
    with pytest.raises(ConfigError, match="takes a result of to_nnx, not a Linear"):
        jf.from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
