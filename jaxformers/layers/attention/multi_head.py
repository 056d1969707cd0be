"""Scaled dot-product attention ("Attention Is All You Need", section 3.2).

Axis letters: B batch, T queries, S keys, D model width, H heads, K width of a head, E width of the
output (D unless `out_width` says otherwise).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.attention.backends import choose_backend, report_backend
from jaxformers.layers.attention.cudnn import cudnn_attention
from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.attention.splash import splash_attention
from jaxformers.layers.dropout import Dropout
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import Init, Linear
from jaxformers.layers.norm import Norm
from jaxformers.sharding import constrain

MASKED = -1e9  # finite, so that a row with nothing to attend to stays a number


def attention_probabilities(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H S K"],
    mask: Mask | None,
    bias: Float[Array, "#B #H #T #S"] | None = None,
) -> Float[Array, "B H T S"]:
    """softmax(q k^T + bias) in float32 (equation 1; the queries come already scaled)."""
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias.astype(jnp.float32)
    allowed = None if mask is None else mask.array(q.shape[2], k.shape[2])
    if allowed is not None:
        scores = jnp.where(allowed, scores, MASKED)
    return jax.nn.softmax(scores, axis=-1)


class MultiHeadAttention(nn.Module):
    """Multi-head attention (section 3.2.2): self-, cross-, causal, packed, cached.

    Kernels are `[D, H, K]` for query, key and value and `[H, K, D]` for out.
    """

    width: int
    heads: int
    head_width: int
    use_bias: bool = True
    dropout: float = 0.0
    kernel_init: Init = "xavier"
    """Of query, key and value, and of out if `out_init` is None."""
    execution: Execution = Execution()
    scale: float | None = None
    """Factor of the scores; None: K^-0.5."""
    out_width: int | None = None
    """Width of the output; None: `width`."""
    out_init: Init | None = None
    """Initialiser of the output projection; None: `kernel_init`."""
    query_init: Init | None = None
    """Initialiser of query; None: `kernel_init`."""
    qkv_bias: bool = True
    """False leaves out the biases of query, key and value, whatever `use_bias` is."""
    query_key_norm: float | None = None
    """Epsilon of the layer norm of each head's queries and keys (Dehghani et al. 2023, "Scaling
    Vision Transformers to 22 Billion Parameters"); None: no such norm."""

    def setup(self):
        dtype, split = self.execution.compute_dtype, (self.heads, self.head_width)
        common = dict(dtype=dtype, platform=self.execution.platform)
        inputs = common | dict(use_bias=self.use_bias and self.qkv_bias)
        query_init = self.kernel_init if self.query_init is None else self.query_init
        self.query = Linear((self.width,), split, kernel_init=query_init, **inputs)
        inputs |= dict(kernel_init=self.kernel_init)
        self.key = Linear((self.width,), split, **inputs)
        self.value = Linear((self.width,), split, **inputs)
        out_init = self.kernel_init if self.out_init is None else self.out_init
        outputs = (self.out_width or self.width,)
        self.out = Linear(split, outputs, self.use_bias, out_init, **common)
        if self.query_key_norm is not None:
            # One scale and bias [K] for all heads.
            self.query_norm = Norm(epsilon=self.query_key_norm)
            self.key_norm = Norm(epsilon=self.query_key_norm)
        self.drop = Dropout(self.dropout)

    def queries(self, x: Float[Array, "B T D"]) -> Float[Array, "B H T K"]:
        """Queries, times `scale`: every back-end then takes any scale."""
        scale = self.head_width**-0.5 if self.scale is None else self.scale
        q = self.query(x)  # [B, T, D] -> [B, T, H, K]
        q = q if self.query_key_norm is None else self.query_norm(q)
        # Scaling q multiplies T x K numbers a head, the scores T x S.
        return _heads_first(q * jnp.asarray(scale, self.execution.compute_dtype))

    def keys_values(self, memory: Float[Array, "B S D"]) -> tuple[Array, Array]:
        """Keys and values, each `[B, H, S, K]`: what a cache keeps."""
        k = self.key(memory)
        k = k if self.query_key_norm is None else self.key_norm(k)
        return _heads_first(k), _heads_first(self.value(memory))

    def merge(self, mixed: Float[Array, "B H T K"]) -> Float[Array, "B T E"]:
        """The heads' outputs side by side, through the output projection."""
        return self.out(mixed.swapaxes(1, 2))

    def __call__(
        self,
        x: Float[Array, "B T D"],
        memory: Float[Array, "B S D"] | None = None,
        mask: Mask | None = None,
        *,
        bias: Float[Array, "#B #H #T #S"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T E"]:
        """Attends from x to `memory`, or to x itself when there is none.

        `bias` is added to the scaled scores before the mask and the softmax.

        Attention probabilities `[B, H, T, S]` are sown as `probs` when that collection is mutable
        (`model.apply(..., mutable=["probs"])`), and a variable of the collection `perturb` is
        added to them, so that their gradient can be taken. Unasked, neither costs anything.
        """
        # Self-attention takes keys and values from x, cross-attention from the memory.
        keys_values = self.keys_values(x if memory is None else memory)
        return self.attend(x, *keys_values, mask, bias=bias, train=train)

    def attend(
        self,
        x: Float[Array, "B T D"],
        k: Float[Array, "B H S K"],
        v: Float[Array, "B H S K"],
        mask: Mask | None = None,
        *,
        bias: Float[Array, "#B #H #T #S"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T E"]:
        """`__call__` for keys and values at hand, such as a decoder's cache."""
        q = self.queries(x)
        needs_probs = self.is_mutable_collection("probs") or self.has_variable("perturb", "probs")
        backend = self._backend(q, k, mask, bias, train=train, wanted=needs_probs)
        if backend != "plain":
            fused = splash_attention if backend == "splash" else cudnn_attention
            return self.merge(fused(q, k, v, mask))
        # probs = softmax(q k^T + bias): [B, H, T, S], float32 whatever the compute type.
        probs = attention_probabilities(q, k, mask, bias)
        if needs_probs and not self.is_initializing():
            # d loss / d perturb at perturb = 0 is the gradient of the probabilities themselves.
            if self.has_variable("perturb", "probs"):
                probs = probs + self.get_variable("perturb", "probs")
            self.sow("probs", "probs", probs, reduce_fn=_latest, init_fn=lambda: None)
        # Dropout acts on the probabilities, after the softmax, as in the reference code.
        probs = self.drop(probs.astype(v.dtype), train=train)
        return self.merge(jnp.einsum("BHTS,BHSK->BHTK", probs, v))

    def _backend(self, q, k, mask, bias, *, train: bool, wanted: bool) -> str:
        if self.is_initializing():  # only parameters are wanted
            return "plain"
        # The abstract mesh names the chip that is compiled for, which need not be this machine's.
        lengths, mesh = (q.shape[2], k.shape[2]), jax.sharding.get_abstract_mesh()
        backend = choose_backend(
            self.execution,
            *lengths,
            mask,
            dropout=train and self.dropout > 0,
            probabilities=wanted,
            bias=bias is not None,
            head_width=self.head_width,
            chip=None if mesh.empty else getattr(mesh.abstract_device, "device_kind", ""),
        )
        report_backend(backend, self.execution, *lengths)
        return backend.name


def _latest(_: Any, new: Array) -> Array:
    return new


def _heads_first(x: Float[Array, "B T H K"]) -> Float[Array, "B H T K"]:
    return constrain(x.swapaxes(1, 2), "batch", "heads", "length", "head_width")
