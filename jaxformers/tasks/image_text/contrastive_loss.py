"""Contrastive losses over a global batch: CLIP's softmax and SigLIP's sigmoid.

Row i holds an image and its text; every other text of the batch is a negative of the image, and
the reverse (Radford et al. 2021, figure 3; Zhai et al. 2023, algorithm 1). On a mesh the rows lie
on the axes `data` and `fsdp`, and the negatives are those of all devices. Two forms give the same
loss and gradients:

`plain` gathers the embeddings and writes the logits, `[B / n, B]` on each of n devices.
`ring` passes the texts from device to device and keeps one block of logits at a time: its memory
does not grow with the batch, in the backward pass neither, which passes them around once more.

Axis letters: B global batch, b rows of a device, c columns of a block, E embedding.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.layers.attention.multi_head import MASKED
from jaxformers.sharding.activations import ACTIVATION_AXES

Objective = Literal["softmax", "sigmoid"]
Duplicates = Literal["negatives", "positives", "masked"]
Form = Literal["auto", "plain", "ring"]
LARGEST_PLAIN = 2**26
"""Logits of a device up to which `auto` takes the plain form: four arrays of 256 MiB."""
BLOCK = 1024
"""Columns of the ring's blocks at most."""
NEGATIVES = "negatives"
"""Name of the scope of these operations: `check` expects them to move rows between devices."""


class Rule(NamedTuple):
    """What is a positive, and how logits are masked; static."""

    objective: Objective
    duplicates: Duplicates


def contrastive_loss(
    image_embeds: Float[Array, "B E"],
    text_embeds: Float[Array, "B E"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""] | None = None,
    *,
    groups: Int[Array, "B G"] | None = None,
    objective: Objective = "softmax",
    duplicates: Duplicates = "negatives",
    form: Form = "auto",
) -> Float[Array, ""]:
    """The loss summed over the rows; divided by B it is the published mean.

    softmax: half the sum of both cross-entropies, of the texts given each image and of the images
    given each text. sigmoid: -log sigmoid(z logit) over all pairs, z 1 for a positive and -1 else.

    Args:
        image_embeds: of unit length, float32.
        text_embeds: of unit length, float32; row i belongs to image i.
        logit_scale: log of the factor of the cosines.
        logit_bias: added to the logits (SigLIP); None: nothing.
        groups: numbers of each row's image, caption and the like; two rows with an equal one are
            duplicates. None: all differ.
        objective: `softmax` or `sigmoid`.
        duplicates: what a pair of duplicates is: a negative like any other, a further
            positive (the softmax's target is then uniform over the positives), or left out.
        form: see the module; `auto` goes by the number of logits on a device.
    """
    batch = image_embeds.shape[0]
    if groups is None or duplicates == "negatives":
        groups = jnp.arange(batch)[:, None]
    bias = jnp.zeros(()) if logit_bias is None else logit_bias
    arguments = image_embeds, text_embeds, jnp.exp(logit_scale), bias, groups
    rule = Rule(objective, duplicates)
    rows = batch // _num_shards()
    ring = form == "ring" or (form == "auto" and rows * batch > LARGEST_PLAIN)
    with jax.named_scope(NEGATIVES):
        return _ring_loss(rule, *arguments) if ring else _plain_loss(rule, *arguments)


def _plain_loss(rule: Rule, image, text, scale, bias, groups) -> Float[Array, ""]:
    axes = _batch_axes()
    function = partial(_device_plain, rule, axes)
    if axes:
        rows, whole = PartitionSpec(axes), PartitionSpec()
        specs = (rows, rows, whole, whole, rows)
        function = jax.shard_map(function, in_specs=specs, out_specs=rows)
    return function(image, text, scale, bias, groups).sum()


def _device_plain(rule: Rule, axes, image, text, scale, bias, groups):
    """The loss of each of this device's rows, `[b]`, against the columns of all devices."""
    index = _row_index(axes, image.shape[0])

    def gather(x):
        """The rows of all devices; the gradient is scattered back and summed."""
        return jax.lax.all_gather(x, axes, tiled=True) if axes else x

    all_groups, all_index = gather(groups), gather(index)
    positives, weights = _pairs(rule, groups, all_groups, index, all_index)  # [b, B]

    def directed(rows, columns):
        logits = _logits(rows, gather(columns), scale, bias)
        if rule.objective == "sigmoid":
            return jnp.where(weights, _sigmoid_loss(logits, positives), 0.0).sum(-1)
        logits = jnp.where(weights, logits, MASKED)
        count = positives.sum(-1, dtype=jnp.float32)
        target = jnp.where(positives, logits, 0.0).sum(-1) / count
        return jax.nn.logsumexp(logits, axis=-1) - target

    if rule.objective == "sigmoid":
        return directed(image, text)
    return (directed(image, text) + directed(text, image)) / 2


def _logits(rows, columns, scale, bias):
    """scale cos + bias, `[rows, columns]`."""
    # At the highest precision: a TPU's default product would be wrong by 0.2 at a scale of 100.
    return scale * jnp.einsum("iE,jE->ij", rows, columns, precision="highest") + bias


def _pairs(rule: Rule, row_groups, column_groups, row_index, column_index):
    """Which pairs are positives, and which count, both `[rows, columns]`."""
    diagonal = row_index[:, None] == column_index[None, :]
    same = (row_groups[:, None] == column_groups[None, :]).any(-1)  # [rows, columns, G] before
    if rule.duplicates == "positives":
        return same | diagonal, jnp.ones_like(diagonal)
    return diagonal, diagonal | ~same if rule.duplicates == "masked" else jnp.ones_like(diagonal)


def _sigmoid_loss(logits, positives):
    return -jax.nn.log_sigmoid(jnp.where(positives, logits, -logits))


class Columns(NamedTuple):
    """The texts that travel, `[b, ...]`, with where they come from."""

    text: Array
    groups: Array
    index: Array


class Sums(NamedTuple):
    """Running sums of the logits of rows or columns, each `[b]`."""

    maximum: Array
    exponentials: Array
    """Sum of exp(logit - maximum)."""
    positive: Array
    """Sum of the positives' logits."""
    count: Array
    """Number of positives."""

    def log_sum(self) -> Array:
        """log of the sum of exp(logit)."""
        return self.maximum + jnp.log(self.exponentials)

    def add(self, logits: Array, positives: Array, axis: int) -> Sums:
        """With the logits of a block, summed over `axis`."""
        maximum = jnp.maximum(self.maximum, logits.max(axis))
        block = jnp.exp(logits - jnp.expand_dims(maximum, axis)).sum(axis)
        return Sums(
            maximum,
            self.exponentials * jnp.exp(self.maximum - maximum) + block,
            self.positive + jnp.where(positives, logits, 0.0).sum(axis),
            self.count + positives.sum(axis, dtype=jnp.float32),
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring_loss(rule: Rule, image, text, scale, bias, groups) -> Float[Array, ""]:
    return _ring_forward(rule, image, text, scale, bias, groups)[0]


def _ring_forward(rule: Rule, image, text, scale, bias, groups):
    total, rows, columns = _on_mesh(partial(_device_forward, rule), image, text, groups)(
        image, text, scale, bias, groups
    )
    return total, (image, text, scale, bias, groups, rows, columns)


def _ring_backward(rule: Rule, residuals, gradient):
    image, text, scale, bias, groups, rows, columns = residuals
    run = _on_mesh(partial(_device_backward, rule), image, text, groups, rows, columns)
    d_image, d_text, d_scale, d_bias = run(image, text, scale, bias, groups, rows, columns)
    scaled = (gradient * g for g in (d_image, d_text, d_scale, d_bias))
    return *scaled, None


_ring_loss.defvjp(_ring_forward, _ring_backward)


def _device_forward(rule: Rule, axes, image, text, scale, bias, groups):
    """The loss of all devices; and the log sums and counts of this one's rows and columns."""
    size, index = image.shape[0], _row_index(axes, image.shape[0])
    # The finite start makes the first rescaling exp(-1e9 - maximum) = 0 rather than NaN.
    zeros = jnp.zeros(size)
    start = Sums(jnp.full(size, MASKED), zeros, zeros, zeros)

    def meet(carry, columns: Columns, column_sums: Sums):
        """One block: this device's images against c of the visiting texts."""
        row_sums, loss = carry
        logits = _logits(image, columns.text, scale, bias)  # [b, c]
        positives, weights = _pairs(rule, groups, columns.groups, index, columns.index)
        if rule.objective == "sigmoid":
            losses = jnp.where(weights, _sigmoid_loss(logits, positives), 0.0)
            return (row_sums, loss + losses.sum()), column_sums
        logits = jnp.where(weights, logits, MASKED)
        added = row_sums.add(logits, positives, 1), loss
        return added, column_sums.add(logits, positives, 0)

    columns = Columns(text, groups, index)
    (rows, loss), _, columns_home = _travel(axes, meet, (start, jnp.zeros(())), columns, start)
    if rule.objective == "softmax":
        losses = (s.log_sum() - s.positive / s.count for s in (rows, columns_home))
        loss = sum(loss.sum() for loss in losses) / 2
    total = jax.lax.psum(loss, axes) if axes else loss
    return total, (rows.log_sum(), rows.count), (columns_home.log_sum(), columns_home.count)


def _device_backward(rule: Rule, axes, image, text, scale, bias, groups, rows, columns):
    """Gradients of this device's images and texts, and of scale and bias by all devices."""
    index = _row_index(axes, image.shape[0])
    row_log_sum, row_count = rows

    def meet(carry, visiting, d_text):
        d_image, d_scale, d_bias = carry
        (texts, text_groups, text_index), (log_sum, count) = visiting
        cosines = jnp.einsum("iE,jE->ij", image, texts, precision="highest")
        logits = scale * cosines + bias
        positives, weights = _pairs(rule, groups, text_groups, index, text_index)
        if rule.objective == "sigmoid":
            sign = jnp.where(positives, 1.0, -1.0)
            g = jnp.where(weights, -sign * jax.nn.sigmoid(-sign * logits), 0.0)
        else:
            # d loss / d logit = (softmax over the row - target + the same over the column) / 2.
            softmaxes = jnp.exp(logits - row_log_sum[:, None]) + jnp.exp(logits - log_sum[None])
            target = jnp.where(positives, 1 / row_count[:, None] + 1 / count[None], 0.0)
            g = jnp.where(weights, softmaxes - target, 0.0) / 2
        d_image += scale * jnp.einsum("ij,jE->iE", g, texts, precision="highest")
        d_text += scale * jnp.einsum("ij,iE->jE", g, image, precision="highest")
        return (d_image, d_scale + (g * cosines).sum(), d_bias + g.sum()), d_text

    zero = jnp.zeros(())
    visiting = Columns(text, groups, index), columns
    carry = jnp.zeros_like(image), zero, zero
    carry, _, d_text = _travel(axes, meet, carry, visiting, jnp.zeros_like(text))
    d_image, d_scale, d_bias = carry
    if axes:
        d_scale, d_bias = jax.lax.psum((d_scale, d_bias), axes)
    return d_image, d_text, d_scale, d_bias


def _travel(axes, meet, carry, visiting, results):
    """Lets `visiting` pass by every device, with `results` that each adds to; all come home.

    `meet(carry, visiting, results)` is called with blocks of at most `BLOCK` of their rows.
    """
    size = jax.tree.leaves(visiting)[0].shape[0]
    block = max(n for n in range(1, min(size, BLOCK) + 1) if size % n == 0)

    def cut(tree):
        return jax.tree.map(lambda x: x.reshape(size // block, block, *x.shape[1:]), tree)

    def visit(state, _):
        carry, visiting, results = state

        def one_block(carry, blocks):
            return meet(carry, *blocks)

        carry, results = jax.lax.scan(one_block, carry, (cut(visiting), cut(results)))
        results = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), results)
        return (carry, *_pass_on(axes, (visiting, results))), None

    state, _ = jax.lax.scan(visit, (carry, visiting, results), length=_ring_size(axes))
    return state


def _pass_on(axes, tree):
    """Each device's arrays to the next one of the ring; as they are without a mesh."""
    if not axes:
        return tree
    size = _ring_size(axes)
    to_next = [(i, (i + 1) % size) for i in range(size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, to_next), tree)


def _ring_size(axes) -> int:
    return jax.lax.axis_size(axes) if axes else 1


def _row_index(axes, rows: int):
    """The places of this device's rows in the global batch."""
    start = jax.lax.axis_index(axes) * rows if axes else 0
    return start + jnp.arange(rows)


def _batch_axes() -> tuple[str, ...]:
    """The axes of the current mesh that cut a batch."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return tuple(axis for axis in ACTIVATION_AXES["batch"] if axis in sizes)


def _num_shards() -> int:
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(sizes[axis] for axis in _batch_axes())


def _on_mesh(function, *row_arrays: Any):
    """`function(axes, ...)` on every device's rows, or on all rows without a mesh.

    Scale and bias are replicated; every other argument, and every result that is no scalar, is cut
    by rows.
    """
    axes = _batch_axes()
    function = partial(function, axes)
    if not axes:
        return function
    rows, whole = PartitionSpec(axes), PartitionSpec()
    forward = len(row_arrays) == 3
    specs = (rows, rows, whole, whole, rows) + (() if forward else (rows, rows))
    outputs = (whole, rows, rows) if forward else (rows, rows, whole, whole)
    # The loop's carries differ by device, which the check of replication cannot follow.
    return jax.shard_map(function, in_specs=specs, out_specs=outputs, check_vma=False)
