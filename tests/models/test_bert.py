"""BERT: sizes, heads, masks, packing, and its training against the released code's update."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models.bert import roberta_positions
from jaxformers.sharding import MeshConfig, make_mesh, put_batch, shardings

SMALL = jf.BertConfig(vocab_size=101, width=16, heads=4, feed_forward=32, layers=2, max_length=32)


ROBERTA = replace(SMALL, variant="roberta", type_vocab_size=1, pad_id=3)
DISTILBERT = replace(SMALL, variant="distilbert", type_vocab_size=0)


def batch(rows=8, length=12, seed=0):
    rng = np.random.default_rng(seed)
    mask = (np.arange(length) < rng.integers(4, length + 1, (rows, 1))).astype(np.int32)
    ids = rng.integers(0, 101, (rows, length)).astype(np.int32) * mask
    types = rng.integers(0, 2, (rows, length)).astype(np.int32) * mask
    return ids, types, mask


def random_variables(model, *inputs):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), s.dtype), shapes)


@pytest.fixture(scope="module")
def pretraining():
    model = jf.BertForPreTraining(SMALL)
    return model, random_variables(model, batch()[0])


@pytest.mark.parametrize(
    ("config", "encoder", "both_heads"),
    [
        (jf.BertConfig.base(), 109_482_240, 110_106_428),
        (jf.BertConfig.large(), 335_141_888, 336_226_108),
        (jf.BertConfig.base(cased=True), 108_310_272, 108_932_934),
        (jf.BertConfig.tiny(), 4_385_920, 4_433_468),
    ],
    ids=["base", "large", "base cased", "tiny"],
)
def test_parameter_counts_to_the_unit(config, encoder, both_heads):
    def count(module):
        shapes = jax.eval_shape(module(config).init, jax.random.key(0), np.zeros((1, 4), np.int32))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    assert count(jf.Bert) == encoder
    assert count(jf.BertForPreTraining) == both_heads
    assert count(jf.BertForSequenceClassification) == encoder + 2 * config.width + 2
    pooler = config.width * (config.width + 1)
    for head in (jf.BertForSpanExtraction, jf.BertForTokenClassification):
        assert count(head) == encoder - pooler + 2 * config.width + 2


@pytest.mark.parametrize(
    ("config", "with_masked_words"),
    [
        (jf.BertConfig.roberta(), 124_697_433),
        (jf.BertConfig.roberta(24, 1024), 355_412_057),
        (jf.BertConfig.distilbert(), 66_985_530),
        (jf.BertConfig.distilbert(cased=True), 65_812_036),
    ],
    ids=["roberta", "roberta large", "distilbert", "distilbert cased"],
)
def test_parameter_counts_of_berts_successors(config, with_masked_words):
    init, ids = jf.BertForPreTraining(config).init, np.zeros((1, 4), np.int32)
    shapes = jax.eval_shape(init, jax.random.key(0), ids)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == with_masked_words
    # The classifier's own dense layer is as large as that of the masked words.
    shapes = jax.eval_shape(jf.BertForSequenceClassification(config).init, jax.random.key(0), ids)
    head = config.vocab_size + 2 * config.width  # the bias of the logits, and the norm
    classes = 2 * config.width + 2
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == with_masked_words - head + classes


@pytest.mark.slow
def test_the_pooled_token_alone_is_that_of_the_whole_output():
    model, inputs = jf.Bert(SMALL), batch()
    variables = random_variables(model, *inputs)
    pooled = model.apply(variables, *inputs, method="pooled")
    np.testing.assert_allclose(pooled, model.apply(variables, *inputs).pooled, atol=1e-6)


def test_the_published_sizes_have_heads_of_64():
    for layers in (2, 4, 6, 8, 10, 12):
        for width in (128, 256, 512, 768):
            config = jf.BertConfig.sized(layers, width)
            assert config.block.width_of_head == 64 and config.feed_forward == 4 * width


def test_a_published_size_takes_any_change():
    config = jf.BertConfig.tiny(width=256, layers=3, cased=True, labels=5)
    assert config == jf.BertConfig.sized(3, 256, cased=True, labels=5)
    assert (config.heads, config.feed_forward, config.vocab_size) == (4, 1024, 28_996)
    own = jf.BertConfig.base(width=24, heads=3, feed_forward=37)
    assert (own.layers, own.block.width_of_head) == (12, 8)


@pytest.mark.slow
def test_initial_weights_are_cut_at_two_standard_deviations():
    params = jf.BertForPreTraining(SMALL).init(jax.random.key(0), batch()[0])["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if (name := jax.tree_util.keystr(path)).endswith(("kernel']", "table']")):
            assert np.abs(leaf).max() <= 0.04, name
            assert 0.012 < np.std(leaf) < 0.022, name


def test_gathered_masked_words_have_the_logits_of_their_places(pretraining):
    model, variables = pretraining
    positions = np.random.default_rng(1).integers(0, 12, (8, 5)).astype(np.int32)
    every = model.apply(variables, *batch()).mlm_logits
    some = model.apply(variables, *batch(), positions).mlm_logits
    expected = np.take_along_axis(np.asarray(every), positions[..., None], axis=1)
    np.testing.assert_allclose(some, expected, atol=2e-5)


def test_padding_changes_nothing(pretraining):
    model, variables = pretraining
    ids, types, mask = batch()
    short = model.apply(variables, *(x[:, :12] for x in (ids, types, mask)))
    wide = [np.pad(x, ((0, 0), (0, 9)), constant_values=v) for x, v in ((ids, 7), (types, 1))]
    long = model.apply(variables, *wide, np.pad(mask, ((0, 0), (0, 9))))
    np.testing.assert_allclose(long.nsp_logits, short.nsp_logits, atol=2e-5)
    real = mask.astype(bool)
    np.testing.assert_allclose(long.mlm_logits[:, :12][real], short.mlm_logits[real], atol=3e-5)


def test_no_mask_and_no_types_mean_all_ones_and_all_zeros(pretraining):
    model, variables = pretraining
    ids = batch()[0]
    expected = model.apply(variables, ids, np.zeros_like(ids), np.ones_like(ids))
    output = model.apply(variables, ids)
    np.testing.assert_allclose(output.mlm_logits, expected.mlm_logits, atol=1e-6)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    "config", [replace(SMALL, next_sentence=False), ROBERTA, DISTILBERT], ids=lambda c: c.variant
)
def test_packed_rows_give_the_logits_of_unpacked_ones(config):
    model = jf.BertForPreTraining(config)
    ids = np.random.default_rng(2).integers(4, 101, (1, 14)).astype(np.int32)
    variables = random_variables(model, ids)
    segments = np.array([[1] * 5 + [2] * 7 + [0] * 2], np.int32)
    positions = np.array([[*range(5), *range(7), 0, 1]], np.int32)
    packed = model.apply(variables, ids, segments=segments, positions=positions)
    assert packed.nsp_logits is None
    for start, stop in ((0, 5), (5, 12)):
        alone = model.apply(variables, ids[:, start:stop]).mlm_logits
        np.testing.assert_allclose(packed.mlm_logits[:, start:stop], alone, atol=2e-5)


def test_every_block_and_map_is_reachable_by_name(pretraining):
    model, variables = pretraining
    _, collections = model.apply(variables, *batch(), mutable=["probs", "blocks"])
    (probs,) = jax.tree.leaves(collections["probs"])
    (blocks,) = jax.tree.leaves(collections["blocks"])
    assert probs.shape == (2, 8, 4, 12, 12) and blocks.shape == (2, 8, 12, 16)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_it_is_the_same_on_a_mesh(pretraining, shape):
    model, variables = pretraining
    positions = np.random.default_rng(1).integers(0, 12, (8, 5)).astype(np.int32)
    names = ("input_ids", "token_type_ids", "attention_mask", "masked_positions")
    rows = dict(zip(names, (*batch(), positions), strict=True))
    expected = model.apply(variables, **rows)
    wide = model.clone(execution=Execution(vocab_multiple=8))
    grown = jax.tree.map(np.asarray, variables)
    table = grown["params"]["bert"]["token_embedding"]
    table["table"] = np.pad(table["table"], ((0, 3), (0, 0)))
    grown["params"]["logits_bias"] = np.pad(grown["params"]["logits_bias"], (0, 3))
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(grown, {"params": shardings(grown["params"], mesh)})
        output = jax.jit(lambda v, b: wide.apply(v, **b))(sharded, put_batch(rows, mesh))
    np.testing.assert_allclose(output.mlm_logits[..., :101], expected.mlm_logits, atol=5e-5)
    np.testing.assert_allclose(output.nsp_logits, expected.nsp_logits, atol=5e-5)
    assert (np.asarray(output.mlm_logits[..., 101:]) < -1e8).all()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("config", [DISTILBERT, ROBERTA], ids=lambda c: c.variant)
def test_the_classifiers_of_berts_successors_are_the_same_on_a_mesh(config):
    model = jf.BertForSequenceClassification(config)
    ids, _, mask = batch()
    rows = {"input_ids": np.where(mask, ids, config.pad_id), "attention_mask": mask}
    variables = random_variables(model, rows["input_ids"])
    expected = model.apply(variables, **rows)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    model = model.clone(execution=Execution(vocab_multiple=2))
    table = variables["params"]["bert"]["token_embedding"]
    table["table"] = np.pad(table["table"], ((0, 1), (0, 0)))
    with jax.set_mesh(mesh):
        params = jax.device_put(variables["params"], shardings(variables["params"], mesh))
        logits = jax.jit(lambda v, b: model.apply(v, **b))(
            {"params": params}, put_batch(rows, mesh)
        )
    np.testing.assert_allclose(logits, expected, atol=5e-5)


def test_robertas_positions_leave_out_padding_wherever_it_stands():
    ids = jnp.array([[5, 3, 7, 7, 3, 3], [3, 3, 3, 3, 3, 3]])
    rows = roberta_positions(ids, None, 3)
    np.testing.assert_array_equal(rows, [[4, 3, 5, 6, 3, 3], [3] * 6])
    rows = roberta_positions(ids[:1], jnp.array([[0, 1, 0, 1, 2, 3]]), 3)
    np.testing.assert_array_equal(rows, [[4, 5, 4, 5, 6, 7]])


def test_too_long_a_sequence_is_refused(pretraining):
    model, variables = pretraining
    with pytest.raises(DataError, match="33 tokens is longer than the model's 32 positions"):
        model.apply(variables, np.zeros((1, 33), np.int32))


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 3},
        {"labels": 0},
        {"label_names": ("a",)},
        {"type_vocab_size": 0},
        {"variant": "distilbert"},
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_refused(changes):
    with pytest.raises(ConfigError):
        replace(SMALL, **changes)
