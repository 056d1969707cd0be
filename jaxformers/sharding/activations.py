"""`constrain`: how an activation lies on the mesh, said where it is made."""

from __future__ import annotations

import math

import jax
from jax.sharding import PartitionSpec

from jaxformers.arrays import Array
from jaxformers.errors import ShardingError

# Axis name of an activation -> mesh axes. Parameters have their own map in `table`.
ACTIVATION_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "length": (),
    "embed": (),
    "head_width": (),
}


def constrain(x: Array, *axes: str | None) -> Array:
    """Lays `x` on the mesh in force by axis names; outside a mesh it does nothing.

    Args:
        x: an array with one dimension for each name.
        axes: names from `ACTIVATION_AXES`, or None for a dimension kept whole.

    Raises:
        ShardingError: a dimension that its mesh axes do not divide (JAX would pass in silence).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not mesh.shape:
        return x
    if len(axes) != x.ndim:
        raise ShardingError(f"constrain: {len(axes)} axis names {axes} for a shape {x.shape}")
    return jax.lax.with_sharding_constraint(x, activation_spec(x.shape, *axes))


def activation_spec(shape: tuple[int, ...], *axes: str | None) -> PartitionSpec:
    """How `constrain` lays an activation of that shape on the mesh in force."""
    sizes, entries = dict(jax.sharding.get_abstract_mesh().shape), []
    for size, name in zip(shape, axes, strict=True):
        mesh_axes = tuple(a for a in ACTIVATION_AXES.get(name, ()) if a in sizes) if name else ()
        if name is not None and name not in ACTIVATION_AXES:
            raise ShardingError(f"constrain: no activation axis named {name!r}")
        parts = math.prod(sizes[a] for a in mesh_axes)
        if size % parts:
            raise ShardingError(
                f"an activation's {name!r} of {size} does not divide over {parts} shards "
                f"({' x '.join(mesh_axes)}) in shape {shape}; change the mesh or that size"
            )
        entries.append(mesh_axes or None)
    return PartitionSpec(*entries)


def batch_multiple() -> int:
    """What the rows of a batch must divide by on the mesh in force; 1 outside a mesh."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(sizes.get(axis, 1) for axis in ACTIVATION_AXES["batch"])
