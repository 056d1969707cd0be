"""Meshes from a configuration, and what is said when it does not come out."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxformers.errors import ShardingError
from jaxformers.sharding import (
    MeshConfig,
    batch_multiple,
    batch_shards,
    constrain,
    make_mesh,
    platform_of,
    put_batch,
    shardings,
)


@pytest.mark.parametrize(
    ("config", "devices", "shape"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(2, 2, 2), 8, (2, 2, 2)),
        (MeshConfig(1, -1, 2), 8, (1, 4, 2)),
        (MeshConfig(-1, 4, 4), 256, (16, 4, 4)),
        (MeshConfig(-1, 8, 1, slices=2), 512, (64, 8, 1)),
    ],
)
def test_minus_one_takes_what_is_left(config, devices, shape):
    assert config.shape(devices) == shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(3, 1, 1), r"takes 3 devices, but there are 8.*product is 8"),
        (MeshConfig(-1, 3, 1), r"a multiple of 3 devices, but there are 8"),
        (MeshConfig(2, 2, 1), r"takes 4 devices, but there are 8"),
        (MeshConfig(-1, -1, 1), "on one axis only"),
        (MeshConfig(-1, 1, 1, slices=3), "3 slices do not divide data=8"),
    ],
)
def test_a_mesh_that_does_not_come_out_is_refused_in_a_line(config, message):
    with pytest.raises(ShardingError, match=message) as caught:
        config.shape(8)
    assert "\n" not in str(caught.value)


def test_axes_are_automatic_and_in_order():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert platform_of(mesh) == "cpu"


def test_a_mesh_may_take_some_of_the_devices():
    mesh = make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])
    assert list(mesh.devices.flat) == jax.devices()[:2]


@pytest.mark.parametrize("axes", [("data",), ("data", "fsdp"), ("fsdp", "tensor")])
def test_a_mesh_of_explicit_axes_is_refused_in_a_line_with_the_mend(axes):
    mesh = jax.make_mesh((2,) * len(axes), axes, devices=jax.devices()[: 2 ** len(axes)])
    ids = np.ones((4, 8), np.int32)
    params = {"token_embedding": {"table": np.ones((8, 4), np.float32)}}
    uses = (
        lambda: constrain(ids, "batch", "length"),
        lambda: put_batch({"ids": ids}, mesh),
        lambda: shardings(params, mesh),
        batch_multiple,
    )
    for use in uses:
        message = r"explicit axes.*make_mesh, or .*axis_types=\(jax.sharding.AxisType.Auto,\) \* "
        with jax.set_mesh(mesh), pytest.raises(ShardingError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_mesh_that_lacks_an_axis_of_the_batch_takes_batches():
    for axes, shards in ((("data",), 2), (("fsdp", "tensor"), 2), (("tensor",), 1)):
        auto = (AxisType.Auto,) * len(axes)
        devices = jax.devices()[: 2 ** len(axes)]
        mesh = jax.make_mesh((2,) * len(axes), axes, axis_types=auto, devices=devices)
        batch = put_batch({"ids": np.arange(8).reshape(4, 2)}, mesh)["ids"]
        assert batch_shards(mesh) == shards
        assert batch.addressable_shards[0].data.shape == (4 // shards, 2)
