"""The table of parameter axes is strict: each parameter one row, each dimension divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxformers.errors import ShardingError
from jaxformers.sharding import (
    TABLE,
    MeshConfig,
    Row,
    axes_of,
    describe_parameters,
    make_mesh,
    parameter_spec,
    row_for,
    shardings,
)

SIZES = {"data": 2, "fsdp": 2, "tensor": 2}


def test_a_parameter_that_no_row_names_is_refused_with_the_row_to_add():
    with pytest.raises(ShardingError, match=r"no sharding row.*'head/wobble/kernel'.*Row\("):
        row_for("head/wobble/kernel")


def test_a_parameter_that_two_rows_name_is_refused_with_both():
    twice = (*TABLE, Row(r".*query/kernel", ("embed", "heads", None)))
    with pytest.raises(ShardingError, match=r"2 sharding rows.*encoder/blocks/x/query/kernel"):
        row_for("encoder/blocks/x/query/kernel", twice)


def test_a_row_must_match_the_whole_path():
    with pytest.raises(ShardingError, match="no sharding row"):
        row_for("encoder/query/kernel/extra")


def test_a_stack_adds_a_layer_axis_that_is_not_divided():
    path = "encoder/blocks/self_attention/query/kernel"
    assert axes_of(path, (6, 16, 4, 4)) == ("layers", "embed", "heads", "head_width")
    assert parameter_spec(path, (6, 16, 4, 4), SIZES) == PartitionSpec(None, "fsdp", "tensor", None)


def test_a_block_outside_a_stack_has_the_same_row():
    assert axes_of("self_attention/query/kernel", (16, 4, 4)) == ("embed", "heads", "head_width")


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("text/words_embedding/table", ("vocab", "embed")),
        ("TokenEmbedding_0/table", ("vocab", "embed")),
        ("text/PositionEmbedding_0/table", (None, "embed")),
        ("image/type_embedding_1/table", (None, "embed")),
        ("image/blocks_3/self_attention/out/kernel", ("heads", "head_width", "embed")),
        ("image/EncoderBlock_0/feed_forward_norm/scale", (None,)),
        ("image/Norm_0/bias", (None,)),
        ("image/ln_post/scale", (None,)),
        ("image/stem/conv1/kernel", (None, None, None, "embed")),
        ("image/Conv_2/bias", (None,)),
        ("image/bn1/scale", (None,)),
    ],
)
def test_public_blocks_have_rows_under_any_prefix(path, axes):
    assert row_for(path).axes == axes


@pytest.mark.parametrize("path", ["lna/bias", "words/table", "temperature", "image/dense/bias"])
def test_what_its_name_does_not_tell_is_refused(path):
    with pytest.raises(ShardingError, match="no sharding row"):
        row_for(path)


def test_a_parameter_with_other_dimensions_than_its_row_is_refused():
    with pytest.raises(ShardingError, match=r"has 2 axes.*shape \(3, 4, 5\)"):
        axes_of("feed_forward/up/kernel", (3, 4, 5))


@pytest.mark.parametrize(
    ("path", "shape", "mend"),
    [
        ("x/feed_forward/up/kernel", (15, 16), r"'embed' of 15.*fsdp=2.*--mesh.fsdp"),
        ("x/feed_forward/up/kernel", (16, 15), r"'mlp' of 15.*tensor=2.*--mesh.tensor"),
        ("x/query/kernel", (16, 3, 4), r"'heads' of 3.*tensor=2.*replicate=\('heads',\)"),
        ("token_embedding/table", (101, 16), r"'vocab' of 101.*vocabulary multiple"),
    ],
)
def test_a_dimension_that_does_not_divide_is_refused_with_the_mend(path, shape, mend):
    with pytest.raises(ShardingError, match=mend):
        parameter_spec(path, shape, SIZES)


def test_a_replicated_axis_stays_whole_only_when_it_does_not_divide():
    table = (Row("head/kernel", ("embed", "heads"), replicate=("heads",)),)
    assert parameter_spec("head/kernel", (16, 3), SIZES, table) == PartitionSpec("fsdp", None)
    assert parameter_spec("head/kernel", (16, 4), SIZES, table) == PartitionSpec("fsdp", "tensor")


def test_described_bytes_are_those_of_a_devices_share():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    tree = {"encoder": {"blocks": {"feed_forward": {"up": {"kernel": jnp.zeros((3, 16, 32))}}}}}
    sharded = jax.device_put(tree, shardings(tree, mesh))
    ((path, shape, kind, axes, size),) = describe_parameters(tree, SIZES)
    assert (path, shape, kind) == ("encoder/blocks/feed_forward/up/kernel", (3, 16, 32), "float32")
    assert axes == ("layers", "embed", "mlp")
    (leaf,) = jax.tree.leaves(sharded)
    assert {s.data.nbytes for s in leaf.addressable_shards} == {size} == {3 * 16 * 32 * 4 // 4}


def test_shards_put_together_are_the_parameter():
    mesh, values = make_mesh(MeshConfig(1, 4, 2)), np.arange(16.0 * 32).reshape(16, 32)
    tree = {"up": {"kernel": values.astype(np.float32)}}
    (leaf,) = jax.tree.leaves(jax.device_put(tree, shardings(tree, mesh)))
    np.testing.assert_array_equal(np.asarray(leaf), values)
