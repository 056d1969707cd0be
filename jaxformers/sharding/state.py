"""Shardings derived from the parameters' (optimizer state, moving averages), and of batches."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import ShardingError
from jaxformers.sharding.mesh import check_auto_axes
from jaxformers.sharding.table import path_text

BATCH_AXES = ("data", "fsdp")


def like_parameters(
    state: Any, params: Any, param_shardings: Any, mesh: Mesh | AbstractMesh
) -> Any:
    """Shardings for a tree such as an optimizer state, whose leaves mirror the parameters.

    A leaf whose path ends with a parameter's path, and that has its shape, takes that parameter's
    sharding; a scalar is replicated. This holds for any chain of optax transformations. A mean over
    some of a parameter's axes (Adafactor's moments) keeps these with size 1, and is sharded along
    the others.

    Raises:
        ShardingError: a leaf with dimensions that mirrors no parameter.
    """
    by_path = {
        path_text(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jax.tree.leaves(param_shardings),
            strict=True,
        )
    }
    replicated = NamedSharding(mesh, PartitionSpec())

    def sharding_of(path, leaf):
        if not leaf.shape:
            return replicated
        # Suffixes of `0/mu/encoder/norm/scale` from the longest on: a shorter one could be the path
        # of another parameter (`norm/scale`).
        names = path_text(path).split("/")
        for start in range(len(names)):
            shape, sharding = by_path.get("/".join(names[start:]), (None, None))
            if shape == leaf.shape:
                return sharding
            if shape is not None and _is_reduced(leaf.shape, shape):
                spec = (*sharding.spec, *(None,) * (len(shape) - len(sharding.spec)))
                axes = [axis if n > 1 else None for n, axis in zip(leaf.shape, spec, strict=True)]
                return NamedSharding(mesh, PartitionSpec(*axes))
        raise ShardingError(
            f"the state {path_text(path)!r} of shape {leaf.shape} has no parameter's path and "
            "shape, so its sharding is unknown: keep it in a tree like the parameters'"
        )

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def _is_reduced(shape: tuple[int, ...], parameter_shape: tuple[int, ...]) -> bool:
    """Whether `shape` is the parameter's but for axes of size 1."""
    return len(shape) == len(parameter_shape) and all(
        size in (1, full) for size, full in zip(shape, parameter_shape, strict=True)
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension sharded over `data` and `fsdp`, the others replicated."""
    check_auto_axes(mesh)
    return NamedSharding(mesh, PartitionSpec(_batch_axes(mesh)))


def batch_shards(mesh: Mesh) -> int:
    """Number of shards of a batch."""
    return math.prod(mesh.shape[axis] for axis in _batch_axes(mesh))


def _batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """Those of `data` and `fsdp` that the mesh has: one built by hand may lack one."""
    return tuple(axis for axis in BATCH_AXES if axis in mesh.shape)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, hosts: int = 1) -> dict[str, jax.Array]:
    """Global arrays on the mesh, assembled from this host's rows.

    Args:
        batch: this host's arrays, `[rows, ...]`.
        mesh: from `make_mesh`.
        hosts: number of hosts, each with as many rows.

    Raises:
        ShardingError: a global batch that the mesh's batch shards do not divide.
    """
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    for name, rows in batch.items():
        if rows.shape[0] * hosts % shards:
            raise ShardingError(
                f"a batch of {rows.shape[0] * hosts} rows ({name!r}) does not divide over the "
                f"mesh's {shards} batch shards (data x fsdp); change the rows or the mesh"
            )
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
