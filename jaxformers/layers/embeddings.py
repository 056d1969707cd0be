"""Token and position embeddings (sections 3.4 and 3.5)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.layers.attention.multi_head import MASKED
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import multiply
from jaxformers.sharding import constrain

Sinusoid = Literal["interleaved", "concatenated", "marian"]
GridSinusoid = Literal["big_vision", "mae"]


def sinusoids(length: int, width: int, kind: Sinusoid = "interleaved") -> np.ndarray:
    """The `[length, width]` float32 table of sines and cosines, in one of three conventions.

    interleaved: the paper's equation, sin and cos in turn, frequency 10000^(-2i/width).
    concatenated: Tensor2Tensor's and fairseq's, [sin | cos], frequency 10000^(-i/(width/2 - 1)).
    marian: Marian's and Hugging Face's, [sin | cos], frequency 10000^(-2i/width).
    """
    half = -(-width // 2)
    i = np.arange(half, dtype=np.float64)
    step = max(width // 2 - 1, 1) if kind == "concatenated" else width / 2
    angles = np.arange(length, dtype=np.float64)[:, None] * 10000.0 ** (-i / step)
    table = np.zeros((length, width), np.float32)
    if kind == "interleaved":
        table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles[:, : width // 2])
    else:
        table[:, :half], table[:, half:] = np.sin(angles), np.cos(angles[:, : width // 2])
    return table


def grid_sinusoids(
    height: int, width: int, channels: int, kind: GridSinusoid = "big_vision"
) -> np.ndarray:
    """The `[height * width, channels]` float32 table of a grid's positions, row by row.

    A quarter each: [sin x | cos x | sin y | cos y], x the column. Frequencies are
    10000^(-i/(channels/4 - 1)) (big_vision) or 10000^(-i/(channels/4)) (mae); `channels` is a
    multiple of 4.
    """
    quarter = channels // 4
    step = max(quarter - 1, 1) if kind == "big_vision" else quarter
    frequencies = 10000.0 ** (-np.arange(quarter, dtype=np.float64) / step)
    y, x = np.mgrid[:height, :width].reshape(2, -1, 1) * frequencies
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], 1).astype(np.float32)


class TokenEmbedding(nn.Module):
    """A table `[V, D]` that embeds tokens and, tied, gives logits (section 3.4).

    The table starts as N(0, std), cut at two standard deviations when `truncated`. `pad_id`, when
    set, is the padding token: its lookups have no gradient, and with
    `zero_pad` it embeds as the zero vector (Tensor2Tensor's padding and start token).
    """

    vocab_size: int
    width: int
    std: float
    pad_id: int | None = None
    zero_pad: bool = False
    truncated: bool = False
    execution: Execution = Execution()

    def setup(self):
        rows = self.execution.rows(self.vocab_size)
        init = _normal(self.std, self.truncated)
        self.table = self.param("table", init, (rows, self.width))

    def _gathered(self) -> Array:
        # Gathered over fsdp before use: a lookup in a table divided over its width makes XLA
        # replicate the whole result.
        return constrain(self.table, "vocab", None).astype(self.execution.compute_dtype)

    def embed(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Looks up rows of the table."""
        x = jnp.take(self._gathered(), ids, axis=0)
        if self.pad_id is not None:
            # The gradient of the pad row is stopped here, not masked in the optimizer.
            padding = jnp.zeros_like(x) if self.zero_pad else jax.lax.stop_gradient(x)
            x = jnp.where((ids == self.pad_id)[..., None], padding, x)
        return constrain(x, "batch", "length", "embed")

    def logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """x E^T in float32; V is the stored vocabulary, the rows beyond `vocab_size` masked."""
        x = x.astype(self.execution.compute_dtype)
        y = multiply(x, self._gathered().T, 1, self.execution.platform, jnp.dtype("float32"))
        return constrain(mask_padding(y, self.vocab_size), "batch", "length", "vocab")


def mask_padding(logits: Float[Array, "*batch V"], vocab_size: int) -> Float[Array, "*batch V"]:
    """Logits with the entries of padding rows, if there are any, made impossible."""
    if logits.shape[-1] == vocab_size:
        return logits
    real = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) < vocab_size
    return jnp.where(real, logits, jnp.asarray(MASKED, logits.dtype))


def _normal(std: float, truncated: bool):
    """Initialiser N(0, std); `truncated`: cut at two standard deviations and not rescaled."""
    if not truncated:
        return nn.initializers.normal(std)
    return lambda key, shape: std * jax.random.truncated_normal(key, -2.0, 2.0, shape)


class PositionEmbedding(nn.Module):
    """Learned position vectors, a table `[max_length, D]`."""

    max_length: int
    width: int
    std: float = 0.02
    truncated: bool = False

    def setup(self):
        init = _normal(self.std, self.truncated)
        self.table = self.param("table", init, (self.max_length, self.width))

    def __call__(self, positions: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Embeddings of the given positions."""
        return jnp.take(constrain(self.table, None, None), positions, axis=0)

    def rows(
        self, length: int, positions: Int[Array, "B L"] | None = None
    ) -> Float[Array, "#B L D"]:
        """Embeddings of `positions`; None: of 0 to `length` - 1, `[1, L, D]`, without a lookup."""
        if positions is not None:
            return self(positions)
        return constrain(self.table, None, None)[None, :length]


class TypeEmbedding(nn.Module):
    """Vectors of a few token types, such as sentence A and B: a table `[types, D]`."""

    types: int
    width: int
    std: float = 0.02

    @nn.compact
    def __call__(self, ids: Int[Array, "B L"] | None, dtype: jnp.dtype) -> Float[Array, "#B #L D"]:
        """The vectors of these types in `dtype`; None: type 0 everywhere, `[1, 1, D]`."""
        table = self.param("table", _normal(self.std, True), (self.types, self.width))
        table = constrain(table, None, None).astype(dtype)
        if ids is None:
            return table[None, :1]
        # A one-hot product [B, L, T] x [T, D]: a lookup's gradient is a slow scatter-add of B x L
        # rows into a few.
        return jnp.einsum("BLT,TD->BLD", jax.nn.one_hot(ids, self.types, dtype=dtype), table)
