"""The network of Unified-IO against the authors' code, its sizes and its masks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.errors import ConfigError, DataError
from jaxformers.models.unified_io import UnifiedIO, UnifiedIOConfig
from jaxformers.sharding.table import describe_parameters, shardings
from tests.fixtures import unified_io_cases as cases
from tests.helpers.unified_io import network

FIXTURES = Path(cases.__file__).parent
SIZES = {"small": 71_693_184, "base": 241_446_912, "large": 776_548_352, "xl": 2_849_161_216}


@pytest.fixture(scope="module")
def networks():
    return {name: network(name) for name in cases.CONFIGS}


@pytest.fixture(scope="module")
def golden():
    with np.load(FIXTURES / "unified_io.npz") as file:
        return dict(file)


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("case", sorted(cases.CASES))
def test_logits_equal_the_authors(case, networks, golden):
    model, variables = networks[cases.CASES[case][0]]
    inputs = cases.inputs(case)
    step = 5 if case == "long" else 1

    @jax.jit
    def run(variables, inputs):
        targets = ("target_ids", "target_mask", "target_codes")
        encoder = {key: value for key, value in inputs.items() if key not in targets}
        states = model.apply(variables, **encoder, method="encode")
        return states, model.apply(variables, **inputs)

    states, logits = run(variables, inputs)
    valid = np.ones(states.shape[:2], bool)
    if case in ("text", "image_to_text"):  # masked rows see what is absent here
        names = [n for n in ("input_mask", "image_mask") if n in inputs]
        valid = np.concatenate([inputs[n] for n in names], axis=1).astype(bool)
    expected = golden[f"{case}/states"]
    np.testing.assert_allclose(
        states[:, ::step][valid[:, ::step]], expected[valid[:, ::step]], atol=1e-4
    )
    for key in ("text_logits", "image_logits"):
        if f"{case}/{key}" not in golden:
            assert getattr(logits, key).shape[1] == 0
            continue
        ours, expected = getattr(logits, key)[:, ::step], golden[f"{case}/{key}"]
        assert ours.dtype == jnp.float32 and ours.shape == expected.shape
        rows = np.ones(ours.shape[:2], bool)
        if case in ("text", "image_to_text"):
            rows = inputs["target_mask"].astype(bool)
        np.testing.assert_allclose(ours[rows], expected[rows], atol=1e-4)
        assert np.abs(expected).max() > 1


@pytest.mark.parametrize("size", sorted(SIZES))
def test_sizes_have_the_published_counts_and_every_parameter_a_sharding_row(size):
    model = UnifiedIO(getattr(UnifiedIOConfig, size)())
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == SIZES[size]
    tensor = 2 if size == "small" else 4
    rows = describe_parameters(params, {"data": 2, "fsdp": 8, "tensor": tensor})
    assert len(rows) == len(jax.tree.leaves(params))


def test_the_cross_attention_bias_has_no_effect_and_the_self_attention_bias_has(networks):
    model, variables = networks["odd"]
    inputs = cases.inputs("both")
    apply = jax.jit(model.apply)
    before = apply(variables, **inputs).text_logits

    def perturbed(name):
        decoder = dict(variables["params"]["decoder"])
        decoder[name] = jax.tree.map(lambda x: x + 1, decoder[name])
        params = variables["params"] | {"decoder": decoder}
        return apply({"params": params}, **inputs).text_logits

    np.testing.assert_array_equal(before, perturbed("cross_position_bias"))
    assert np.abs(before - perturbed("self_position_bias")).max() > 0.1


def test_a_masked_image_is_as_if_absent(networks):
    model, variables = networks["odd"]
    inputs = cases.inputs("text")
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    apply = jax.jit(model.apply)
    masked = apply(variables, **inputs, images=images, image_mask=np.zeros((3, 16), np.int32))
    absent = apply(variables, **inputs)
    rows = inputs["target_mask"].astype(bool)
    np.testing.assert_allclose(masked.text_logits[rows], absent.text_logits[rows], atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(input_ids=None, images=None), "no input"),
        (dict(target_ids=None), "no target"),
        (dict(input_ids=np.zeros((2, 15), np.int32)), "input_ids of 15 tokens"),
        (dict(target_ids=np.zeros((2, 10), np.int32)), "target_ids of 10 tokens"),
        (dict(images=np.zeros((2, 10, 16, 3), np.float32)), "do not divide"),
        (dict(images=np.zeros((2, 8, 12, 3), np.float32)), "square"),
        (dict(images=np.zeros((2, 4, 47), np.float32)), "patches of 47 numbers"),
        (dict(image_mask=np.ones((2, 15), np.int32)), "image_mask of shape"),
        (dict(image_positions=np.zeros((2, 3), np.int32)), "image_positions of shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message, networks):
    model, variables = networks["odd"]
    inputs = dict(cases.inputs("unmasked"), target_codes=None) | change
    with pytest.raises(DataError, match=message):
        jax.eval_shape(model.apply, variables, **inputs)


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="segments=1"):
        UnifiedIOConfig(segments=1)
    with pytest.raises(ConfigError, match="do not divide"):
        UnifiedIOConfig(image_rows=380)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 1, 2)])
def test_on_a_mesh_loss_and_gradients_are_the_same(shape, networks):
    model, variables = networks["long"]
    rng = np.random.default_rng(0)
    inputs = dict(
        input_ids=rng.integers(1, 40, (4, 6)),
        image_positions=np.tile(np.arange(8), (4, 1)),
        target_ids=rng.integers(1, 40, (4, 4)),
        target_codes=np.full((4, 6), 41),
    )
    inputs = {key: value.astype(np.int32) for key, value in inputs.items()}
    inputs["images"] = rng.normal(size=(4, 8, 12)).astype(np.float32)

    def loss(params, inputs):
        out = model.apply({"params": params}, **inputs)
        logits = (out.text_logits, out.image_logits)
        return sum(jax.nn.logsumexp(x, axis=-1).mean() for x in logits)

    expected, expected_gradients = jax.jit(jax.value_and_grad(loss))(variables["params"], inputs)
    types = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=types)
    with jax.set_mesh(mesh):
        params = jax.device_put(variables["params"], shardings(variables["params"], mesh))
        value, gradients = jax.jit(jax.value_and_grad(loss))(params, inputs)
    assert float(value) == pytest.approx(float(expected), abs=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), gradients, expected_gradients
    )
