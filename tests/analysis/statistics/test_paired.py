"""Paired ratios: the plain t test for one pair, the family's noise for many, and Holm's steps."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import ttest_power

from llm_energy.analysis.statistics import paired
from llm_energy.analysis.statistics.intervals import serial_guard
from llm_energy.analysis.statistics.paired import (
    ALPHA,
    POWER,
    Noise,
    Ratio,
    family_noise,
    holm,
    ratio_of,
)

NONE = paired.Shared()
ALONE = family_noise([])


def drawn(seed: int, sd: float = 0.02, n: int = 5, mean: float = 0.0) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(mean, sd) for _ in range(n)]


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_by_itself_gets_the_t_test_of_its_log_ratios(seed):
    logs = drawn(seed, mean=0.02)
    found = paired.tested(ratio_of(logs), ALONE, NONE)
    expected = stats.ttest_1samp(logs, 0)
    assert found.guard == serial_guard(5)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(expected.statistic) / found.guard, 4))
    low, high = expected.confidence_interval(0.95)
    assert found.half_width == pytest.approx(found.guard * (high - low) / 2)
    assert found.degrees == 4


def test_one_pair_or_pairs_without_scatter_have_no_interval():
    assert paired.tested(ratio_of([0.3]), ALONE, NONE) is None
    assert paired.tested(ratio_of([0.3, 0.3]), ALONE, NONE) is None


def test_equally_noisy_pairs_lend_each_other_all_their_degrees_of_freedom():
    ratios = [Ratio(5, 0.0, 4e-4 * factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.2)]
    noise = family_noise(ratios)
    assert (noise.degrees, noise.most) == (math.inf, 20)
    assert paired.tested(ratios[0], noise, NONE).variance == pytest.approx(4e-4)
    assert paired.tested(ratios[0], noise, NONE).degrees == 20


def test_pairs_of_very_unlike_noise_lend_each_other_little():
    ratios = [Ratio(5, 0.0, variance) for variance in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)]
    noise = family_noise(ratios)
    assert noise.degrees < 2
    loud, quiet = (paired.tested(ratios[k], noise, NONE) for k in (-1, 0))
    assert loud.variance > 100 * quiet.variance


def test_a_pair_that_is_noisier_than_its_family_keeps_its_own_noise():
    ratios = [Ratio(5, 0.0, 4e-4) for _ in range(10)]
    loud = Ratio(5, 0.0, 4e-3)
    found = paired.tested(loud, family_noise([*ratios, loud]), NONE)
    assert (found.variance, found.degrees) == (4e-3, 4)


def test_the_moment_estimator_finds_the_noise_that_variances_were_drawn_from():
    # Smyth's model: 1 / variance is chi-square with 10 degrees of freedom, over 10 times 4e-4.
    draw = random.Random(0)
    ratios = []
    for _ in range(4000):
        variance = 10 * 4e-4 / draw.gammavariate(5, 2)
        ratios.append(Ratio(5, 0.0, variance * draw.gammavariate(2, 2) / 4))
    noise = family_noise(ratios)
    assert noise.variance == pytest.approx(4e-4, rel=0.05)
    assert noise.degrees == pytest.approx(10, rel=0.2)


def test_two_pairs_say_nothing_of_how_noise_varies():
    assert family_noise([Ratio(5, 0.0, 1e-4)] * 2) == Noise(0.0, 0.0, 0.0)


@settings(max_examples=20)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), max_size=30))
def test_holms_correction_is_that_of_statsmodels(values):
    expected = list(multipletests(values, method="holm")[1]) if values else []
    assert holm(values) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "comparisons"), [(5, 1), (5, 3), (10, 1), (10, 12)])
def test_the_smallest_detectable_difference_is_found_in_four_of_five(n, comparisons):
    found = paired.Tested(0.0, 1.0, 4e-4, n - 1.0)
    percent = paired.smallest_detectable_percent(found, n, comparisons)
    effect = math.log1p(percent / 100) / math.sqrt(found.variance)
    assert ttest_power(effect, n, ALPHA / comparisons) == pytest.approx(POWER, abs=1e-3)
