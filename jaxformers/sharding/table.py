"""The one table of parameter axes: parameter path -> logical axes -> mesh axes.

Every parameter of every model matches exactly one row; a parameter that matches none, or two, is
an error that names its path. A stack holds its blocks' parameters with a leading layer axis (its
path has the part `blocks`), which rows do not write.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import ShardingError

# Logical axis of a parameter -> mesh axis. An axis that is not here stays whole.
PARAMETER_AXES: dict[str, str] = {
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


@dataclass(frozen=True)
class Row:
    """Axes of the parameters whose whole path matches `pattern`, a regular expression."""

    pattern: str
    axes: tuple[str | None, ...]
    pad: tuple[str, ...] = ()
    """Axes that the model stores padded when they do not divide (vocabulary)."""
    replicate: tuple[str, ...] = ()
    """Axes that stay whole when they do not divide (small heads)."""


TABLE: tuple[Row, ...] = (
    Row(r"(.*/)?(query|key|value)/kernel", ("embed", "heads", "head_width")),
    Row(r"(.*/)?(query|key|value)/bias", ("heads", "head_width")),
    Row(r"(.*/)?out/kernel", ("heads", "head_width", "embed")),
    Row(r"(.*/)?(up|gate)/kernel", ("embed", "mlp")),
    Row(r"(.*/)?(up|gate)/bias", ("mlp",)),
    Row(r"(.*/)?down/kernel", ("mlp", "embed")),
    Row(r"(.*/)?(out|down)/bias", (None,)),
    Row(r"(.*/)?(\w+_)?norm/(scale|bias)", (None,)),
    Row(r"(.*/)?token_embedding/table", ("vocab", "embed"), pad=("vocab",)),
    Row(r"(.*/)?logits_bias", ("vocab",), pad=("vocab",)),
    Row(r"(.*/)?(\w+_)?(position|type)_embedding/table", (None, "embed"), replicate=("embed",)),
    Row(r"(.*/)?(pooler|transform|pre_logits)/kernel", ("embed", None)),
    Row(r"(.*/)?(next_sentence|classifier|spans)/kernel", (None, None)),
    Row(r"(.*/)?(pooler|transform|pre_logits|next_sentence|classifier|spans)/bias", (None,)),
    Row(r"(.*/)?patch_embedding/kernel", (None, None, None, "embed"), replicate=("embed",)),
    Row(r"(.*/)?(class|mask)_token", (None,)),
    Row(r"(.*/)?decoder_(embedding|prediction)/kernel", ("embed", None)),
    Row(r"(.*/)?(patch_embedding|decoder_embedding|decoder_prediction)/bias", (None,)),
    Row(r"(.*/)?(\w+_)?conv/kernel", (None, None, None, "embed"), replicate=("embed",)),
    Row(r"(.*/)?(\w+_)?conv/bias", (None,)),
    Row(r"(.*/)?head/kernel", ("embed", None), replicate=("embed",)),
    Row(r"(.*/)?head/bias", (None,)),
)


def path_text(path: Sequence[Any]) -> str:
    """A tree path as `encoder/blocks/self_attention/query/kernel`."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def row_for(path: str, table: Sequence[Row] = TABLE) -> Row:
    """The one row that matches `path`; ShardingError for none or several."""
    rows = [row for row in table if re.fullmatch(row.pattern, path)]
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise ShardingError(
            f"no sharding row matches the parameter {path!r}; add one, such as "
            f"Row(r'(.*/)?{'/'.join(re.escape(p) for p in path.split('/')[-2:])}', (axes...))"
        )
    patterns = " and ".join(repr(row.pattern) for row in rows)
    raise ShardingError(f"{len(rows)} sharding rows match the parameter {path!r}: {patterns}")


def axes_of(path: str, shape: Sequence[int], table: Sequence[Row] = TABLE) -> tuple:
    """Logical axes of one parameter, the layer axis of a stack included."""
    row = row_for(path, table)
    stacked = "blocks" in path.split("/") and len(shape) == len(row.axes) + 1
    axes = ("layers", *row.axes) if stacked else row.axes
    if len(axes) != len(shape):
        raise ShardingError(
            f"the sharding row {row.pattern!r} has {len(row.axes)} axes {row.axes}, but the "
            f"parameter {path!r} has shape {tuple(shape)}"
        )
    return axes


def parameter_spec(path: str, shape: Sequence[int], sizes: dict[str, int], table=TABLE):
    """The `PartitionSpec` of one parameter on a mesh of these axis sizes.

    Raises:
        ShardingError: no single row matches, or a dimension that does not divide.
    """
    row, axes = row_for(path, table), axes_of(path, shape, table)
    entries: list[str | None] = []
    for size, axis in zip(shape, axes, strict=True):
        mesh_axis = PARAMETER_AXES.get(axis) if axis else None
        parts = sizes.get(mesh_axis, 1) if mesh_axis else 1
        if size % parts and axis not in row.replicate:
            raise ShardingError(_indivisible(path, shape, axis, size, mesh_axis, parts, row))
        entries.append(mesh_axis if parts > 1 and size % parts == 0 else None)
    return PartitionSpec(*entries)


def _indivisible(path, shape, axis, size, mesh_axis, parts, row) -> str:
    mend = (
        "build the model with a vocabulary multiple that it divides"
        if axis in row.pad
        else f"choose --mesh.{mesh_axis} as a divisor of {size}, or give its row "
        f"replicate=({axis!r},)"
    )
    return (
        f"parameter {path!r} of shape {tuple(shape)}: its {axis!r} of {size} does not divide over "
        f"{mesh_axis}={parts}; {mend}"
    )


def shardings(tree: Any, mesh: Mesh, table: Sequence[Row] = TABLE) -> Any:
    """The tree of `NamedSharding` for a tree of parameters or their `ShapeDtypeStruct`s."""
    sizes = dict(mesh.shape)

    def one(path, leaf):
        return NamedSharding(mesh, parameter_spec(path_text(path), leaf.shape, sizes, table))

    return jax.tree_util.tree_map_with_path(one, tree)


def describe_parameters(tree: Any, sizes: dict[str, int], table: Sequence[Row] = TABLE) -> list:
    """One tuple (path, shape, type, axes, bytes per device) for each parameter, in tree order."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_text(path)
        spec = parameter_spec(name, leaf.shape, sizes, table)
        parts = math.prod(sizes[a] for a in spec if a is not None)
        size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize // parts
        rows.append((name, leaf.shape, str(leaf.dtype), axes_of(name, leaf.shape, table), size))
    return rows
