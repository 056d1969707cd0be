"""What greedy search, beam search and sampling need of a model.

Axis letters: B batch, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.sharding import batch_multiple


class Vocabulary(NamedTuple):
    """The size of the output vocabulary and its special tokens."""

    size: int
    """Columns of the logits from here on are padding, and are never generated."""
    start_id: int
    """The first decoder input."""
    eos_id: int
    """The end of a sequence."""
    pad_id: int
    """Fills a sequence after its end."""
    forced_eos_id: int | None = None
    """The token forced, at no cost, as the last of a sequence that reaches its maximum length."""
    banned_ids: tuple[int, ...] = ()
    """Tokens that are never generated, unless forced."""


@runtime_checkable
class StepDecoder(Protocol):
    """A model that generates one token at a time over a cache.

    `decode` compiles one program for each decoder, so a decoder is hashable and equal to another
    that computes the same: a frozen dataclass around a module, for example. Its arrays are in
    `variables`. Memory and cache are any pytrees of arrays; their structure, shapes and types stay
    the same from step to step.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """Size and special tokens."""
        ...

    def encode(self, variables: Any, inputs: Any) -> Any:
        """The memory: everything that `step` needs and no step changes, parameters included.

        Args:
            variables: the model's variables.
            inputs: any pytree of arrays, batch first.
        """
        ...

    def init_cache(self, batch: int, beams: int, length: int) -> Any:
        """The cache before the first of at most `length` steps of `beams` sequences a row."""
        ...

    def step(
        self, memory: Any, cache: Any, tokens: Int[Array, "B beams"], time: Int[Array, ""]
    ) -> tuple[Float[Array, "B beams V"], Any]:
        """The logits of the token after each beam's newest, and the cache with that one in it.

        Args:
            memory: from `encode`.
            cache: from `init_cache`, `step` or `reorder`.
            tokens: the newest token of each beam; at first the start token.
            time: the number of steps before this one.
        """
        ...

    def reorder(self, cache: Any, parents: Int[Array, "B beams"]) -> Any:
        """The cache in which each beam continues the one that `parents` names, from 0 on."""
        ...


@runtime_checkable
class PrefixDecoder(StepDecoder, Protocol):
    """A `StepDecoder` whose sequences continue a prefix that `encode` put into the memory."""

    def prefill(self, memory: Any, cache: Any) -> Any:
        """The cache with the prefix in it."""
        ...


def first_cache(decoder: StepDecoder, memory: Any, batch: int, beams: int, length: int) -> Any:
    """The cache before the first step, with the prefix of a `PrefixDecoder` in it."""
    cache = decoder.init_cache(batch, beams, length)
    return decoder.prefill(memory, cache) if isinstance(decoder, PrefixDecoder) else cache


def padded_batch(inputs: Any) -> Any:
    """`inputs`, arrays with the batch first, with as many rows as a mesh can divide.

    The added rows are copies of the last one, so that they are done when it is.
    """
    rows = jax.tree.leaves(inputs)[0].shape[0]
    missing = -rows % batch_multiple()
    if not missing:
        return inputs
    return jax.tree.map(
        lambda x: jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1), mode="edge"), inputs
    )
