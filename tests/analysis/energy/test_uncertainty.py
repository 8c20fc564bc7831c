"""Intervals hold the truth as often as they say, and their parts are the published formulae."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support import builders, coverage_runs
from support.coverage_runs import TICK_S

from llm_energy.analysis.energy.uncertainty import (
    SENSOR_ASSUMED,
    drift_standard,
    tick_variance_j2,
    window_budget,
    with_intervals,
    without_drift,
)
from llm_energy.analysis.statistics.intervals import effective_degrees_of_freedom
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.records import ComponentEnergy, Interval, Statistic

GPU = ("gpu", "GPU-1")
TICKS = {"GPU-1": TICK_S}
RIGHT = pytest.approx(0.95, abs=0.02)
POSITIVE = st.floats(1e-3, 1e3)


def stretch(power_w: float, duration_s: float = 10.0, device: str = "GPU-1") -> Interval:
    part = ComponentEnergy("gpu", device, "measured", "counter", power_w * duration_s)
    return Interval("window", 0.0, duration_s, (part,))


# what one window's counters leave open


@pytest.mark.parametrize(
    ("duration_s", "tick_s", "percent"),
    [(5, 0.1, 0.82), (10, 0.1, 0.41), (30, 0.1, 0.14), (60, 0.1, 0.07), (5, 0.02, 0.16)],
)
def test_a_tick_weighs_less_the_longer_the_window(duration_s, tick_s, percent):
    power = {GPU: 300.0}
    standard_j = math.sqrt(tick_variance_j2(power, power, {GPU: tick_s}))
    assert 100 * standard_j / (300.0 * duration_s) == pytest.approx(percent, abs=0.005)
    assert standard_j == pytest.approx(300.0 * tick_s / math.sqrt(6))


def test_a_counter_that_ticks_has_this_spread_and_this_lag():
    random = Random(1)
    errors = []
    for _ in range(20_000):  # up to a tick is not yet counted at either edge
        errors.append(120 * TICK_S * random.random() - 450 * TICK_S * random.random())
    found = summarise(errors)
    budget = window_budget(stretch(450), [stretch(120)] * 2, [GPU], TICKS)
    assert budget.gross_j == pytest.approx(found.sd, rel=0.02)
    assert budget.lag_j == pytest.approx(-found.mean, rel=0.02)
    assert budget.assumptions == ()


def test_the_baselines_add_their_ticks_and_their_drift():
    window, before, after = stretch(450, 30), stretch(118), stretch(122)
    budget = window_budget(window, [before, after], [GPU], TICKS)
    ticks_w2 = (118**2 + 122**2) * TICK_S**2 / 6 / 10**2 / 4
    drift_w2 = 4**2 / 4 / 3
    assert budget.drift_w == pytest.approx(4)
    assert budget.net_j**2 - budget.gross_j**2 == pytest.approx(30**2 * (ticks_w2 + drift_w2))
    ticks_alone_j = without_drift(budget.net_j, 30 * 4)
    assert ticks_alone_j**2 == pytest.approx(budget.gross_j**2 + 30**2 * ticks_w2)


def test_what_was_not_measured_is_named():
    one = window_budget(stretch(450), [stretch(120)], [GPU], TICKS)
    assert one.drift_w is None
    assert one.assumptions == ("with one loaded-idle baseline, the idle power did not drift",)
    none = window_budget(stretch(450), [], [GPU], {"GPU-1": None})
    assert none.net_j is None
    assert none.lag_j == pytest.approx(450 * 0.1 / 2)
    assert none.assumptions == (
        "the gpu counter ticks every 100 ms (not measured)",
        "without a loaded-idle baseline, nothing was drawn before the window",
    )


def test_gpus_tick_on_their_own():
    joules = [ComponentEnergy("gpu", f"GPU-{k}", "measured", "counter", 4500.0) for k in (1, 2)]
    window = Interval("window", 0.0, 10.0, tuple(joules))
    parts = [(c.component, c.device) for c in joules]
    both = window_budget(window, [], parts, {"GPU-1": 0.1, "GPU-2": 0.1})
    one = window_budget(window, [], parts[:1], TICKS)
    assert both.gross_j == pytest.approx(math.sqrt(2) * one.gross_j)
    assert both.lag_j == pytest.approx(2 * one.lag_j)


def test_cpu_counters_tick_faster_and_their_sensor_is_assumed():
    part = ComponentEnergy("cpu", "package-0", "measured", "rapl_powercap_package", 1000.0)
    window = Interval("window", 0.0, 10.0, (part,))
    budget = window_budget(window, [window, window], [("cpu", "package-0")], {})
    assert budget.gross_j == pytest.approx(100 * 0.001 / math.sqrt(6))
    assert budget.assumptions == ("the cpu counter ticks every 1 ms (not measured)", SENSOR_ASSUMED)


# what repeats make of it


def test_degrees_of_freedom_are_welch_and_satterthwaites():
    assert effective_degrees_of_freedom([(0.3, 4)]) == pytest.approx(4)
    # Two samples: the formula of Welch's t-test, which scipy has as well.
    terms = [(2.0 / math.sqrt(5), 4), (3.0 / math.sqrt(8), 7)]
    welch = stats.ttest_ind_from_stats(1, 2.0, 5, 0, 3.0, 8, equal_var=False)
    same = 2 * stats.t.sf(welch.statistic, effective_degrees_of_freedom(terms))
    assert same == pytest.approx(welch.pvalue)
    assert effective_degrees_of_freedom([(1.0, math.inf)]) == math.inf
    assert effective_degrees_of_freedom([(0.0, 4.0)]) == math.inf


@given(st.lists(POSITIVE, min_size=2, max_size=9))
def test_without_anything_shared_it_is_the_t_interval(values):
    plain = summarise(values)
    found = with_intervals(plain)
    assert (found.ci_low, found.ci_high) == pytest.approx((plain.ci_low, plain.ci_high))
    if plain.sd:
        assert found.degrees_of_freedom == pytest.approx(len(values) - 1)


def test_one_repeat_has_the_meters_interval_alone():
    alone = summarise([100.0])
    assert with_intervals(alone) == alone
    found = with_intervals(alone, window=2.0)
    assert found.ci_high - 100 == pytest.approx(1.96 * 2.0, abs=0.001)
    assert (found.standard_uncertainty, found.degrees_of_freedom) == (2.0, None)
    assert found.absolute_ci_low is None


@given(POSITIVE, st.floats(0, 10))
def test_a_lag_widens_the_interval_by_what_it_must(window, lag_in_u):
    lag = lag_in_u * window
    half = with_intervals(summarise([0.0]), window=window, bias=lag).ci_high
    inside = stats.norm.cdf(half, lag, window) - stats.norm.cdf(-half, lag, window)
    assert inside == pytest.approx(0.95, abs=1e-4)


def test_ticks_that_are_locked_to_the_windows_are_not_taken_for_precision():
    scattered = with_intervals(summarise([99.0, 100.0, 101.0, 102.0, 98.0]), window=1.0)
    assert scattered.degrees_of_freedom == 4
    locked = with_intervals(summarise([100.0, 100.0, 100.0, 100.0, 100.0]), window=1.0)
    assert locked.ci_high - 100 == pytest.approx(1.96 / math.sqrt(5), abs=0.001)


def test_the_sensors_error_does_not_average_out():
    found = with_intervals(summarise([100.0, 101.0, 99.0] * 5), sensor_relative=0.05)
    half = (found.absolute_ci_high - found.absolute_ci_low) / 2
    assert half == pytest.approx(1.96 * math.hypot(5.0, found.standard_uncertainty), rel=0.001)


@given(st.lists(POSITIVE, min_size=2, max_size=4), POSITIVE, POSITIVE, POSITIVE)
def test_what_is_added_never_narrows_an_interval(values, window, drift, lag):
    statistic, shared = summarise(values), {"window": window, "bias": lag}
    plain = with_intervals(statistic, **shared)
    found = with_intervals(statistic, drift=drift, sensor_relative=0.05, **shared)
    assert found.absolute_ci_low <= found.ci_low <= plain.ci_low <= found.mean
    assert found.mean <= plain.ci_high <= found.ci_high <= found.absolute_ci_high


@given(st.lists(POSITIVE, min_size=1, max_size=5), POSITIVE, POSITIVE, POSITIVE)
def test_a_change_of_unit_scales_every_interval(values, window, lag, factor):
    one = with_intervals(summarise(values), window=window, bias=lag, sensor_relative=0.05)
    other = with_intervals(
        summarise([factor * v for v in values]),
        window=factor * window,
        bias=factor * lag,
        sensor_relative=0.05,
    )
    for name in ("ci_low", "ci_high", "absolute_ci_low", "absolute_ci_high"):
        expected = factor * getattr(one, name)
        assert getattr(other, name) == pytest.approx(expected, rel=1e-4, abs=1e-4 * factor * lag)


def test_no_repeats_have_no_interval():
    nothing = Statistic(0, None, None, None, None)
    assert with_intervals(nothing, window=1.0, sensor_relative=0.05) == nothing


def test_a_drift_between_two_baselines_is_uniform():
    draws = [Random(k).uniform(-1, 1) for k in range(4000)]
    assert (
        drift_standard(2.0) == drift_standard(-2.0) == pytest.approx(summarise(draws).sd, rel=0.02)
    )


# does it hold the truth


@pytest.mark.parametrize("before_w", [100.0, 30.0])
@pytest.mark.parametrize("repeat_sd_ticks", [0.0, 0.3, 3.0])
def test_five_repeats_hold_the_truth_whatever_dominates(before_w, repeat_sd_ticks):
    """Draw cells of 100 J from an ideal counter that ticks once a second, at 100 W."""
    random = Random(f"{before_w} {repeat_sd_ticks}")
    budget_j = math.sqrt(tick_variance_j2({GPU: before_w}, {GPU: 100.0}, {GPU: 1.0}))
    held = 0
    for _ in range(2000):
        shown = [
            random.gauss(1e4, 100 * repeat_sd_ticks)
            + before_w * random.random()
            - 100 * random.random()
            for _ in range(5)
        ]
        found = with_intervals(summarise(shown), window=budget_j, bias=(100 - before_w) / 2)
        held += found.ci_low <= 1e4 <= found.ci_high
    assert 0.93 <= held / 2000 <= 0.98  # the guard against serial correlation gives up to 97 %


@pytest.fixture(scope="module")
def known():
    """Measure a thousand repeats on simulated hosts: half of each kind."""
    return {
        "counter": list(coverage_runs.repeats(coverage_runs.COUNTER_DOMINATES, range(500))),
        "repeats": list(coverage_runs.repeats(coverage_runs.REPEATS_DOMINATE, range(500, 1000))),
    }


def test_no_window_is_off_by_more_than_its_ticks(known):
    for one in known["counter"] + known["repeats"]:
        error_j = one.row.gross_energy_j - one.gross_j
        before_j, last_j = one.most_missed_j
        assert -last_j - 0.002 <= error_j <= before_j + 0.002  # the counter shows whole mJ
        # tau / T of the energy, at the window's mean power; no window ends at a fifth more.
        assert abs(error_j) <= 1.2 * TICK_S / one.row.duration_s * one.gross_j
        assert one.row.assumptions == ()


def test_the_kinds_are_what_they_are_called(known):
    for kind, repeats_spread_more in (("counter", False), ("repeats", True)):
        errors_j = [one.row.gross_energy_j - one.gross_j for one in known[kind]]
        powers_w = [one.gross_j / one.row.duration_s for one in known[kind]]
        spread_j = summarise(powers_w).sd * known[kind][0].row.duration_s
        assert (spread_j > 2 * summarise(errors_j).sd) == repeats_spread_more


def test_the_interval_of_one_repeat_holds_what_it_used(known):
    for kind in known.values():
        found = coverage_runs.share_of_windows_held(kind)
        # That of net energy of one window is wide: the slope of the idle power is its own guess.
        assert found.pop("net_energy_j") >= 0.93
        assert found == dict.fromkeys(found, RIGHT)


def test_the_interval_of_five_repeats_holds_what_repeats_use(known):
    for kind in known.values():
        found = coverage_runs.share_of_cells_held(kind, draws=1000)
        # The guard against serial correlation gives 97 %, and a thousand draws a percent more.
        assert all(0.93 <= share <= 0.98 for share in found.values()), found


def test_an_estimate_has_no_such_interval():
    found = coverage_runs.statistics_of([builders.metrics(0.5, energy_status="estimated")])
    assert found["energy_per_output_token_j"].ci_low is None


def idle_at(name, power_w, temperature_c, duration_s=10.0):
    gpu = builders.gpu_activity(temperature_c=(temperature_c, temperature_c))
    parts = builders.energy(duration_s, gpu_w=power_w)
    return builders.interval(name, 0.0, duration_s, energy=parts, boards=(gpu,))


@pytest.mark.parametrize(
    ("after_w", "after_c", "excess_w", "drift_w", "assumed"),
    [
        (130.0, 50.0, 1.0 * 15, 0.0, False),  # 1 W per degC between the two baselines
        (124.0, 42.0, 0.7 * 19, 4 - 0.7 * 2, True),  # too close to tell: the slope is assumed
        (120.0, 40.0, 0.7 * 20, 0.0, True),
        (110.0, 50.0, 0.0, -10.0, False),  # it fell, so that temperature explains none of it
    ],
)
def test_a_warm_window_is_held_against_idle_power_at_its_temperature(
    after_w, after_c, excess_w, drift_w, assumed
):
    window = idle_at("window", 400.0, 60.0, 30.0)
    idles = [
        idle_at("loaded_idle_before", 120.0, 40.0),
        idle_at("loaded_idle_after", after_w, after_c),
    ]
    part = ("gpu", "GPU-1")
    found = window_budget(window, idles, [part], {"GPU-1": 0.1})
    assert found.excess_w == pytest.approx(excess_w)
    assert found.drift_w == pytest.approx(drift_w)
    assert any("W per degC" in text for text in found.assumptions) is assumed


@pytest.mark.parametrize(
    ("hot_w", "hot_c", "idle_w", "excess_w", "assumed"),
    [
        (140.0, 55.0, 142.5, 0.0, False),  # 5 W in 10 degC above the baselines, and 5 degC left
        (130.0, 47.0, 130.0, 0.7 * 13, True),  # too close to tell
        (120.0, 55.0, 120.0, 0.0, False),  # colder in power than the baselines: no slope
    ],
)
def test_a_hot_idle_tells_the_idle_power_at_the_windows_temperature(
    hot_w, hot_c, idle_w, excess_w, assumed
):
    window = idle_at("window", 400.0, 60.0, 30.0)
    idles = [
        idle_at("loaded_idle_before", 134.0, 44.0),
        idle_at("loaded_idle_after", 136.0, 46.0),
    ]
    hot = idle_at("hot_idle", hot_w, hot_c, 5.0)
    found = window_budget(window, idles, [GPU], TICKS, hot)
    assert found.idle_w == pytest.approx(idle_w)
    assert found.excess_w == pytest.approx(excess_w)
    assert any("W per degC" in text for text in found.assumptions) is assumed


def test_a_hot_idle_brings_net_energy_nearer_to_the_truth():
    def errors(hot_idle_s):
        known = list(coverage_runs.repeats(coverage_runs.COUNTER_DOMINATES, range(60), hot_idle_s))
        held = coverage_runs.share_of_windows_held(known)["net_energy_j"]
        # what the counter's lag takes from the window is expected in both
        net_j = [one.row.net_energy_j + one.row.counter_lag_j for one in known]
        return held, [(a - one.net_j) / one.net_j for a, one in zip(net_j, known, strict=True)]

    (_, without), (held, errors_with) = errors(0.0), errors(5.0)
    assert held >= 0.93
    assert abs(fmean(errors_with)) < 0.001 < abs(fmean(without))
    assert fmean(e * e for e in errors_with) < fmean(e * e for e in without)


def test_the_interval_of_net_energy_holds_what_is_subtracted_at_the_windows_temperature():
    values = [1.0, 1.01, 0.99]
    rows = [
        builders.metrics(
            value,
            k,
            gross_energy_standard_uncertainty_j=0.0,
            net_energy_standard_uncertainty_j=0.0,
            counter_lag_j=0.0,
            loaded_idle_drift_w=0.0,
        )
        for k, value in enumerate(values, 1)
    ]
    name = "net_energy_per_output_token_j"
    plain = coverage_runs.statistics_of(rows)[name]
    share = 0.1 * rows[0].net_energy_j / rows[0].duration_s  # net is a tenth too large
    warm = [replace(row, loaded_idle_excess_w=share) for row in rows]
    found = coverage_runs.statistics_of(warm)[name]
    assert (found.mean, found.n) == (plain.mean, plain.n)
    assert found.ci_low < 0.9 * plain.mean < plain.ci_low
