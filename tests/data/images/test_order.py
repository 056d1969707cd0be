import numpy as np
import pytest

from jaxformers.data.pipeline import shuffling
from jaxformers.data.pipeline.shuffling import permuted


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_order_is_one_permutation_after_the_other_wherever_it_is_entered(size):
    order = permuted(0, 5 * size, size, 3)
    epochs = order.reshape(5, size)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(size), (5, 1)))
    for start in (0, 2, size - 1, 3 * size):
        chunk = permuted(start, size + 1, size, 3)
        assert np.array_equal(chunk, order[start : start + size + 1])
    if size == 40:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5
        assert not np.array_equal(permuted(0, 40, 40, 4), epochs[0])


def test_large_sets_are_not_sorted_at_once(monkeypatch):
    monkeypatch.setattr(shuffling, "MAX_SORTED_ITEMS", 10)
    assert np.array_equal(permuted(3, 9, 11, 1), shuffling.shuffled(3, 9, 11, 1))
