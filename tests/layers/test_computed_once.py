"""What XLA for CPU would compute again in every use, and does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import Execution
from jaxformers.layers.cpu import computed_once
from jaxformers.models import ViT, ViTConfig

VALUES = np.array([1.5, -2.25e-38, 0.0, -0.0, np.inf, -np.inf, 3e38, -1.0], np.float32)


def test_it_is_its_argument_to_the_bit_and_so_is_its_gradient():
    output = jax.jit(computed_once, static_argnums=1)(VALUES, "cpu")
    np.testing.assert_array_equal(np.asarray(output).view(np.int32), VALUES.view(np.int32))
    assert np.isnan(computed_once(jnp.float32(np.nan), "cpu"))
    random = np.random.default_rng(0).integers(-(2**31), 2**31, 10_000).astype(np.int32)
    numbers = random.view(np.float32)
    numbers = numbers[np.isfinite(numbers) & (abs(numbers) > 1.2e-38)]  # XLA flushes smaller ones
    np.testing.assert_array_equal(computed_once(jnp.asarray(numbers), "cpu"), numbers)
    back = jax.vjp(lambda x: computed_once(x, "cpu"), jnp.asarray(VALUES))[1]
    np.testing.assert_array_equal(back(jnp.asarray(VALUES))[0], VALUES)


def test_a_number_and_an_empty_batch_are_themselves():
    assert computed_once(jnp.float32(-2.5), "cpu") == -2.5
    assert computed_once(jnp.zeros((0, 3)), "cpu").shape == (0, 3)


def test_its_divisor_is_one_number_but_where_devices_share_it():
    x = jax.ShapeDtypeStruct((6, 2), jnp.float32)

    def looks_at_all():
        """Whether every number of x is looked at for the divisor."""
        return "i32[6,2]" in str(jax.make_jaxpr(lambda x: computed_once(x, "cpu"))(x))

    assert not looks_at_all()
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert looks_at_all()


@pytest.mark.parametrize(("platform", "dtype"), [("tpu", "float32"), ("cpu", "bfloat16")])
def test_elsewhere_it_is_nothing(platform, dtype):
    x = jax.ShapeDtypeStruct((2,), dtype)
    assert not jax.make_jaxpr(lambda x: computed_once(x, platform))(x).eqns


def cost(layers: int, what: str) -> float:
    """Of a forward and a backward pass through so many blocks."""
    sizes = dict(image_size=16, patch_size=4, width=32, heads=4, feed_forward=64, classes=4)
    model, images = ViT(ViTConfig(layers=layers, **sizes), Execution()), jnp.ones((2, 16, 16, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    step = jax.grad(lambda variables: model.apply(variables, images, train=True).sum())
    return jax.jit(step).lower(variables).compile().cost_analysis()[what]


@pytest.mark.slow
def test_the_work_of_a_deep_stack_grows_with_its_depth_and_not_with_its_square():
    for what in ("flops", "bytes accessed"):
        two, six, ten = (cost(layers, what) for layers in (2, 6, 10))
        assert ten - six < 1.15 * (six - two), what
