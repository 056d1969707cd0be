"""`Execution`: compute type, platform and memory choices of a model, apart from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxformers.fields import CheckedFields, PositiveInt

Remat = Literal["none", "full", "dots"]
Attention = Literal["auto", "plain", "splash", "cudnn"]


@dataclass(frozen=True)
class Execution(CheckedFields):
    """Compute type, platform and memory choices of a model; its weights do not depend on them."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of products and activations; softmax, norms, logits and losses stay float32."""
    target: Literal["cpu", "gpu", "tpu"] | None = None
    """Platform compiled for; None: JAX's default backend."""
    remat: Remat = "none"
    """What the backward pass recomputes: nothing, whole blocks, or all but matrix products."""
    attention: Attention = "auto"
    """Back-end of attention; `auto`: splash attention on TPU where it saves memory. Cases that a
    kernel does not support (attention dropout, returned probabilities) fall back to `plain`.
    `cudnn` is for GPUs."""
    vocab_multiple: PositiveInt = 1
    """The vocabulary is stored padded to a multiple of this; the added logits are masked."""

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The NumPy type of `dtype`."""
        return jnp.dtype(self.dtype)

    @property
    def platform(self) -> str:
        """The platform compiled for."""
        return self.target or jax.default_backend()

    def rows(self, vocab_size: int) -> int:
        """Rows of a stored vocabulary: `vocab_size` rounded up to `vocab_multiple`."""
        return -(-vocab_size // self.vocab_multiple) * self.vocab_multiple


def remat_policy(remat: Remat):
    """The `jax.checkpoint` policy of that name; None for "full": save nothing."""
    # Products with a batch dimension are attention's [B, H, T, S] scores, the largest arrays.
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
