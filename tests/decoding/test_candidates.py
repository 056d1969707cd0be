import jax
import numpy as np
import pytest

from jaxformers.decoding.candidates import CHUNK, best_candidates


@pytest.mark.default_cases(6)
@pytest.mark.parametrize("vocab", [3, CHUNK - 1, CHUNK, 2 * CHUNK + 1, 9 * CHUNK + 7])
@pytest.mark.parametrize(("beams", "count"), [(1, 1), (1, 2), (4, 8), (20, 40)])
def test_candidates_are_the_best_of_all_continuations_in_order(vocab, beams, count):
    rng = np.random.default_rng(vocab + beams)
    logits = rng.integers(-6, 7, (2, beams, vocab)).astype(np.float32)  # with many ties
    scores = -rng.random((2, beams), np.float32)
    scores[:, beams // 2 + 1 :] = -np.inf
    ban = np.zeros(vocab, np.float32)
    ban[1] = -np.inf
    every = jax.nn.log_softmax(logits) + scores[..., None] + ban[None, None]
    count = min(count, beams * vocab)
    values, indices = jax.lax.top_k(every.reshape(2, -1), count)
    candidates = best_candidates(logits, scores, count, ban)
    np.testing.assert_allclose(candidates.scores, values, rtol=1e-5)
    real = np.isfinite(values)
    assert (np.asarray(candidates.tokens) < vocab).all() and (
        np.asarray(candidates.parents) < beams
    ).all()
    if beams == 1:  # where rounding cannot break the ties of different beams
        np.testing.assert_array_equal(candidates.tokens[real], (indices % vocab)[real])
    chosen = np.take_along_axis(
        np.asarray(every).reshape(2, -1),
        np.asarray(candidates.parents * vocab + candidates.tokens),
        axis=1,
    )
    np.testing.assert_allclose(chosen[real], values[real], rtol=1e-5)
    pairs = np.asarray(candidates.parents * vocab + candidates.tokens)
    assert all(len(set(p[r])) == r.sum() for p, r in zip(pairs, real, strict=True))
