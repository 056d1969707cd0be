"""Meshes from a configuration, and what is said when it does not come out."""

import jax
import pytest
from jax.sharding import AxisType

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, make_mesh, platform_of


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
