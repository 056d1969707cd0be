"""The CPU forms: one switch turns them off, and they differentiate in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.layers import Execution, cpu_forms
from jaxformers.layers.convolution import convolve
from jaxformers.layers.linear import multiply

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 16, 16, 3)).astype(np.float32)
IDS = RNG.integers(1, 50, (2, 6)).astype(np.int32)
SIZES = dict(width=16, heads=2, feed_forward=24)
VIT = dict(image_size=16, patch_size=8, layers=2, **SIZES)
MODELS = {
    "vit": (jf.ViT(jf.ViTConfig(**VIT, classes=3)), (IMAGES,)),
    "bert": (
        jf.BertForSequenceClassification(
            jf.BertConfig(
                vocab_size=50, max_length=8, layers=2, dropout=0.0, attention_dropout=0.0, **SIZES
            )
        ),
        (IDS,),
    ),
    "resnet": (
        jf.ResNet(jf.ResNetConfig(image_size=16, classes=3, depths=(1, 1), width=32, stem="small")),
        (IMAGES,),
    ),
    "bit": (
        jf.BiT(jf.BiTConfig(image_size=16, classes=3, depths=(1, 1), width=32, groups=4)),
        (IMAGES,),
    ),
    "mae": (
        jf.MAE(
            jf.MAEConfig(
                jf.ViTConfig(**VIT, classes=0, positions="sincos2d_mae"),
                decoder_width=16,
                decoder_layers=1,
                decoder_heads=2,
                decoder_feed_forward=24,
            )
        ),
        (IMAGES, RNG.random((2, 4)).astype(np.float32)),
    ),
    "transformer": (
        jf.Transformer(
            jf.TransformerConfig(
                vocab_size=50,
                encoder_layers=1,
                decoder_layers=1,
                max_length=8,
                dropout=0.0,
                **SIZES,
            )
        ),
        (IDS, IDS),
    ),
}


def case(name):
    """Random variables of a small model, and a smooth scalar function of its parameters."""
    model, inputs = MODELS[name]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))
    variables = jax.tree.map(
        lambda x: 0.2 * RNG.standard_normal(x.shape).astype(np.float32) + 0.1, shapes
    )
    params, statistics = variables.pop("params"), jax.tree.map(np.abs, variables)

    def outputs(params):
        y, _ = model.apply(
            {"params": params, **statistics}, *inputs, train=True, mutable=["batch_stats"]
        )
        return y.prediction if name == "mae" else y

    return params, outputs


def total(outputs):
    def function(params):
        y = outputs(params)
        return jnp.sin(y).mean()

    return function


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["vit", "bert", "resnet", "transformer"])
def test_without_the_cpu_forms_a_model_has_the_same_outputs_and_gradients(name):
    params, outputs = case(name)

    def run():
        return jax.jit(lambda p: (outputs(p), jax.grad(total(outputs))(p)))(params)

    with_forms = run()
    with cpu_forms(False):
        without = run()
    # Relative to each array's largest entry: sums that cancel leave no relative precision.
    scale = max(np.abs(x).max() for x in jax.tree.leaves(without[1]))
    np.testing.assert_allclose(
        with_forms[0], without[0], rtol=1e-5, atol=1e-5 * np.abs(without[0]).max()
    )
    for a, b in zip(*map(jax.tree.leaves, (with_forms[1], without[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)


def test_the_switch_reaches_the_general_form():
    x, kernel = jnp.ones((2, 6, 8)), jnp.ones((8, 2, 4))

    def primitives():
        jaxpr = jax.make_jaxpr(lambda x, k: multiply(x, k, 1, "cpu"))(x, kernel)
        return [equation.primitive.name for equation in jaxpr.eqns]

    assert primitives() == ["reshape", "reshape", "dot_general", "reshape"]
    with cpu_forms(False):
        assert primitives() == ["dot_general"]
    assert primitives() == ["reshape", "reshape", "dot_general", "reshape"]


@pytest.mark.parametrize(
    ("channels", "form"), [(32, "custom_jvp_call"), (31, "conv_general_dilated")]
)
def test_convolutions_of_few_channels_keep_the_general_form(channels, form):
    x, kernel = jnp.ones((2, 6, 6, channels)), jnp.ones((3, 3, channels, 4))
    execution = Execution(target="cpu")
    jaxpr = jax.make_jaxpr(lambda x, k: convolve(x, k, execution=execution))(x, kernel)
    assert [equation.primitive.name for equation in jaxpr.eqns] == [form]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet", "bert", "bit", "mae", "transformer"])
def test_every_model_differentiates_forwards_and_twice(name):
    params, outputs = case(name)
    loss = total(outputs)
    direction = jax.tree.map(lambda x: RNG.standard_normal(x.shape).astype(np.float32), params)
    other_direction = jax.tree.map(
        lambda x: RNG.standard_normal(x.shape).astype(np.float32), params
    )

    @jax.jit
    def derivatives(params):
        gradient = jax.grad(loss)(params)
        forwards = jax.jvp(loss, (params,), (direction,))[1]
        linear = jax.linearize(loss, params)[1](direction)
        hessian_vector = jax.jvp(jax.grad(loss), (params,), (direction,))[1]
        other_hessian_vector = jax.jvp(jax.grad(loss), (params,), (other_direction,))[1]
        symmetric = dot(hessian_vector, other_direction), dot(other_hessian_vector, direction)

        def along(t):
            return loss(jax.tree.map(lambda p, d: p + t[0] * d, params, direction))

        zero = jnp.zeros(1)
        line = jax.jacfwd(along)(zero)[0], jax.hessian(along)(zero)[0, 0]
        return dot(gradient, direction), forwards, linear, symmetric, line, hessian_vector

    backwards, forwards, linear, (product, swapped), (slope, curvature), vector = derivatives(
        params
    )
    np.testing.assert_allclose([forwards, linear, slope], backwards, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(product, swapped, rtol=5e-3, atol=5e-3 * abs(curvature))
    np.testing.assert_allclose(dot(vector, direction), curvature, rtol=5e-3, atol=1e-3)
