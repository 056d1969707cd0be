"""Shardings of what follows the parameters: optimizer state, averages, batches."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import ShardingError
from jaxformers.sharding.table import path_text

BATCH_AXES = ("data", "fsdp")


def like_parameters(state: Any, params: Any, param_shardings: Any, mesh: Mesh) -> Any:
    """Shardings for a state that holds copies of the parameters somewhere in it.

    A leaf whose path ends with a parameter's path and that has its shape takes that parameter's
    sharding; a scalar stays whole. It holds for any chain of optax transformations.

    Raises:
        ShardingError: a leaf with dimensions that follows no parameter.
    """
    known = {
        path_text(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jax.tree.leaves(param_shardings),
            strict=True,
        )
    }
    whole = NamedSharding(mesh, PartitionSpec())

    def one(path, leaf):
        if not leaf.shape:
            return whole
        parts = path_text(path).split("/")
        for start in range(len(parts)):
            shape, sharding = known.get("/".join(parts[start:]), (None, None))
            if shape == leaf.shape:
                return sharding
        raise ShardingError(
            f"the state {path_text(path)!r} of shape {leaf.shape} follows no parameter's path and "
            "shape, so its sharding is unknown"
        )

    return jax.tree_util.tree_map_with_path(one, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """A batch's rows over `data` and `fsdp`, its other dimensions whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """How many shares a batch is cut into."""
    return int(np.prod([mesh.shape[a] for a in BATCH_AXES]))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, hosts: int = 1) -> dict[str, jax.Array]:
    """Global arrays from this host's rows, each device given its own share.

    Raises:
        ShardingError: rows of the whole batch that the mesh does not divide.
    """
    sharding, shards = batch_sharding(mesh), batch_shards(mesh)
    for name, rows in batch.items():
        if rows.shape[0] * hosts % shards:
            raise ShardingError(
                f"a batch of {rows.shape[0] * hosts} rows ({name!r}) does not divide over the "
                f"mesh's {shards} batch shards (data x fsdp); change the rows or the mesh"
            )
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
