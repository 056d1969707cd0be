"""The device mesh: three named axes, built from a `MeshConfig`.

`data` shards the batch; `fsdp` shards the batch, and parameters along their model width; `tensor`
shards heads, the feed-forward width and the vocabulary. Slices of a TPU pod, joined by the slower
data-centre network (DCN), are the outermost part of `data`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

from jaxformers.errors import ShardingError
from jaxformers.fields import CheckedFields, PositiveInt, Range

AXES = ("data", "fsdp", "tensor")


AxisSize = Annotated[int, Range(ge=1, also=(-1,))]


@dataclass(frozen=True)
class MeshConfig(CheckedFields):
    """Devices along each mesh axis; -1, on one axis at most, takes all remaining devices."""

    data: AxisSize = -1
    """Data parallelism: replicas of the model, each on its own shard of the batch."""
    fsdp: AxisSize = 1
    """Fully sharded data parallelism: shards of the batch that also shard the parameters."""
    tensor: AxisSize = 1
    """Tensor parallelism: shards of heads, feed-forward width and vocabulary."""
    slices: PositiveInt = 1
    """Pod slices joined over the data-centre network; `data` must be a multiple of them."""

    def shape(self, devices: int) -> tuple[int, int, int]:
        """`(data, fsdp, tensor)` for a number of devices, with -1 resolved.

        Raises:
            ShardingError: two sizes of -1, or a product that is not `devices`.
        """
        sizes = [self.data, self.fsdp, self.tensor]
        if sizes.count(-1) > 1:
            raise ShardingError(
                f"mesh {self._text()}: -1 (the remaining devices) is allowed on one axis only"
            )
        fixed = math.prod(n for n in sizes if n != -1)
        if devices % fixed or (-1 not in sizes and fixed != devices):
            raise ShardingError(
                f"mesh {self._text()} takes {'a multiple of ' * (-1 in sizes)}{fixed} devices, but "
                f"there are {devices}; set --mesh.data, --mesh.fsdp and --mesh.tensor so that "
                f"their product is {devices}"
            )
        data, fsdp, tensor = (devices // fixed if n == -1 else n for n in sizes)
        if data % self.slices:
            raise ShardingError(
                f"mesh {self._text()}: {self.slices} slices do not divide data={data}"
            )
        return data, fsdp, tensor

    def _text(self) -> str:
        return f"data={self.data} fsdp={self.fsdp} tensor={self.tensor}"


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all), ordered so that inner axes use the fastest links."""
    devices = jax.devices() if devices is None else list(devices)
    shape = config.shape(len(devices))
    # `jax.make_mesh` makes Explicit axes by default, under which Linen's own layers fail
    # with fsdp or tensor parallelism.
    auto = (AxisType.Auto,) * len(AXES)
    if config.slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)
    from jax.experimental import mesh_utils

    # (data, fsdp, tensor) = (slices, 1, 1) * inner: only `data` crosses the data-centre network.
    inner = (shape[0] // config.slices, *shape[1:])
    grid = mesh_utils.create_hybrid_device_mesh(inner, (config.slices, 1, 1), devices)
    return Mesh(grid, AXES, axis_types=auto)


def check_auto_axes(mesh: Mesh | AbstractMesh) -> None:
    """Raises ShardingError for a mesh of explicit axes, which the modules do not support."""
    if AxisType.Explicit in mesh.axis_types:
        raise ShardingError(
            f"the mesh of {', '.join(map(str, mesh.axis_names))} has explicit axes, the default of "
            "jax.make_mesh: make it with jaxformers.sharding.make_mesh, or give jax.make_mesh "
            f"axis_types=(jax.sharding.AxisType.Auto,) * {len(mesh.axis_names)}"
        )


def platform_of(mesh: Mesh) -> str:
    """The platform that a program on this mesh is compiled for: "cpu", "gpu" or "tpu".

    It may differ from `jax.default_backend()`: a CPU machine can compile for a TPU's mesh.
    """
    return mesh.devices.flat[0].platform
