"""The translation Transformer: counts, layouts, packing, and what can be looked at inside it."""

from dataclasses import replace

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.runs.golden import random_parameters

TINY = TransformerConfig(
    vocab_size=23, width=16, heads=4, feed_forward=24, encoder_layers=3, decoder_layers=2,
    dropout=0.1, max_length=32,
)  # fmt: skip
RNG = np.random.default_rng(0)
ONE = np.ones((1, 1), np.int32)
SOURCE = RNG.integers(1, 23, (2, 7)).astype(np.int32)
TARGET = RNG.integers(1, 23, (2, 5)).astype(np.int32)


def shapes_of(config, execution=None):
    model = Transformer(config, execution or Execution())
    return jax.eval_shape(lambda: model.init(jax.random.key(0), ONE, ONE))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def variables_of(config=TINY):
    return random_parameters(shapes_of(config))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (TransformerConfig.base(), 63_045_632),
        (TransformerConfig.big(), 214_171_648),
        (TransformerConfig.base(attention_bias=True), 63_082_496),
        (TransformerConfig.big(attention_bias=True), 214_245_376),
    ],
)
def test_parameters_are_counted_to_the_unit(config, parameters):
    assert count(shapes_of(config)) == parameters


def test_named_sizes_are_the_papers():
    base, big = TransformerConfig.base(), TransformerConfig.big()
    assert (base.width, base.heads, base.feed_forward, base.dropout) == (512, 8, 2048, 0.1)
    assert (big.width, big.heads, big.feed_forward, big.dropout) == (1024, 16, 4096, 0.3)
    for config in (base, big):
        assert (config.encoder_layers, config.decoder_layers) == (6, 6)
        assert config.norm_position == "post" and not config.attention_bias


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_only_pre_norm_stacks_end_with_a_norm(norm_position):
    params = shapes_of(replace(TINY, norm_position=norm_position))["params"]
    assert (
        ("norm" in params["encoder"]) == ("norm" in params["decoder"]) == (norm_position == "pre")
    )


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    "change",
    [
        {"norm_epsilon": 1e-5}, {"activation": "gelu"}, {"norm_position": "pre"},
        {"positions": "marian"}, {"positions": "none"}, {"scale_embedding": False},
    ],
    ids=str,
)  # fmt: skip
def test_every_choice_changes_the_logits(change):
    variables = variables_of(replace(TINY, norm_position=change.get("norm_position", "post")))
    if "norm_epsilon" in change:
        variables = jax.tree.map(lambda x: 0.1 * x, variables)
    default, changed = (
        logits_of(replace(TINY, **c), v, SOURCE, TARGET)
        for c, v in (
            ({}, variables_of() if "norm_epsilon" not in change else variables),
            (change, variables),
        )
    )
    assert np.abs(default - changed).max() > 1e-5


def logits_of(config, variables, *inputs, execution=None, **named):
    """Compiled, which is quicker than an operation at a time."""
    model = Transformer(config, execution or Execution())
    return np.asarray(jax.jit(lambda v: model.apply(v, *inputs, **named))(variables))


def layouts():
    for target, remat in (("cpu", "none"), ("tpu", "none"), ("cpu", "full"), ("tpu", "dots")):
        yield pytest.param(Execution(target=target, remat=remat), id=f"{target}-{remat}")


@pytest.fixture(scope="module")
def reference():
    return outputs_and_gradients(Execution(target="cpu"))


def outputs_and_gradients(execution):
    model = Transformer(TINY, execution)

    @jax.jit
    def run(variables):
        def loss(variables):
            logits = model.apply(
                variables, SOURCE, TARGET, train=True, rngs={"dropout": jax.random.key(1)}
            )
            return jnp.square(logits).mean(), logits

        (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(variables)
        return logits, grads

    return run(variables_of())


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("execution", list(layouts()))
def test_rolled_unrolled_and_remat_stacks_are_one_model(execution, reference):
    assert jax.tree.map(jnp.shape, shapes_of(TINY, execution)) == jax.tree.map(
        jnp.shape, shapes_of(TINY)
    )
    for ours, theirs in zip(
        jax.tree.leaves(outputs_and_gradients(execution)), jax.tree.leaves(reference), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_stacked_parameters_lead_with_the_layer():
    params = shapes_of(TINY)["params"]
    assert params["encoder"]["blocks"]["feed_forward"]["up"]["kernel"].shape == (3, 16, 24)
    assert params["decoder"]["blocks"]["cross_attention"]["query"]["kernel"].shape == (2, 16, 4, 4)


@pytest.mark.slow
def test_packed_rows_give_the_logits_of_unpacked_ones():
    variables = variables_of()
    lengths = ((4, 3), (5, 2), (2, 6))
    rows = [(RNG.integers(1, 23, (1, s)), RNG.integers(1, 23, (1, t))) for s, t in lengths]
    alone = [logits_of(TINY, variables, np.int32(s), np.int32(t)) for s, t in rows]

    def packed(side, padding):
        sizes = [pair[side] for pair in lengths]
        ids = np.concatenate([row[side] for row in rows], 1)
        segments = np.repeat([1, 2, 3], sizes)[None]
        positions = np.concatenate([np.arange(n) for n in sizes])[None]
        filled = (np.pad(x, ((0, 0), (0, padding))) for x in (ids, segments, positions))
        return [x.astype(np.int32) for x in filled]

    source, target = packed(0, 2), packed(1, 3)
    logits = logits_of(
        TINY, variables, source[0], target[0],
        source_segments=source[1], source_positions=source[2],
        target_segments=target[1], target_positions=target[2],
    )  # fmt: skip
    assert np.isfinite(logits).all()
    start = 0
    for (_, size), expected in zip(lengths, alone, strict=True):
        np.testing.assert_allclose(logits[:, start : start + size], expected, atol=2e-4)
        start += size


def test_padding_of_the_source_changes_nothing():
    variables = variables_of()
    mask = np.ones_like(SOURCE)
    mask[0, 4:] = 0
    alone = logits_of(TINY, variables, SOURCE[:1, :4], TARGET[:1])
    logits = logits_of(TINY, variables, SOURCE, TARGET, mask)
    np.testing.assert_allclose(logits[:1], alone, atol=1e-4)


def test_a_later_target_token_changes_no_earlier_logits():
    variables = variables_of()
    changed = TARGET.copy()
    changed[:, 3] = (changed[:, 3] + 1) % 23
    logits, changed_logits = (logits_of(TINY, variables, SOURCE, t) for t in (TARGET, changed))
    np.testing.assert_allclose(logits[:, :3], changed_logits[:, :3], rtol=1e-6)
    assert np.abs(logits[:, 3:] - changed_logits[:, 3:]).max() > 1e-3


def test_a_vocabulary_stored_padded_gives_the_same_logits_and_masks_the_rest():
    variables = variables_of()
    table = variables["params"]["token_embedding"]["table"]
    padded = jax.tree.map(lambda x: np.pad(x, ((0, 1), (0, 0))) if x is table else x, variables)
    wide = Execution(vocab_multiple=8)
    ours = logits_of(TINY, padded, SOURCE, TARGET, execution=wide)
    plain = logits_of(TINY, variables, SOURCE, TARGET)
    assert ours.shape == (2, 5, 24)
    np.testing.assert_allclose(ours[..., :23], plain, rtol=1e-5, atol=1e-5)
    assert (ours[..., 23:] < -1e8).all()


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("execution", list(layouts()))
def test_probabilities_and_block_outputs_are_reached_by_name(execution):
    model, variables = Transformer(TINY, execution), variables_of()
    ask = jax.jit(lambda v: model.apply(v, SOURCE, TARGET, mutable=["probs", "blocks"]))
    logits, collections = ask(variables)
    encoder, decoder = (collections["probs"][stack]["blocks"] for stack in ("encoder", "decoder"))
    assert encoder["self_attention"]["probs"].shape == (3, 2, 4, 7, 7)
    assert decoder["self_attention"]["probs"].shape == (2, 2, 4, 5, 5)
    assert decoder["cross_attention"]["probs"].shape == (2, 2, 4, 5, 7)
    np.testing.assert_allclose(encoder["self_attention"]["probs"].sum(-1), 1, rtol=1e-5)
    assert collections["blocks"]["encoder"]["blocks"]["output"].shape == (3, 2, 7, 16)
    last = collections["blocks"]["decoder"]["blocks"]["output"][-1]
    np.testing.assert_allclose(
        model.apply(variables, last, method="logits"), logits, rtol=1e-5, atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("execution", [Execution(), Execution(target="tpu", remat="full")], ids=str)
def test_probabilities_have_gradients_by_a_perturbation(execution):
    model, variables = Transformer(TINY, execution), variables_of()
    probs = jax.eval_shape(lambda: model.apply(variables, SOURCE, TARGET, mutable=["probs"]))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), probs[1]["probs"])

    @jax.jit
    def chosen(perturb):
        return model.apply({**variables, "perturb": perturb}, SOURCE, TARGET)[0, -1, 5]

    grad = jax.jit(jax.grad(chosen))(zeros)
    flat = jax.tree.leaves(grad)
    assert len(flat) == 3 and all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in flat)
    # Against a finite difference, in the encoder's first layer.
    step = 1e-2
    moved = jax.tree.map(lambda z: z, zeros)
    attention = moved["encoder"]["blocks"]["self_attention"]
    attention["probs"] = attention["probs"].at[0, 0, 1, 2, 3].set(step)
    up = chosen(moved)
    attention["probs"] = attention["probs"].at[0, 0, 1, 2, 3].set(-step)
    slope = (up - chosen(moved)) / (2 * step)
    ours = grad["encoder"]["blocks"]["self_attention"]["probs"][0, 0, 1, 2, 3]
    np.testing.assert_allclose(slope, ours, rtol=0.05, atol=2e-3)


def test_unasked_neither_probabilities_nor_outputs_cost_anything(monkeypatch):
    from jaxformers.layers import blocks
    from jaxformers.layers.attention.multi_head import MultiHeadAttention

    def traced():
        model, variables = Transformer(TINY), variables_of()
        return str(jax.make_jaxpr(lambda v: model.apply(v, SOURCE, TARGET))(variables))

    before = traced()
    monkeypatch.setattr(blocks, "_sown", lambda block, x: x)
    monkeypatch.setattr(MultiHeadAttention, "sow", None)
    monkeypatch.setattr(MultiHeadAttention, "is_mutable_collection", lambda *_: False)
    assert traced() == before


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


def test_bfloat16_compute_keeps_softmax_norms_and_logits_float32():
    model, variables = Transformer(TINY, Execution(dtype="bfloat16")), variables_of()
    closed = jax.make_jaxpr(lambda v: model.apply(v, SOURCE, TARGET))(variables)
    dtypes = {}
    for eqn in equations(closed.jaxpr):
        kinds = {str(v.aval.dtype) for v in eqn.invars if hasattr(v.aval, "dtype")}
        dtypes.setdefault(eqn.primitive.name, set()).update(kinds)
    for primitive in ("exp", "rsqrt", "reduce_max"):
        assert dtypes[primitive] == {"float32"}, primitive
    assert dtypes["dot_general"] == {"bfloat16"}
    assert closed.out_avals[0].dtype == jnp.float32
    assert jax.tree.leaves(shapes_of(TINY, Execution(dtype="bfloat16")))[0].dtype == jnp.float32


def test_bfloat16_logits_are_near_the_float32_ones():
    variables = jax.tree.map(lambda x: 0.5 * x, variables_of())
    fine, coarse = (
        logits_of(TINY, variables, SOURCE, TARGET, execution=Execution(dtype=d))
        for d in ("float32", "bfloat16")
    )
    assert np.abs(fine - coarse).max() < 0.1 * np.abs(fine).max()


def test_dropout_is_a_function_of_its_key():
    config = replace(TINY, dropout=0.5, encoder_layers=2)
    model, variables = Transformer(config), variables_of(config)

    @jax.jit
    def blocks(key):
        rngs = {"dropout": key}
        _, collections = model.apply(
            variables, SOURCE, TARGET, train=True, rngs=rngs, mutable=["blocks"]
        )
        return collections["blocks"]["encoder"]["blocks"]["output"]

    outputs, again, other_outputs = (blocks(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(outputs, again)
    assert np.abs(outputs - other_outputs).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0; it is a whole number, at least 1"),
        ({"heads": 3}, "3 heads do not divide a width of 16"),
        ({"decoder_heads": 5}, "5 heads do not divide"),
        ({"encoder_layers": 0}, "encoder_layers is 0"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"eos_id": TINY.vocab_size}, "special token has id"),
        ({"banned_ids": (3, TINY.vocab_size)}, "special token has id"),
    ],
)
def test_sizes_that_make_no_model_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_a_sequence_longer_than_the_positions_is_refused():
    with pytest.raises(DataError, match="33 tokens is longer than the model's 32 positions"):
        Transformer(TINY).apply(variables_of(), np.ones((1, 33), np.int32), TARGET[:1])
