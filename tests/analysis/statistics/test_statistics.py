"""The statistics agree with scipy, and written numbers never promise more than they know."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from llm_energy.analysis.statistics.format import (
    ABSENT,
    ALIKE,
    NOISY,
    absolute_quantity,
    mean_only,
    quantity,
    with_interval,
)
from llm_energy.analysis.statistics.intervals import (
    CORRELATED,
    CORRELATION,
    probability_correlated,
    serial_guard,
    serial_share,
    t_quantile,
    t_quantile_without_scipy,
)
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.records import Statistic

JOULES = st.floats(min_value=1e-6, max_value=1e6)


@given(st.lists(JOULES, min_size=2, max_size=30))
def test_it_is_scipys_interval_with_the_guard(values):
    found = summarise(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(numpy.mean(values))
    assert found.sd == pytest.approx(numpy.std(values, ddof=1), abs=1e-9 * max(values))
    error = serial_guard(found.n) * found.sd / math.sqrt(found.n)
    if error > 0:
        interval = stats.t.interval(0.95, found.n - 1, found.mean, error)
        assert (found.ci_low, found.ci_high) == pytest.approx(interval)


@pytest.mark.parametrize("degrees_of_freedom", range(1, 99))
def test_the_quantile_without_scipy_is_that_of_scipy(degrees_of_freedom):
    without = t_quantile_without_scipy(degrees_of_freedom)
    assert without == pytest.approx(t_quantile(degrees_of_freedom), 1e-9)
    assert without == pytest.approx(stats.t.ppf(0.975, degrees_of_freedom), 1e-9)


def test_known_values():
    assert t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert t_quantile(4) == pytest.approx(2.7764, abs=1e-4)
    found = summarise([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.sd) == (3.0, pytest.approx(1.5811, abs=1e-4))
    assert found.ci_high - found.mean == pytest.approx(1.9632 * 1.1862, abs=1e-3)


def test_too_few_values_have_no_spread():
    assert summarise([]) == Statistic(0, None, None, None, None)
    assert summarise([2.5]) == Statistic(1, 2.5, None, None, None)


@given(st.lists(JOULES, min_size=2, max_size=12), st.randoms())
def test_the_order_of_repeats_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    assert summarise(shuffled) == summarise(values)


@given(JOULES, st.integers(min_value=2, max_value=9))
def test_equal_repeats_have_no_spread(value, n):
    found = summarise([value] * n)
    assert (found.sd, found.ci_high - found.ci_low) == (0.0, 0.0)
    assert found.mean == pytest.approx(value)


@given(st.lists(JOULES, min_size=2, max_size=9), st.floats(min_value=0.01, max_value=100))
def test_a_change_of_unit_scales_everything(values, factor):
    one, other = summarise(values), summarise([factor * value for value in values])
    assert other.mean == pytest.approx(factor * one.mean)
    assert other.sd == pytest.approx(factor * one.sd, abs=1e-9 * factor * max(values))


def following(draws: numpy.ndarray, correlation: float) -> numpy.ndarray:
    """Let each repeat of normal draws be correlated with the one before."""
    for k in range(1, draws.shape[1]):
        fresh = math.sqrt(1 - correlation**2)
        draws[:, k] = correlation * draws[:, k - 1] + fresh * draws[:, k]
    return draws


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize(("correlation", "least", "most"), [(0.0, 0.945, 0.975), (0.3, 0.89, 0.95)])
def test_intervals_hold_the_truth_of_repeats_independent_or_not(n, correlation, least, most):
    """The bounds are 93 to 97 % and at least 90 %, and 1 % for the number of draws."""
    draws = following(numpy.random.default_rng(7).normal(size=(3000, n)), correlation)
    intervals = [summarise(draw.tolist()) for draw in draws]
    covered = sum(s.ci_low <= 0 <= s.ci_high for s in intervals)
    assert least < covered / len(intervals) < most


def test_the_guard_is_the_inflation_of_the_standard_error_by_correlated_blocks():
    draws = following(numpy.random.default_rng(1).normal(size=(100_000, 5)), CORRELATION)
    ratio = draws.mean(axis=1).var() / (draws.var(axis=1, ddof=1).mean() / 5)
    assert serial_guard(5, 1.0) == pytest.approx(math.sqrt(ratio), rel=0.01)


def test_the_prior_is_as_large_as_independent_repeats_allow():
    """Cells of five hold the truth in 97 % at most, and no more could be allowed."""
    held, more = (
        1 - 2 * stats.t.sf(t_quantile(4) * serial_guard(5, prior), 4)
        for prior in (CORRELATED, CORRELATED + 0.03)
    )
    assert held <= 0.97 < more


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 0.0), (CORRELATION, 1.0)])
def test_many_series_tell_whether_blocks_are_correlated(correlation, expected):
    draws = following(numpy.random.default_rng(2).normal(size=(300, 5)), correlation)
    found = probability_correlated([(5, serial_share(draw.tolist())) for draw in draws])
    assert found == pytest.approx(expected, abs=0.01)
    assert probability_correlated([]) == CORRELATED


def around(mean: float, half: float, n: int = 5) -> Statistic:
    return Statistic(n, mean, 1.0, mean - half, mean + half)


@pytest.mark.parametrize(
    ("statistic", "written"),
    [
        (around(0.123456, 0.0123), "0.123 ± 0.012"),
        (around(0.123456, 0.00123), "0.1235 ± 0.0012"),
        (around(1234.5, 56.7), "1234 ± 57"),
        (around(1234.5, 567.0), "1230 ± 570"),
        (around(0.3, 2.7), "≈ 0.30"),
        (around(0.03, 2.7), "≈ 0.030"),
        (around(-0.01, 2.7), "≈ -0.010"),
        (around(0.5, 0.0), "0.5000"),
        (Statistic(1, 0.123456, None, None, None), "0.12"),
        (Statistic(1, 0.0, None, None, None), "0"),
        (Statistic(1, 1234.0, None, None, None), "1200"),
        (Statistic(0, None, None, None, None), ABSENT),
    ],
)
def test_digits_follow_the_interval(statistic, written):
    assert quantity(statistic) == written


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_no_interval_is_written_as_0_or_as_wide_as_its_number(mean, half):
    written, _, spread = with_interval(mean, mean - half, mean + half).partition(" ± ")
    if spread:
        assert 0 < float(spread) <= abs(float(written))
    else:
        assert written.startswith(NOISY) or half <= 2 * ALIKE * abs(mean)


def test_repeats_that_are_alike_but_for_rounding_have_no_interval():
    values = [0.1 + 0.2, 0.3, 0.3]
    assert quantity(summarise(values)) == "0.3000"


def test_an_absolute_value_shows_the_digits_of_its_own_interval():
    one = around(0.123456, 0.00123)
    assert absolute_quantity(one) == ABSENT
    known = replace(one, absolute_ci_low=0.111, absolute_ci_high=0.136)
    assert (quantity(known), absolute_quantity(known)) == ("0.1235 ± 0.0012", "0.123 ± 0.013")
    assert absolute_quantity(Statistic(0, None, None, None, None)) == ABSENT


@pytest.mark.parametrize(
    ("statistic", "written"),
    [
        (around(83.456, 3.45), "83"),
        (around(83.456, 0.345), "83.5"),
        (around(83.456, 0.00345), "83.5"),
        (around(83.456, 60.0), "83"),
        (around(834.56, 900.0), "≈ 830"),
        (around(0.2512, 0.0), "0.251"),
        (Statistic(1, 0.2512, None, None, None), "0.25"),
        (Statistic(0, None, None, None, None), ABSENT),
    ],
)
def test_a_mean_alone_shows_only_certain_digits(statistic, written):
    assert mean_only(statistic) == written


@given(JOULES, JOULES)
def test_written_numbers_stay_within_their_interval(mean, half):
    assume(ALIKE * mean < half < 0.999 * mean)
    written, spread = quantity(around(mean, half)).split(" ± ")
    assert abs(float(written) - mean) <= 0.051 * half + 1e-9 * mean
    assert float(spread) == pytest.approx(half, rel=0.051)
    assert len(re.sub(r"^[0.]+|\.|0+$", "", spread)) <= 2
