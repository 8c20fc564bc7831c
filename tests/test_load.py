"""Energy over load: the line that separates waiting from tokens, and the tables that show it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from random import Random

import builders
import pytest
from test_traffic import measured_on_host

from llm_energy.load import fits, load_curves
from llm_energy.normalise import window_metrics
from llm_energy.records import Statistic
from llm_energy.tables import make
from llm_energy.tables.sheet import Results

P_LOADED_W, PER_TOKEN_J = 120.0, 0.4
RATES = {"r1": 50.0, "r2": 100.0, "r4": 200.0}


def window(workload: str, repeat: int = 1, noise_w: float = 0.0, **changes):
    """Give the metrics of a window that lies on the line, but for noise."""
    tokens_per_s = RATES[workload]
    on_line = builders.metrics(
        repeat=repeat,
        workload=workload,
        traffic="poisson",
        series="s",
        output_tokens_per_s=tokens_per_s,
        mean_power_w=P_LOADED_W + PER_TOKEN_J * tokens_per_s + noise_w,
        loaded_idle_power_w=100.0,
    )
    return replace(on_line, **changes)


def lines(rows):
    return list(fits([builders.metrics_table(rows)]))


def test_the_line_finds_the_floor_and_the_marginal_joule() -> None:
    [fit] = lines([window(workload, repeat) for workload in RATES for repeat in (1, 2)])
    assert fit.loaded_power_w.value == pytest.approx(P_LOADED_W)
    assert fit.marginal_energy_per_output_token_j.value == pytest.approx(PER_TOKEN_J)
    assert (fit.windows, fit.workloads) == (6, tuple(RATES))
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.worst_residual == pytest.approx(0.0, abs=1e-9)
    assert fit.loaded_idle_power_w == pytest.approx(100.0)


def test_its_intervals_hold_the_truth_in_95_of_100_cases() -> None:
    random, held = Random(5), {"loaded_power_w": 0, "marginal_energy_per_output_token_j": 0}
    truth = {"loaded_power_w": P_LOADED_W, "marginal_energy_per_output_token_j": PER_TOKEN_J}
    runs = 400
    for _ in range(runs):
        rows = [window(w, r, random.gauss(0, 3)) for w in RATES for r in (1, 2, 3)]
        [fit] = lines(rows)
        for name in held:
            found = getattr(fit, name)
            held[name] += found.low <= truth[name] <= found.high
    for count in held.values():
        assert 0.92 * runs <= count <= 0.98 * runs


def test_a_curve_shows_in_the_residual() -> None:
    bent = [replace(window(w), mean_power_w=100 + 40 * RATES[w] ** 0.3) for w in RATES]
    [fit] = lines(bent)
    assert fit.worst_residual > 0.005


def test_a_power_that_never_changes_is_all_floor() -> None:
    [fit] = lines([replace(window(w), mean_power_w=28.0) for w in RATES])
    assert fit.loaded_power_w.value == pytest.approx(28.0)
    assert fit.marginal_energy_per_output_token_j.value == pytest.approx(0.0, abs=1e-9)
    assert fit.r_squared is None


def test_without_enough_windows_the_reason_stands_in_for_the_line() -> None:
    [fit] = lines([window("r1"), window("r1", 2), window("r1", 3)])
    assert fit.loaded_power_w is None
    assert fit.reason == "a line needs 3 windows at 2 rates or more; there are 3 at 1"
    behind = [window("r1"), window("r2"), window("r4", flags=("E28",))]
    [fit] = lines(behind)
    assert fit.reason.endswith("there are 2 at 2, and 1 that fell behind")


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
    aggregate = builders.aggregate([aggregated("saturated", 20.0, None), aggregated("r1", 0.9, 1)])
    curves = load_curves([aggregate], [builders.metrics_table(map(window, RATES))])
    tables = make(Results((aggregate,), load=curves))
    [block] = tables["load"].sheet.blocks
    saturated, timed = (line.cells for line in block[1])
    assert (saturated["traffic"], saturated["utilisation"]) == ("offline", "\u2013")
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
        rows += [r for r in window_metrics(measurement, verdict) if r.components]
    [fit] = lines(rows)
    assert 100 < fit.loaded_power_w.value < 500
    assert fit.marginal_energy_per_output_token_j.low > 0
