"""The two biases of attention by positions, shared by all blocks of a stack.

The absolute bias is a product of projected position embeddings (Ke et al. 2021, "Rethinking
Positional Encoding in Language Pre-training"); the relative one is T5's for pairs of text tokens,
and a table over both axes of the grid for pairs of image tokens. Between text and image there is no
relative bias.

Axis letters: B batch, T text tokens, P patches or codes, L tokens (T + P), H heads, K width of a
head, D model width.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.layers import Execution, Linear
from jaxformers.layers.linear import initializer
from jaxformers.models.unified_io.config import UnifiedIOConfig

TEXT_BUCKETS, TEXT_DISTANCE = 32, 128
IMAGE_BUCKETS, IMAGE_DISTANCE = 8, 20
"""Buckets of one axis of the grid, and the distance from which they are the last."""
QUADRANT = IMAGE_BUCKETS**2


class AbsoluteBias(nn.Module):
    """Scores of positions: (p W_query) (p W_key)^T / sqrt(D / H)."""

    config: UnifiedIOConfig
    execution: Execution = Execution()

    def setup(self):
        c, heads = self.config, (self.config.heads, self.config.head_width)
        common = dict(dtype=self.execution.compute_dtype, platform=self.execution.platform)
        self.query = Linear((c.width,), heads, False, "lecun", **common)
        self.key = Linear((c.width,), heads, False, "lecun", **common)

    def __call__(
        self, positions: Float[Array, "#B T D"], memory_positions: Float[Array, "#B S D"]
    ) -> Float[Array, "#B H T S"]:
        """The bias of queries at `positions` to keys at `memory_positions`."""
        # Not K^-0.5: the published code divides by the heads' share of the width, which differs
        # from K in the small model.
        scale = (self.config.width / self.config.heads) ** -0.5
        q, k = self.query(positions), self.key(memory_positions)
        return jnp.einsum("BTHK,BSHK->BHTS", q, k) * jnp.asarray(scale, q.dtype)


class RelativeBias(nn.Module):
    """Relative bias of text tokens and of image tokens, zero between them."""

    heads: int
    bidirectional: bool
    """Whether text tokens look both ways; the decoder's look back only."""

    def setup(self):
        init = initializer("xavier", 1)
        self.text = self.param("text", init, (self.heads, TEXT_BUCKETS))
        self.image = self.param("image", init, (self.heads, 4 * QUADRANT))

    def __call__(
        self,
        text_positions: Int[Array, "#B T"],
        image_positions: Int[Array, "#B P"],
        columns: int,
        dtype: jnp.dtype,
    ) -> Float[Array, "#B H L L"]:
        """The bias of all pairs, text first.

        Args:
            text_positions: running numbers of the text tokens.
            image_positions: running numbers of the image tokens in a grid, row by row.
            columns: the grid's number of columns.
            dtype: type of the result.
        """
        text = self.text[:, text_buckets(text_positions, self.bidirectional)]  # [H, B, T, T]
        image = self.image[:, image_buckets(image_positions, columns)]  # [H, B, P, P]
        num_text, num_image = text.shape[-1], image.shape[-1]
        # Batches of one broadcast: positions that all examples share are computed once.
        batch = max(text.shape[1], image.shape[1])
        text = jnp.pad(text, ((0, 0), (0, 0), (0, num_image), (0, num_image)))
        image = jnp.pad(image, ((0, 0), (0, 0), (num_text, 0), (num_text, 0)))
        text, image = (
            jnp.broadcast_to(x, (x.shape[0], batch, *x.shape[2:])) for x in (text, image)
        )
        return (text + image).swapaxes(0, 1).astype(dtype)  # [B, H, L, L]


def text_buckets(positions: Int[Array, "B T"], bidirectional: bool) -> Int[Array, "B T T"]:
    """T5's bucket of each pair of query and key (Raffel et al. 2020, section 2.1)."""
    distance = positions[:, :, None] - positions[:, None, :]  # query - key
    if not bidirectional:
        return _log_buckets(distance.clip(0), TEXT_BUCKETS, TEXT_DISTANCE)
    half = TEXT_BUCKETS // 2
    # |query - key|, of NumPy's and of JAX's arrays.
    buckets = _log_buckets(distance.clip(0) + (-distance).clip(0), half, TEXT_DISTANCE)
    return buckets + half * (distance < 0).astype(np.int32)


def image_buckets(positions: Int[Array, "B P"], columns: int) -> Int[Array, "B P P"]:
    """The bucket of each pair of patches, by quadrant and by the distance on either axis."""
    x, y = positions % columns, positions // columns
    x = x[:, :, None] - x[:, None, :]  # query - key
    y = y[:, :, None] - y[:, None, :]
    # The published conditions, of which the four are not symmetric at the axes.
    conditions = ((x > 0) & (y <= 0), (x < 0) & (y >= 0), (x <= 0) & (y < 0))
    quadrant = sum(n * condition.astype(np.int32) for n, condition in enumerate(conditions, 1))
    x, y = (_log_buckets(abs(axis), IMAGE_BUCKETS, IMAGE_DISTANCE) for axis in (x, y))
    return QUADRANT * quadrant + x + IMAGE_BUCKETS * y


def _log_buckets(
    distances: Int[Array, "*shape"], buckets: int, longest: int
) -> Int[Array, "*shape"]:
    """The bucket of each distance: exact to half of them, then logarithmic up to `longest`."""
    exact = buckets // 2
    d = np.arange(longest + 1, dtype=np.float32)
    # In float32, with the published epsilon: at powers of two the logarithm is a whole number, and
    # its rounding decides the bucket.
    epsilon = np.finfo(np.float32).eps
    logarithm = np.log(d / np.float32(exact) + epsilon) / np.log(np.float32(longest / exact))
    large = exact + (logarithm * np.float32(buckets - exact)).astype(np.int32)
    table = np.where(d < exact, d.astype(np.int32), np.minimum(large, buckets - 1))
    indices = distances.clip(0, longest)
    # Fixed positions stay NumPy arrays, constants of the program.
    return jnp.asarray(table)[indices] if isinstance(indices, jax.Array) else table[indices]
