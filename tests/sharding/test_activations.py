"""`constrain`: nothing outside a mesh, checked inside one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, batch_multiple, constrain, make_mesh, put_batch


def test_outside_a_mesh_it_does_nothing():
    x = jnp.ones((3, 5))
    assert constrain(x, "batch", "embed") is x
    assert str(jax.make_jaxpr(lambda x: constrain(x, "batch", "embed"))(x)).count("sharding") == 0
    assert batch_multiple() == 1


def test_inside_a_mesh_the_array_lies_as_it_says():
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        constrained = jax.jit(lambda x: constrain(x, "batch", "length", "mlp"))(jnp.ones((8, 3, 6)))
        assert constrained.sharding.shard_shape(constrained.shape) == (2, 3, 3)
        assert batch_multiple() == 4


@pytest.mark.parametrize("rows", [6, 2, 5])
def test_rows_that_the_shards_do_not_divide_are_refused(rows):
    # JAX itself lets this pass in silence.
    with (
        jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))),
        pytest.raises(ShardingError, match=rf"'batch' of {rows} does not divide over 4 shards"),
    ):
        jax.jit(lambda x: constrain(x, "batch", None))(jnp.ones((rows, 4)))


def test_unknown_names_and_wrong_counts_are_refused():
    with jax.set_mesh(make_mesh(MeshConfig(8, 1, 1))):
        with pytest.raises(ShardingError, match="no activation axis named 'batches'"):
            constrain(jnp.ones((8, 4)), "batches", None)
        with pytest.raises(ShardingError, match="1 axis names"):
            constrain(jnp.ones((8, 4)), "batch")


def test_a_batch_goes_to_the_devices_row_by_row():
    mesh, rows = make_mesh(MeshConfig(2, 2, 2)), np.arange(16).reshape(8, 2)
    sharded = put_batch({"ids": rows}, mesh)["ids"]
    assert {s.data.shape for s in sharded.addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(np.asarray(sharded), rows)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ShardingError, match=r"6 rows \('ids'\) does not divide over the mesh's 4"):
        put_batch({"ids": np.zeros((6, 2))}, make_mesh(MeshConfig(2, 2, 2)))
