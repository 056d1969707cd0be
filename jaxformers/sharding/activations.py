"""`constrain`: sharding annotations for activations, by logical axis names."""

from __future__ import annotations

import math

import jax
from jax.sharding import PartitionSpec

from jaxformers.arrays import Array
from jaxformers.errors import ShardingError
from jaxformers.sharding.mesh import check_auto_axes

# Logical axis of an activation -> mesh axes that shard it. An activation's "embed" is replicated
# over fsdp, though a parameter's "embed" is sharded (`table.PARAMETER_AXES`): fsdp already shards
# the batch, and one array cannot use a mesh axis twice.
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
    """Annotates `x` with its sharding on the current mesh; returns it unchanged without a mesh.

    Args:
        x: an array with one dimension for each name.
        axes: for each dimension, a name from `ACTIVATION_AXES`, or None to replicate it.

    Raises:
        ShardingError: an unknown name, a wrong number of names, a dimension that its mesh axes do
            not divide, or a mesh of explicit axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not mesh.shape:
        return x
    check_auto_axes(mesh)
    if len(axes) != x.ndim:
        raise ShardingError(f"constrain: {len(axes)} axis names {axes} for a shape {x.shape}")
    # `activation_spec` checks divisibility, for `with_sharding_constraint` silently accepts a
    # dimension that its mesh axes do not divide.
    return jax.lax.with_sharding_constraint(x, activation_spec(x.shape, *axes))


def activation_spec(shape: tuple[int, ...], *axes: str | None) -> PartitionSpec:
    """The `PartitionSpec` of an activation of `shape` on the current mesh."""
    sizes, entries = dict(jax.sharding.get_abstract_mesh().shape), []
    for size, name in zip(shape, axes, strict=True):
        if name is not None and name not in ACTIVATION_AXES:
            raise ShardingError(
                f"constrain: no activation axis named {name!r}; choose from "
                f"{', '.join(ACTIVATION_AXES)}"
            )
        # A mesh built by hand may lack some of our axes; those shard nothing.
        mesh_axes = tuple(a for a in ACTIVATION_AXES[name] if a in sizes) if name else ()
        num_shards = math.prod(sizes[a] for a in mesh_axes)
        if size % num_shards:
            raise ShardingError(
                f"an activation's {name!r} of {size} does not divide over {num_shards} shards "
                f"({' x '.join(mesh_axes)}) in shape {shape}; change the mesh or that size"
            )
        entries.append(mesh_axes or None)
    return PartitionSpec(*entries)


def batch_multiple() -> int:
    """Number of batch shards on the current mesh, a divisor of every batch; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    check_auto_axes(mesh)
    sizes = dict(mesh.shape)
    return math.prod(sizes.get(axis, 1) for axis in ACTIVATION_AXES["batch"])
