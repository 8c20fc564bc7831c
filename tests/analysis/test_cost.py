"""What a sweep will cost: from what was measured, or bounded by what the protocol asks for."""

from __future__ import annotations

import math
from dataclasses import replace

import cost as script
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders

from llm_energy.analysis import cost
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.records import Plan, Spec, read_record, write_record

CELL = builders.spec().cell
HEALTHY = builders.measurement()
REPEAT_S = HEALTHY.end_s - HEALTHY.clock.monotonic_s


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Plan:
    """Return the plan of two cells of three repeats, with their specs below the working folder."""
    monkeypatch.chdir(tmp_path)
    plan = builders.plan([("pytorch", "float32"), ("pytorch", "int8")], 3)
    for repeat in plan.repeats():
        write_record(repeat.spec, builders.spec(repeat.cell.precision, repeat.number))
    write_record("results/test/plan.json", plan)
    return plan


def test_without_any_measurement_the_protocol_is_a_lower_bound(sweep):
    costs = cost.sweep_costs(sweep)
    assert [(c.done, c.left, c.at_least, c.energy_j) for c in costs] == [(0, 3, True, {})] * 2
    assert costs[0].repeat_s == 10 + 2 * 10 + 30 + 5
    assert cost.report(costs, "test").startswith(
        "Sweep test: 6 repeats left, at least 6 min 30 s.\n"
    )


def test_a_given_power_gives_an_energy_that_is_called_given(sweep):
    costs = cost.sweep_costs(sweep, power_w=100.0)
    assert costs[0].energy_j == {"given": 100.0 * 3 * costs[0].repeat_s}
    assert "energy (given power): at least" in cost.report(costs, "test")


def test_measured_repeats_give_time_and_energy_to_their_cell_and_to_its_neighbours(sweep):
    write_record(sweep.measurements()[0], HEALTHY)
    own, neighbour = cost.sweep_costs(sweep)
    assert (own.done, own.left, own.at_least) == (1, 2, False)
    assert (neighbour.done, neighbour.left, neighbour.at_least) == (0, 3, False)
    assert own.repeat_s == neighbour.repeat_s == pytest.approx(REPEAT_S)
    intervals = [*HEALTHY.baselines, *(w.interval for w in HEALTHY.windows)]
    measured_j = sum(
        part.energy_j for i in intervals for part in i.energy if part.status == "measured"
    )
    power_w = measured_j / sum(i.duration_s for i in intervals)
    assert own.energy_j["measured"] == pytest.approx(2 * power_w * REPEAT_S)
    assert set(own.energy_j) == {"measured", "estimated"}  # two numbers, never their sum


def test_a_repeat_without_a_result_says_nothing_of_the_time(sweep):
    failed = replace(HEALTHY, outcome="failed", reason="x", end_s=HEALTHY.clock.monotonic_s + 1)
    write_record(sweep.measurements()[0], failed)
    (own, _) = cost.sweep_costs(sweep)
    assert (own.done, own.at_least) == (1, True)


def test_a_finished_sweep_says_so(sweep):
    for repeat in sweep.repeats():
        write_record(repeat.measurement, replace(HEALTHY, spec=read_record(Spec, repeat.spec)))
    assert cost.report(cost.sweep_costs(sweep), "test") == "Sweep test: every repeat is there."


@given(
    st.lists(st.floats(0.5, 2.0), min_size=2, max_size=8),
    st.floats(0.1, 50.0),
)
def test_the_repeats_needed_are_the_fewest_that_reach_the_target(values, target):
    count = cost.repeats_needed(values, target)
    cv = summarise(values).sd / summarise(values).mean

    def percent(n):
        return 100 * cost.t_quantile(n - 1) * cost.serial_guard(n) * cv / math.sqrt(n)

    if count is None:
        assert percent(cost.MOST_REPEATS) > target
    else:
        assert percent(count) <= target
        assert count == 2 or percent(count - 1) > target


def test_one_repeat_says_nothing_about_the_spread():
    assert cost.repeats_needed([1.0], 2.0) is None
    table = builders.metrics_table([builders.metrics()], [])
    assert all("one repeat says nothing" in line for line in cost.needed_lines(table, 2.0))


def test_the_command_prints_what_is_left_and_what_is_needed(sweep, capsys):
    rows = [
        replace(builders.metrics(), repeat=n, energy_per_output_token_j=value)
        for n, value in ((1, 0.99), (2, 1.0), (3, 1.01))
    ]
    write_record("results/test/pytorch/metrics.json", builders.metrics_table(rows, []))
    assert script.main(["--plan", "results/test/plan.json"]) == 0
    printed = capsys.readouterr().out
    assert "6 repeats left, at least" in printed
    assert f"{rows[0].cell}, {rows[0].workload}, measured: 4 (there are 3)" in printed


def test_a_missing_plan_is_one_message(tmp_path, capsys):
    assert script.main(["--plan", str(tmp_path / "plan.json")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    "stale",
    [{"spec": replace(HEALTHY.spec, seed=9)}, {"weights_sha256": "0" * 64}, {"prompts_sha256": {}}],
)
def test_what_is_to_be_measured_anew_is_not_done(sweep, stale):
    path = sweep.measurements()[0]
    write_record("results/models/m/manifest.json", builders.manifest())
    write_record("results/test/prompts/m.json", builders.prompt_set("m", ["b1"]))
    write_record(path, HEALTHY)
    assert cost.sweep_costs(sweep)[0].done == 1
    write_record(path, replace(HEALTHY, **stale))
    assert cost.sweep_costs(sweep)[0].done == 0
