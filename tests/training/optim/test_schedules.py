"""Learning rates, against published values and closed forms."""

import jax
import numpy as np
import pytest

from jaxformers.training import (
    BertLinear,
    Cosine,
    InverseSquareRoot,
    Linear,
    T5Schedule,
    TwoPhases,
)


@pytest.mark.parametrize(
    ("width", "update", "rate"),
    [(512, 1, 1.747e-7), (512, 4000, 6.988e-4), (512, 100_000, 1.398e-4), (1024, 4000, 4.941e-4)],
)
def test_the_papers_schedule_has_its_published_values(width, update, rate):
    ours = InverseSquareRoot(width, warmup=4000).rate(update - 1, 100_000)
    np.testing.assert_allclose(ours, rate, rtol=5e-4)


def test_the_papers_schedule_rises_in_a_line_and_falls_with_the_square_root():
    rate = InverseSquareRoot(512, warmup=100, scale=2.0).rate
    np.testing.assert_allclose(rate(49, 1), rate(99, 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(rate(399, 1), rate(99, 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(rate(99, 1), 2.0 * 512**-0.5 * 100**-0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("update", "rate"),
    [(1, 0.01), (10_000, 0.01), (40_000, 0.005), (1_000_000, 0.001)],
)
def test_t5s_schedule_is_constant_then_the_inverse_square_root(update, rate):
    np.testing.assert_allclose(T5Schedule().rate(update - 1, 100), rate, rtol=1e-5)
    halved = T5Schedule(scale=0.5).rate(update - 1, 100)
    np.testing.assert_allclose(halved, rate / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_warm_up_reaches_the_peak_and_the_last_update_the_end(kind):
    rate = kind(peak=3e-3, warmup=10).rate
    np.testing.assert_allclose(rate(0, 110), 3e-4, rtol=1e-6)
    np.testing.assert_allclose(rate(9, 110), 3e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(109, 110), 0.0, atol=1e-9)
    np.testing.assert_allclose(rate(200, 110), 0.0, atol=1e-9)
    falling = [float(rate(n, 110)) for n in range(9, 110)]
    assert falling == sorted(falling, reverse=True)


def test_half_way_down_both_are_at_half():
    for kind in (Linear, Cosine):
        np.testing.assert_allclose(kind(peak=1.0, warmup=10).rate(59, 110), 0.5, rtol=1e-5)


def test_cosine_is_its_closed_form_and_ends_where_it_says():
    rate = Cosine(peak=1.0, warmup=0, end=0.2).rate
    for n in (1, 25, 60, 100):
        closed = 0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi * n / 100))
        np.testing.assert_allclose(rate(n - 1, 100), closed, rtol=1e-5)


@pytest.mark.parametrize("kind", [InverseSquareRoot, Linear, Cosine])
def test_a_traced_count_gives_the_same_float32_rate(kind):
    schedule = kind(warmup=5)
    traced = jax.jit(lambda n: schedule.rate(n, 50))(np.int32(7))
    assert traced.dtype == np.float32
    np.testing.assert_allclose(traced, schedule.rate(7, 50), rtol=1e-6)


def test_berts_rate_starts_at_zero_and_drops_where_the_warm_up_ends():
    schedule = BertLinear(peak=1e-4, warmup=10_000)
    rates = [float(schedule.rate(n, 1_000_000)) for n in (0, 9_999, 10_000, 500_000, 1_000_000)]
    assert rates == pytest.approx([0.0, 9.999e-5, 9.90e-5, 5.0e-5, 0.0], rel=1e-5)


def test_a_warm_up_may_be_a_share_of_the_steps():
    schedule = BertLinear(peak=2e-5, warmup=99, warmup_share=0.1)
    assert float(schedule.rate(34, 345)) == pytest.approx(2e-5 * (1 - 34 / 345))
    assert float(schedule.rate(33, 345)) == pytest.approx(2e-5 * 33 / 34)


def test_large_batch_berts_rate_begins_anew_in_its_second_phase():
    schedule = TwoPhases(share=7038 / 8601)
    at = [float(schedule.rate(n, 8601)) for n in (0, 1999, 2001, 7037, 7038, 7237, 7238, 8600)]
    first = [6e-3 / (7038 * 0.2843), 6e-3 * 2000 / 7038 / 0.2843, 6e-3 * (1 - 2002 / 7038) ** 0.5]
    second = [4e-3 / (1563 * 0.128), 4e-3 * 200 / 1563 / 0.128, 4e-3 * (1 - 201 / 1563) ** 0.5]
    assert at == pytest.approx([*first, 0.0, *second, 0.0], rel=1e-4)
