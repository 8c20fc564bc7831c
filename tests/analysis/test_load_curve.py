"""Energy over load: the line that separates waiting from tokens, and the tables that show it."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
from inputs.traffic.test_arrivals import measured_on_host
from statsmodels.api import OLS, add_constant
from support import builders, simulated_loads

from llm_energy.analysis.load_curve import fits, load_curves, marginals
from llm_energy.publish.tables import make
from llm_energy.publish.tables.load import ONE_REPEAT
from llm_energy.publish.tables.writers.table import Results
from llm_energy.records import Statistic

P_LOADED_W, PER_TOKEN_J = 120.0, 0.4
RATES = {"r1": 50.0, "r2": 100.0, "r4": 200.0}


def window(workload: str, repeat: int = 1, noise_w: float = 0.0, **changes):
    """Return the metrics of a window that lies on the line, but for noise."""
    tokens_per_s = RATES[workload]
    on_line = builders.metrics(
        repeat=repeat,
        workload=workload,
        traffic="poisson",
        series="s",
        requested_rate_per_s=float(workload[1:]),
        output_tokens_per_s=tokens_per_s,
        mean_power_w=P_LOADED_W + PER_TOKEN_J * tokens_per_s + noise_w,
        loaded_idle_power_w=None,
    )
    return replace(on_line, **changes)


def lines(rows):
    return list(fits([builders.metrics_table(rows)]))


def fit_sheet(rows):
    aggregate = builders.aggregate([aggregated("r1", 0.9, 1)])
    curves = load_curves([aggregate], [builders.metrics_table(rows)])
    return make(Results((aggregate,), load=curves))["load-fit"].sheet


def test_the_line_finds_the_floor_and_the_marginal_joule() -> None:
    idle = {"loaded_idle_power_w": P_LOADED_W}
    [fit] = lines([window(workload, repeat, **idle) for workload in RATES for repeat in (1, 2)])
    assert fit.loaded_power_w.value == pytest.approx(P_LOADED_W)
    assert fit.marginal_energy_per_output_token_j.value == pytest.approx(PER_TOKEN_J)
    assert (fit.windows, fit.workloads, fit.repeats) == (6, tuple(RATES), (1, 2))
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.worst_residual == pytest.approx(0.0, abs=1e-9)
    assert fit.loaded_idle_power_w == pytest.approx(P_LOADED_W)
    assert fit.reason is None


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        ("requests overlap", "independent and normal"),
        ("tokens cost less in larger batches", "log-normal with a sigma of 0.5"),
        ("2 at a time, busy for 80 %", "correlated by 0.3 with the repeat before"),
        ("requests overlap", "three sessions of three repeats"),
    ],
)
def test_what_one_more_token_costs_is_held_whatever_the_shape(shape, noise) -> None:
    """A small share of what tests/benchmarks/load_coverage.py does; 100 sweeps to 3 SD."""
    kinds = simulated_loads.SHAPES[shape] | simulated_loads.NOISE[noise]
    assert min(simulated_loads.held(simulated_loads.Load(**kinds), range(100))) >= 0.88


def cost(rows, **changes):
    """Return what one more token costs, by workload."""
    return {
        key[1]: one for key, one in marginals([builders.metrics_table(rows, **changes)]).items()
    }


def test_one_more_token_costs_the_difference_to_the_next_lower_rate() -> None:
    rows = [window(w, n, noise_w=9.0 * n) for w in RATES for n in (1, 2)]
    found = cost([*rows, window("r1", 3), window("r4", 3, flags=("E28",))])
    assert {name: one.mean for name, one in found.items()} == {
        "r2": pytest.approx(PER_TOKEN_J),
        "r4": pytest.approx(PER_TOKEN_J),
    }
    assert {one.n for one in found.values()} == {2}
    assert cost([window("r1"), window("r2")])["r2"].ci_low is None
    assert cost([window("r1"), window("r2", output_tokens_per_s=50.0)]) == {}


def test_what_one_more_token_costs_on_unlike_machines_has_no_interval() -> None:
    rows = [replace(row, conditions=f"c{row.repeat}") for row in simulated_loads.Load().rows(0)]
    assert {one.ci_low is None for one in cost(rows).values()} == {False}
    conditions = {f"c{n}": {"boards": f"GPU-{n}"} for n in range(1, 6)}
    assert {one.ci_low for one in cost(rows, conditions=conditions).values()} == {None}


def test_what_other_arrivals_keep_busy_is_not_known() -> None:
    poisson = list(simulated_loads.Load().rows(0))
    assert lines(poisson)[0].awake_power_w > 0
    assert lines([replace(row, traffic="gamma") for row in poisson])[0].awake_power_w is None


def test_the_line_of_a_single_repeat_is_that_of_least_squares() -> None:
    """Against statsmodels' regression."""
    rows = [window(w, noise_w=noise_w) for w, noise_w in zip(RATES, (1, -2, 1), strict=True)]
    [fit] = lines(rows)
    tokens_per_s = add_constant([row.output_tokens_per_s for row in rows])
    line = OLS([row.mean_power_w for row in rows], tokens_per_s).fit()
    estimates = (fit.loaded_power_w, fit.marginal_energy_per_output_token_j)
    assert [one.value for one in estimates] == pytest.approx(line.params)
    assert {(one.low, one.high) for one in estimates} == {(None, None)}
    assert fit.r_squared == pytest.approx(line.rsquared)
    shares = abs(line.resid) / [row.mean_power_w for row in rows]
    assert fit.worst_residual == pytest.approx(max(shares))
    assert fit.repeats == (1,)
    sheet = fit_sheet(rows)
    assert [line.cells["n"] for line in sheet.lines] == ["1"]
    assert ONE_REPEAT in sheet.notes


def test_each_repeat_counts_as_one_however_many_windows_it_has() -> None:
    rows = [window(w) for w in RATES]
    rows += [window(w, 2, noise_w=6.0) for w in ("r1", "r4")]
    [fit] = lines(rows)
    assert fit.loaded_power_w.value == pytest.approx(P_LOADED_W + 3.0)
    assert (fit.windows, fit.repeats) == (5, (1, 2))


def test_what_repeats_differ_by_is_no_residual() -> None:
    [fit] = lines([window(w, r, noise_w=10.0 * r) for w in RATES for r in (1, 2, 3)])
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.worst_residual == pytest.approx(0.0, abs=1e-9)


def test_two_windows_in_a_repeat_show_no_residual() -> None:
    [fit] = lines([window(w, r, noise_w=10.0 * r) for w in ("r1", "r4") for r in (1, 2)])
    assert fit.loaded_power_w.value == pytest.approx(P_LOADED_W + 15.0)
    assert (fit.r_squared, fit.worst_residual) == (None, None)


def test_a_repeat_at_one_rate_is_left_out_by_name() -> None:
    rows = [window(w, r) for w in RATES for r in (1, 2)] + [window("r1", 3, noise_w=99.0)]
    [fit] = lines(rows)
    assert (fit.windows, fit.repeats, fit.without_line) == (6, (1, 2), (3,))
    assert fit.loaded_power_w.value == pytest.approx(P_LOADED_W)
    assert "Repeat 3 left out: its windows are at too few rates for a line" in fit_sheet(rows).notes


def test_a_curve_shows_in_the_residual() -> None:
    bent = [replace(window(w), mean_power_w=100 + 40 * RATES[w] ** 0.3) for w in RATES]
    [fit] = lines(bent)
    assert fit.worst_residual > 0.005


E2E_S, IDLE_W, AWAKE_W = 1.0, 100.0, 90.0


def overlapping(repeat: int, noise_w: float = 0.0):
    """Return the windows of an engine whose requests overlap, at four rates."""
    for rate in (0.5, 1.0, 2.0, 4.0):
        power_w = IDLE_W + AWAKE_W * (1 - math.exp(-rate * E2E_S)) + 0.1 * 50 * rate
        yield replace(
            window("r1", repeat),
            workload=f"r{rate:g}",
            requested_rate_per_s=rate,
            arrival_rate_per_s=rate,
            e2e_latency_s=E2E_S,
            output_tokens_per_s=50 * rate,
            mean_power_w=power_w + noise_w,
            loaded_idle_power_w=IDLE_W + noise_w,
        )


def test_where_requests_overlap_there_is_no_line_but_a_curve_from_the_idle_power() -> None:
    [fit] = lines([row for n in (1, 2, 3) for row in overlapping(n, noise_w=n - 2.0)])
    assert (fit.loaded_power_w, fit.marginal_energy_per_output_token_j) == (None, None)
    assert "do not lie on a line" in fit.reason
    assert fit.worst_residual > 0.02
    assert fit.awake_power_w == pytest.approx(AWAKE_W)
    assert fit.awake_marginal_energy_per_output_token_j == pytest.approx(0.1)
    assert fit.awake_worst_residual == pytest.approx(0.0, abs=1e-9)
    sheet = fit_sheet([row for n in (1, 2, 3) for row in overlapping(n, noise_w=n - 2.0)])
    [row] = sheet.lines
    assert (row.cells["loaded"], row.cells["awake"]) == ("\u2013", "90.0")


@pytest.mark.parametrize(("idle_w", "held"), [(119.0, True), (100.0, False), (140.0, True)])
def test_a_power_of_waiting_that_the_idle_baseline_contradicts_is_none(idle_w, held) -> None:
    rows = [window(w, n, n - 2.0, loaded_idle_power_w=idle_w) for w in RATES for n in (1, 2, 3)]
    [fit] = lines(rows)
    assert (fit.loaded_power_w is not None) is held
    if not held:
        assert "was measured to wait at 100 W" in fit.reason


def test_a_power_that_never_changes_is_all_floor() -> None:
    [fit] = lines([replace(window(w), mean_power_w=28.0) for w in RATES])
    assert fit.loaded_power_w.value == pytest.approx(28.0)
    assert fit.marginal_energy_per_output_token_j.value == pytest.approx(0.0, abs=1e-9)
    assert fit.r_squared is None


def test_without_enough_windows_the_reason_stands_in_for_the_line() -> None:
    [fit] = lines([window("r1"), window("r1", 2), window("r1", 3)])
    assert fit.loaded_power_w is None
    assert fit.reason == (
        "a line needs 2 rates in a repeat, and to be judged 3 windows there or a second such "
        "repeat; found windows: 3, rates: 1, repeats: 3"
    )
    behind = [window("r1"), window("r2"), window("r4", flags=("E28",))]
    [fit] = lines(behind)
    assert fit.reason.endswith("found windows: 2, rates: 2, repeats: 1, and fallen behind: 1")


def test_workloads_of_one_rate_are_one_rate_however_long_they_last() -> None:
    longer = replace(window("r1"), workload="longer", output_tokens_per_s=51.0)
    [fit] = lines([window("r1"), longer, replace(longer, workload="ramped")])
    assert fit.loaded_power_w is None
    assert "rates: 1" in fit.reason


def test_rates_that_are_served_alike_are_one_rate() -> None:
    """At very low rates no token may come in any window."""
    [fit] = lines([window(w, output_tokens_per_s=0.0) for w in RATES])
    assert "rates: 1" in fit.reason


def test_only_like_windows_share_a_line() -> None:
    other = [window(w, series="other", components=("cpu",)) for w in RATES]
    offline = builders.metrics()
    closed = [replace(window(w), traffic="closed_loop") for w in RATES]
    found = lines([*map(window, RATES), *other, offline, *closed])
    assert [(fit.components, fit.windows) for fit in found] == [(("gpu",), 3), (("cpu",), 3)]


def aggregated(workload: str, requests_per_s: float, arriving: float | None, **changes):
    values = {"requests_per_s": requests_per_s, "arrival_rate_per_s": arriving}
    values |= {"energy_per_output_token_j": 0.5, "mean_power_w": 150.0}
    statistics = {n: Statistic(2, v, 0.1, v and 0.9 * v, v and 1.1 * v) for n, v in values.items()}
    traffic = None if arriving is None else "poisson"
    row = builders.aggregate_row(workload=workload, statistics=statistics, work="same")
    return replace(row, traffic=traffic, **changes)


def test_utilisation_is_the_share_of_what_the_same_work_reaches_at_most() -> None:
    rows = [aggregated("saturated", 20.0, None), aggregated("r1", 0.99, 1.0)]
    rows += [aggregated("r5", 4.8, 5.0), aggregated("other", 99.0, None, work="other")]
    found = load_curves([builders.aggregate(rows)], []).points
    assert {p.workload: p.utilisation for p in found} == {
        "saturated": None,
        "r1": pytest.approx(0.05),
        "r5": pytest.approx(0.25),
    }


def test_the_tables_show_points_and_line() -> None:
    timed = [aggregated("r1", 0.9, 1), aggregated("r2", 1.9, 2)]
    aggregate = builders.aggregate([aggregated("saturated", 20.0, None), *timed])
    curves = load_curves([aggregate], [builders.metrics_table(map(window, RATES))])
    tables = make(Results((aggregate,), load=curves))
    [block] = tables["load"].sheet.blocks
    saturated, timed, faster = (line.cells for line in block[1])
    assert (saturated["traffic"], saturated["utilisation"]) == ("offline", "\u2013")
    assert [row["marginal"] for row in (saturated, timed, faster)] == ["\u2013", "\u2013", "0.40"]
    assert (timed["traffic"], timed["utilisation"]) == ("poisson", "5%")
    [row] = csv.DictReader(io.StringIO(tables["load-fit"].csv))
    assert float(row["loaded_power_w_value"]) == pytest.approx(P_LOADED_W)
    [fit] = tables["load-fit"].sheet.lines
    assert (fit.cells["loaded"], fit.cells["marginal"]) == ("120", "0.400")


def test_a_sweep_without_timed_traffic_says_so() -> None:
    aggregate = builders.aggregate([builders.aggregate_row()])
    tables = make(Results((aggregate,), load=load_curves([aggregate], [])))
    for name in ("load", "load-fit"):
        assert "no workload of this sweep has timed traffic" in tables[name].sheet.label


def test_a_simulated_host_lies_between_its_idle_and_its_busy_power() -> None:
    """The real meter, protocol and fit on a host whose powers are known."""
    rows = []
    for rate in (0.5, 1.0, 2.0, 4.0):
        measurement, _ = measured_on_host("dynamic", mode="poisson", rate_per_s=rate, id=f"r{rate}")
        verdict = builders.verdict(measurement)
        rows += [r for r in builders.window_metrics(measurement, verdict) if r.components]
    [fit] = lines(rows)
    assert fit.awake_power_w > 0
    assert fit.awake_worst_residual < fit.worst_residual
