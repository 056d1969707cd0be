"""FLOPs from the jaxpr, against closed formulas and against XLA's count of unrolled programs."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from jaxformers.costs import count_flops, measure_flops, model_flops


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def xla_flops(fn, *args):
    return jax.jit(fn).lower(*args).compile().cost_analysis()["flops"]


SQUARE = 2 * 8**3  # FLOPs of a product of two 8 x 8 matrices


def test_a_matrix_product_is_two_m_n_k():
    assert count_flops(jnp.matmul, array(64, 128), array(128, 32)) == 2 * 64 * 128 * 32


def test_a_batched_product_counts_every_batch():
    flops = count_flops(
        lambda q, k: jnp.einsum("BTHK,BSHK->BHTS", q, k), array(2, 5, 3, 4), array(2, 7, 3, 4)
    )
    assert flops == 2 * 2 * 3 * 5 * 7 * 4


def test_arguments_may_be_arrays_structs_and_trees():
    params = {"w": array(8, 8)}
    assert count_flops(lambda p, x: x @ p["w"], params, jnp.ones((8, 8))) == SQUARE


def scanned(weights, x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0].sum()


def unrolled(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return x.sum()


WEIGHTS, X = array(6, 64, 64), array(32, 64)
LAYERS = tuple(array(64, 64) for _ in range(6))
FORWARD = 6 * 2 * 32 * 64 * 64


def test_a_scan_counts_its_body_once_a_turn():
    assert count_flops(scanned, WEIGHTS, X) == FORWARD


def test_a_gradient_of_a_scan_costs_twice_its_forward_more():
    assert count_flops(jax.grad(scanned, (0, 1)), WEIGHTS, X) == 3 * FORWARD


def test_rematerialisation_costs_the_forward_once_more():
    body = jax.checkpoint(lambda h, w: (jnp.tanh(h @ w) @ w, None))

    def run(weights, x):
        return lax.scan(body, x, weights)[0].sum()

    plain = 2 * FORWARD * 3
    # The last product of the block is not needed again to differentiate it.
    assert count_flops(jax.grad(run, (0, 1)), WEIGHTS, X) == plain + FORWARD


@pytest.mark.parametrize("transform", [lambda f: f, jax.grad, jax.value_and_grad])
def test_totals_are_within_two_percent_of_xla_for_unrolled_programs(transform):
    ours = count_flops(transform(unrolled), LAYERS, X, elementwise=True)
    assert ours == pytest.approx(xla_flops(transform(unrolled), LAYERS, X), rel=0.02)


def test_a_scan_is_within_two_percent_of_xla_for_the_unrolled_program():
    ours = count_flops(jax.grad(scanned, (0, 1)), WEIGHTS, X, elementwise=True)
    assert ours == pytest.approx(xla_flops(jax.grad(unrolled, (0, 1)), LAYERS, X), rel=0.02)


CONVOLUTIONS = {
    "plain": dict(window_strides=(1, 1), padding="VALID"),
    "padded": dict(window_strides=(1, 1), padding="SAME"),
    "strided": dict(window_strides=(2, 2), padding="SAME"),
    "dilated": dict(window_strides=(1, 1), padding="SAME", rhs_dilation=(2, 2)),
    "grouped": dict(window_strides=(1, 1), padding="SAME", feature_group_count=4),
    "transposed": dict(window_strides=(1, 1), padding=[(1, 1)] * 2, lhs_dilation=(2, 2)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_and_their_gradients_are_counted_as_xla_does(kind):
    options = CONVOLUTIONS[kind]
    groups = options.get("feature_group_count", 1)

    def run(kernel, image):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(image, kernel, dimension_numbers=numbers, **options).sum()

    args = array(3, 3, 8 // groups, 16), array(2, 14, 14, 8)
    for fn in (run, jax.grad(run, (0, 1))):
        assert count_flops(fn, *args) == pytest.approx(xla_flops(fn, *args), rel=0.03)


def test_a_convolution_without_padding_has_the_closed_formula():
    def run(kernel, image):
        return lax.conv_general_dilated(
            image, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    flops = count_flops(run, array(4, 4, 3, 16), array(2, 16, 16, 3))
    assert flops == 2 * (2 * 4 * 4) * (4 * 4 * 3) * 16


def test_a_while_loop_that_counts_to_a_constant_counts_its_turns():
    def run(x):
        return lax.while_loop(lambda c: c[0] < 7, lambda c: (c[0] + 2, c[1] @ c[1]), (0, x))[1]

    assert count_flops(run, array(8, 8)) == 4 * SQUARE
    assert count_flops(lambda x: lax.fori_loop(0, 5, lambda _, c: c @ c, x), array(8, 8)) == (
        5 * SQUARE
    )


def test_a_while_loop_of_unknown_length_counts_once_and_says_so():
    def run(x):
        return lax.while_loop(lambda c: c.sum() < 7, lambda c: c @ c, x)

    with pytest.warns(UserWarning, match="unknown length.*1,024"):
        assert count_flops(run, array(8, 8)) == SQUARE


def test_of_a_cond_the_dearest_branch_counts():
    def run(p, x):
        return lax.cond(p, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(run, array(dtype=bool), array(8, 8)) == 2 * SQUARE


def test_custom_derivatives_and_jit_are_looked_into():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    jvp = jax.custom_jvp(lambda x: x @ x)
    jvp.defjvp(lambda x, t: (x[0] @ x[0], x[0] @ t[0] + t[0] @ x[0]))
    x = array(8, 8)
    assert count_flops(square, x) == count_flops(jax.jit(jvp), x) == SQUARE
    assert count_flops(jax.value_and_grad(lambda x: square(x).sum()), x) == 3 * SQUARE


@pytest.mark.parametrize("axes", [{"data", "tensor"}, {"data"}])
def test_a_shard_map_counts_all_its_devices(axes):
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=auto)
    tensor = "tensor" if "tensor" in axes else None
    rows, columns = PartitionSpec("data"), PartitionSpec(None, tensor)
    run = jax.shard_map(
        lambda x, w: x @ w,
        mesh=mesh,
        in_specs=(rows, columns),
        out_specs=PartitionSpec("data", tensor),
        axis_names=axes,
    )
    assert count_flops(run, array(8, 16), array(16, 32)) == 2 * 8 * 16 * 32


def test_what_does_not_reach_the_result_is_not_counted():
    def run(x):
        x @ x
        return x + 1

    assert count_flops(run, array(8, 8)) == 0


def test_elementwise_operations_on_integers_are_no_flops():
    assert count_flops(lambda x: x + x, array(8, dtype=jnp.bfloat16), elementwise=True) == 8
    assert count_flops(lambda x: x + x, array(8, dtype=jnp.int32), elementwise=True) == 0


def test_the_count_is_split_by_primitive():
    count = measure_flops(lambda x: jnp.tanh(x @ x).sum(), array(8, 8))
    assert count.by_primitive == {"dot_general": SQUARE, "tanh": 64, "reduce_sum": 63}
    assert count.total == SQUARE + 127
    assert model_flops(lambda x: jnp.tanh(x @ x).sum(), array(8, 8)) == SQUARE


def test_an_encoder_layer_has_the_closed_formula():
    """Attention and feed-forward of one layer: 8 B L D^2 + 4 B L^2 D + 4 B L D F."""
    b, length, d, heads, f = 2, 16, 32, 4, 64

    def layer(p, x):
        q, k, v = ((x @ p[name]).reshape(b, length, heads, d // heads) for name in ("q", "k", "v"))
        probs = jax.nn.softmax(jnp.einsum("BTHK,BSHK->BHTS", q, k))
        x = x + jnp.einsum("BHTS,BSHK->BTHK", probs, v).reshape(b, length, d) @ p["o"]
        return x + jax.nn.relu(x @ p["wi"]) @ p["wo"]

    params = {name: array(d, d) for name in "qkvo"} | {"wi": array(d, f), "wo": array(f, d)}
    forward = 8 * b * length * d * d + 4 * b * length**2 * d + 4 * b * length * d * f
    x = array(b, length, d)
    assert model_flops(layer, params, x) == forward
    gradient = jax.grad(lambda p, x: layer(p, x).sum(), (0, 1))
    # The last product of the layer is not needed for the gradient of a plain sum.
    assert model_flops(gradient, params, x) == 3 * forward - 2 * b * length * d * f
