"""Which work is cut so that what passes between two products stays in a CPU's cache.

A product that is larger than the last cache is written to memory and read back by every pass over
it, of which softmax takes several. On CPUs whose cores share memory with other programs that costs
more than the products lose by being smaller.
"""

from __future__ import annotations

import jax

LARGE = 16 << 20
"""Bytes between two products from which on they are cut: half a last-level cache."""
SCORES = 4 << 20
"""Bytes of attention scores in a piece, at least one head's."""
ROWS = 1024
"""The fewest tokens that go through a block in a piece."""


def worth_cutting(numbers: int) -> bool:
    """Whether so many float32 numbers between two products are too many for a CPU's cache.

    Never on a mesh, which may cut the very dimensions that pieces are taken from.
    """
    return 4 * numbers > LARGE and jax.sharding.get_abstract_mesh().size <= 1


def heads_at_once(heads: int, scores: int) -> int:
    """The most heads, a divisor of all, whose float32 `scores` each are no more than a piece."""
    fitting = (n for n in range(heads, 0, -1) if heads % n == 0 and 4 * n * scores <= SCORES)
    return next(fitting, 1)


def examples_at_once(examples: int, length: int, width: int) -> int:
    """How many examples of a batch go through a block together, a divisor of all.

    All, unless their residuals, queries, keys and values are too large; then those of a piece.
    """
    if not worth_cutting(examples * 4 * length * width):
        return examples
    fitting = (n for n in range(1, examples) if examples % n == 0 and n * length >= ROWS)
    return next(fitting, examples)
