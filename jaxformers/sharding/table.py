"""The table of parameter sharding rules: parameter path -> logical axes -> mesh axes.

Every parameter of every model matches exactly one row; a parameter that matches none, or two, is
an error that names its path. Rows match a path's end, so that they hold for a block under any
prefix of module names (`image/encoder/...`, `text/encoder/...`). Parameters of a stack
(`.../blocks/...`) have a leading layer axis, which rows leave out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import ShardingError
from jaxformers.sharding.mesh import check_auto_axes

# Logical axis of a parameter -> mesh axis that shards it. Axes not listed here ("head_width",
# "layers") are replicated.
PARAMETER_AXES: dict[str, str] = {
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


@dataclass(frozen=True)
class Row:
    """Logical axes of the parameters whose full path matches `pattern`, a regular expression."""

    pattern: str
    axes: tuple[str | None, ...]
    pad: tuple[str, ...] = ()
    """Axes that the model stores padded where they do not divide (the vocabulary)."""
    replicate: tuple[str, ...] = ()
    """Axes that are replicated where they do not divide (small output heads)."""


TABLE: tuple[Row, ...] = (
    # Attention: query, key, value [D, H, K]; out [H, K, D]. Sharding heads over `tensor` keeps
    # softmax(q k^T) v local; `out` sums over heads, one all-reduce.
    Row(r"(.*/)?(query|key|value)/kernel", ("embed", "heads", "head_width")),
    Row(r"(.*/)?(query|key|value)/bias", ("heads", "head_width")),
    Row(r"(.*/)?out/kernel", ("heads", "head_width", "embed")),
    # Feed-forward: up and gate [D, F], down [F, D]; again one all-reduce, after `down`. The biases
    # of out and down are added after that sum, so they are replicated.
    Row(r"(.*/)?(up|gate)/kernel", ("embed", "mlp")),
    Row(r"(.*/)?(up|gate)/bias", ("mlp",)),
    Row(r"(.*/)?down/kernel", ("mlp", "embed")),
    Row(r"(.*/)?(out|down)/bias", (None,)),
    # Norms [D], by their usual names (`head_norm`, `Norm_0`, `ln_post`). A norm's `bias` cannot be
    # told from a dense layer's but by the module's name.
    Row(r"(.*/)?(\w*[nN]orm\w*|[lb]n(_\w+|\d+)?)/(scale|bias)", (None,)),
    # Embedding tables [V, D]; position and type tables [L, D] are short and their rows replicated.
    Row(
        r"(.*/)?(?!\w*([pP]osition|[tT]ype))\w*[eE]mbedding\w*/table",
        ("vocab", "embed"),
        pad=("vocab",),
    ),
    Row(r"(.*/)?logits_bias", ("vocab",), pad=("vocab",)),
    Row(
        r"(.*/)?\w*([pP]osition|[tT]ype)\w*[eE]mbedding\w*/table",
        (None, "embed"),
        replicate=("embed",),
    ),
    # Dense layers and output heads around a backbone.
    Row(r"(.*/)?(pooler|transform|pre_logits|pre_classifier)/kernel", ("embed", None)),
    Row(r"(.*/)?(next_sentence|classifier|spans)/kernel", (None, None)),
    Row(
        r"(.*/)?(pooler|transform|pre_logits|pre_classifier|next_sentence|classifier|spans)/bias",
        (None,),
    ),
    Row(r"(.*/)?(distillation_)?head/kernel", ("embed", None), replicate=("embed",)),
    Row(r"(.*/)?(distillation_)?head/bias", (None,)),
    Row(r"(.*/)?(class|distillation|mask)_token", (None,)),
    # Projections of towers into their common space, and the query of attention pooling.
    # Patches [E, D] into the model's width, and tables [H, buckets] of relative positions.
    Row(r"(.*/)?patch_projection/kernel", ("embed", None), replicate=("embed",)),
    Row(r"(.*/)?relative_bias/(text|image)", ("heads", None)),
    Row(r"(.*/)?projection/kernel", ("embed", None), replicate=("embed",)),
    Row(r"(.*/)?projection/bias", (None,)),
    Row(r"(.*/)?probe", (None, None)),
    Row(r"(.*/)?logit_(scale|bias)", ()),
    Row(r"(.*/)?register_tokens", (None, None)),
    Row(r"(.*/)?\w+_layer_scale", (None,)),
    Row(r"(.*/)?decoder_(embedding|prediction)/kernel", ("embed", None)),
    Row(r"(.*/)?decoder_(embedding|prediction)/bias", (None,)),
    # Convolutions, a patch embedding among them: [height, width, C_in, C_out].
    Row(
        r"(.*/)?\w*([cC]onv|patch_embedding|PatchEmbedding)\w*/kernel",
        (None, None, None, "embed"),
        replicate=("embed",),
    ),
    Row(r"(.*/)?\w*([cC]onv|patch_embedding|PatchEmbedding)\w*/bias", (None,)),
    # A codebook [codes, width]: every row competes in the search for the nearest, so codes stay
    # together.
    Row(r"(.*/)?codebook", (None, "embed"), replicate=("embed",)),
)


def path_text(path: Sequence[Any]) -> str:
    """A JAX tree path as text, such as `encoder/blocks/self_attention/query/kernel`."""
    # Dictionary keys have `key`, dataclass fields `name`, list items `idx`.
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def row_for(path: str, table: Sequence[Row] = TABLE) -> Row:
    """The row that matches `path`.

    Raises:
        ShardingError: no row matches, or several do.
    """
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
    """Logical axes of a parameter, including the layer axis of a stack.

    Raises:
        ShardingError: no single row matches, or its number of axes differs from the shape's.
    """
    row = row_for(path, table)
    # `nn.scan` stacks the parameters of a stack's blocks along a new first axis, which is never
    # sharded: each turn of the scan slices one layer out of it.
    stacked = "blocks" in path.split("/") and len(shape) == len(row.axes) + 1
    axes = ("layers", *row.axes) if stacked else row.axes
    if len(axes) != len(shape):
        raise ShardingError(
            f"the sharding row {row.pattern!r} has {len(row.axes)} axes {row.axes}, but the "
            f"parameter {path!r} has shape {tuple(shape)}"
        )
    return axes


def parameter_spec(path: str, shape: Sequence[int], sizes: dict[str, int], table=TABLE):
    """The `PartitionSpec` of a parameter on a mesh with these axis sizes.

    Raises:
        ShardingError: no single row matches, or a dimension that does not divide.
    """
    row, axes = row_for(path, table), axes_of(path, shape, table)
    entries: list[str | None] = []
    for size, axis in zip(shape, axes, strict=True):
        mesh_axis = PARAMETER_AXES.get(axis) if axis else None
        num_shards = sizes.get(mesh_axis, 1) if mesh_axis else 1
        if size % num_shards and axis not in row.replicate:
            remedy = (
                "build the model with a vocabulary multiple that it divides"
                if axis in row.pad
                else f"choose --mesh.{mesh_axis} as a divisor of {size}, or give its row "
                f"replicate=({axis!r},)"
            )
            raise ShardingError(
                f"parameter {path!r} of shape {tuple(shape)}: its {axis!r} of {size} does not "
                f"divide over {mesh_axis}={num_shards}; {remedy}"
            )
        # None rather than a mesh axis of size 1, so that equal layouts have equal specs.
        entries.append(mesh_axis if num_shards > 1 and size % num_shards == 0 else None)
    return PartitionSpec(*entries)


def shardings(tree: Any, mesh: Mesh | AbstractMesh, table: Sequence[Row] = TABLE) -> Any:
    """A tree of `NamedSharding` for a tree of parameters or `ShapeDtypeStruct`s."""
    check_auto_axes(mesh)
    sizes = dict(mesh.shape)

    def sharding_of(path, leaf):
        return NamedSharding(mesh, parameter_spec(path_text(path), leaf.shape, sizes, table))

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def describe_parameters(tree: Any, sizes: dict[str, int], table: Sequence[Row] = TABLE) -> list:
    """A tuple (path, shape, dtype, axes, bytes per device) for each parameter, in tree order."""
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_text(path)
        spec = parameter_spec(name, leaf.shape, sizes, table)
        num_shards = math.prod(sizes[a] for a in spec if a is not None)
        size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize // num_shards
        rows.append((name, leaf.shape, str(leaf.dtype), axes_of(name, leaf.shape, table), size))
    return rows
