"""When a workload counts as warm: its passes' durations, and the temperature of its GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy.measure.warmup import Thermometer, converged, trend, warmed_up
from llm_energy.records import Protocol


def test_equal_passes_have_converged():
    assert converged([9.0, 1.0, 1.01, 1.0, 1.01, 1.0], Protocol()) is True


def test_passes_that_scatter_have_not():
    assert converged([1.0, 1.3, 1.0, 1.3, 1.0], Protocol(warmup_cv=0.05, warmup_trend=1.0)) is False


def test_a_slow_steady_drift_has_not_though_its_variation_is_small():
    drift = [1.00, 1.01, 1.02, 1.03, 1.04]
    assert converged(drift, Protocol(warmup_cv=0.05, warmup_trend=1.0)) is True
    assert converged(drift, Protocol(warmup_cv=0.05, warmup_trend=0.02)) is False
    assert converged(drift[::-1], Protocol(warmup_cv=0.05, warmup_trend=0.02)) is False


def test_too_few_passes_to_tell_is_neither_converged_nor_not():
    settings = Protocol(warmup_min_passes=1, warmup_max_passes=2)
    assert converged([1.0] * 4, settings) is None
    assert trend([1.0] * 4) is None
    assert not warmed_up([1.0], settings)
    assert warmed_up([1.0, 1.0], settings)


def test_the_minimum_of_passes_is_served_even_when_they_are_equal():
    settings = Protocol(warmup_min_passes=7, warmup_max_passes=9)
    assert not warmed_up([1.0] * 6, settings)
    assert warmed_up([1.0] * 7, settings)


@given(
    mean_s=st.floats(0.01, 100.0),
    step=st.floats(-0.1, 0.1),
)
def test_the_trend_is_the_drift_of_five_passes_over_their_mean(mean_s, step):
    line = [mean_s * (1 + step * k) for k in (-2, -1, 0, 1, 2)]
    assert trend(line) == pytest.approx(5 * step, abs=1e-9)


def thermometer(readings) -> Thermometer:
    result = Thermometer()
    for time_s, *temperatures_c in readings:
        result.read(time_s, temperatures_c)
    return result


def test_the_slope_is_that_of_the_last_ten_seconds():
    warming_then_level = [(t, min(50.0, 40.0 + t)) for t in range(0, 31)]
    warm = thermometer(warming_then_level)
    assert warm.slope_c_per_10s() == pytest.approx(0.0)
    assert warm.settled(1.0)
    assert not thermometer(warming_then_level[:15]).settled(1.0)


def test_cooling_is_not_settled_either():
    assert not thermometer([(t, 80.0 - t) for t in range(12)]).settled(1.0)


def test_the_hottest_gpu_counts():
    readings = [(t, 40.0, 60.0 + 0.5 * t) for t in range(12)]
    assert thermometer(readings).slope_c_per_10s() == pytest.approx(5.0)


def test_over_less_than_ten_seconds_no_slope_is_claimed():
    short = thermometer([(0.0, 50.0), (9.0, 50.0)])
    assert short.slope_c_per_10s() is None
    assert not short.settled(1.0)


def test_passes_of_a_minute_are_enough_for_a_slope():
    readings = [(0.0, 50.0), (60.0, 56.0), (120.0, 56.0)]
    assert thermometer(readings[:2]).slope_c_per_10s() == pytest.approx(1.0)
    assert thermometer(readings).slope_c_per_10s() == pytest.approx(0.0)


def test_without_a_temperature_there_is_nothing_to_wait_for():
    assert thermometer([]).settled(1.0)
    none = thermometer([(t, None) for t in range(20)])
    assert none.settled(1.0)
    assert none.slope_c_per_10s() is None
