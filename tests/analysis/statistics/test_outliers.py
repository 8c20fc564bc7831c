"""Repeats far from the others are flagged by the median deviation, and never by less than four."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from llm_energy.analysis.statistics.outliers import FAR, outlying


@given(st.lists(st.floats(0.1, 10), min_size=4, max_size=12))
def test_a_repeat_is_flagged_exactly_beyond_the_scaled_median_deviation(values):
    spread = float(median_abs_deviation(values, scale=1 / 1.4826))
    ordered = sorted(values)
    centre = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    flagged = outlying(dict(enumerate(values)))
    for k, value in enumerate(values):
        if abs(abs(value - centre) - FAR * spread) > 1e-9:
            assert (k in flagged) == (spread > 0 and abs(value - centre) > FAR * spread)


def test_three_repeats_are_too_few_to_call_one_an_outlier():
    assert outlying({1: 1.0, 2: 1.01, 3: 5.0}) == ()
    assert outlying({1: 1.0, 2: 1.01, 3: 5.0, 4: 1.02}) == (3,)
