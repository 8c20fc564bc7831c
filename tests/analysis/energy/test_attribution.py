"""The energy of each request: shares that add up, that follow the work, and that match a truth."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from random import Random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated_runs import draw_truth, run_with_steps, simulated_spec, simulated_workload

from llm_energy.analysis.energy.attribution import Attribution, Cost, attribute, shared
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.records import Arrivals, Request, power_trace
from llm_energy.records.steps import Run, StepTable

COST = Cost(token=3.0, row=1.0, pair=0.01, held=0.5, weights=100.0)
TOKENS_ONLY = Cost(token=1.0, row=0.0, pair=0.0, held=0.0, weights=0.0)
small = st.integers(0, 5)


def steps_of(*runs: Run, count: int | None = None) -> StepTable:
    """Return a table of steps of one second each."""
    count = count or max(run.first_step + run.steps for run in runs)
    times_s = tuple(map(float, range(count + 1)))
    return StepTable(times_s[:-1], times_s[1:], *zip(*runs, strict=True))


@st.composite
def schedules(draw) -> tuple[StepTable, list[float]]:
    """Draw steps with any work in them, and the joules of each."""
    count = draw(st.integers(1, 12))
    runs = []
    for _ in range(draw(st.integers(1, 10))):
        first = draw(st.integers(0, count - 1))
        work = draw(st.sampled_from([(0, 1, 0), (5, 0, 0), (3, 0, 2), (0, 0, 1), (0, 0, 0)]))
        runs.append(
            Run(
                draw(st.none() | st.integers(0, 4)),
                first,
                draw(st.integers(1, count - first)),
                *work,
                draw(small),
                draw(small),
            )
        )
    joules = st.floats(0, 1e6, allow_subnormal=False)
    return steps_of(*runs, count=count), draw(st.lists(joules, min_size=count, max_size=count))


@settings(max_examples=1000)
@given(schedules())
def test_every_joule_of_any_schedule_is_shared_out_once(schedule):
    table, steps_j = schedule
    found = shared(table, COST, numpy.array(steps_j), 5)
    assert math.fsum(found) == pytest.approx(math.fsum(steps_j), rel=1e-9)
    assert min(found) >= 0


def test_a_step_is_shared_by_tokens_context_and_the_weights_read_for_all():
    """Request 0 has a prompt of 4 computed, request 1 makes a token after 10."""
    table = steps_of(Run(0, 0, 1, 4, 0, 0, 0, 0), Run(1, 0, 1, 0, 1, 0, 10, 0))
    prompt = 4 * 3.0 + 1.0 + 10 * 0.01 + 4 * 0.5 + 50.0
    token = 3.0 + 1.0 + 11 * 0.01 + 11 * 0.5 + 50.0
    found = shared(table, COST, numpy.array([7.0]), 2)
    whole = prompt + token
    assert found == pytest.approx([7 * prompt / whole, 7 * token / whole, 0.0])


def test_a_run_weighs_more_with_each_step_of_its_own():
    table = steps_of(Run(0, 0, 3, 0, 1, 0, 10, 0), Run(1, 0, 3, 0, 1, 0, 50, 0))
    found = shared(table, COST, numpy.array([1.0, 2.0, 4.0]), 2)
    own = [[COST.of(1, start + k) + 50.0 for k in range(3)] for start in (10, 50)]
    expected = [
        sum(j * row[k] / (own[0][k] + own[1][k]) for k, j in enumerate((1.0, 2.0, 4.0)))
        for row in own
    ]
    assert found == pytest.approx([*expected, 0.0])


def test_pads_are_charged_to_the_longer_prompts_by_how_much_longer_they_are():
    prompts = (2, 4, 8)
    runs = [Run(n, 0, 1, prompt, 0, 8 - prompt, 0, 0) for n, prompt in enumerate(prompts)]
    found = shared(steps_of(*runs), TOKENS_ONLY, numpy.array([24.0]), 3)
    # six pads of the first: two parts to the second, six to the third; four of the second: third's
    assert found == pytest.approx([2.0, 4.0 + 6 * 2 / 8, 8.0 + 6 * 6 / 8 + 4.0, 0.0])


def test_rows_that_have_ended_are_charged_to_those_that_have_not():
    runs = [
        Run(0, 0, 1, 0, 1, 0, 5, 0),
        Run(0, 1, 2, 0, 0, 1, 6, 0),
        Run(1, 0, 2, 0, 1, 0, 5, 0),
        Run(1, 2, 1, 0, 0, 1, 7, 0),
        Run(2, 0, 3, 0, 1, 0, 5, 0),
    ]
    found = shared(steps_of(*runs), TOKENS_ONLY, numpy.array([3.0, 3.0, 3.0]), 3)
    assert found == pytest.approx([1.0, 1.0 + 1.5, 1.0 + 1.5 + 3.0, 0.0])


def test_a_step_for_no_request_of_the_window_is_nobody_s():
    table = steps_of(Run(None, 0, 1, 4, 0, 0, 0, 0), count=2)
    assert shared(table, COST, numpy.array([2.0, 5.0]), 1) == pytest.approx([0.0, 7.0])


def attributed(tmp_path, strategy: str, size: int, seed: int, timed: bool = False, trace=True):
    """Measure requests of many lengths; give the shares of a window's joules, and the truth.

    The last true joules are those between steps. The host's processors have no sensors.
    """
    name, random = f"b{size}", Random(seed)
    lengths = {"min_output_tokens": 1, "max_output_tokens": 200}
    traffic = {"traffic_simulation": {"batch_timeout_s": 0.2}} if timed else {}
    workload = simulated_workload(name, 32, strategy=strategy, **lengths, **traffic)
    quick = {"window_min_duration_s": 8.0, "loaded_idle_duration_s": 1.0, "thermal_policy": "none"}
    spec = simulated_spec(workload, **quick)
    prompts = [Request(f"q{k}", tuple(range(8, 8 + random.randint(10, 600)))) for k in range(32)]
    times_s = tuple(sorted(random.uniform(0, 14) for _ in range(16)))
    arrivals = {name: Arrivals("poisson", 2.0, 12.0, times_s, 3.0)} if timed else None
    host = SimulatedHost(replace(draw_truth(seed), packages=()), seed)
    path = tmp_path / "r01.trace.csv.gz"
    measurement, steps = run_with_steps(host, spec, {name: tuple(prompts)}, path, arrivals)
    (window,) = measurement.windows
    samples: dict[str, list] = {}
    for sample in power_trace.read(path) if trace else ():
        samples.setdefault(sample.device, []).append(sample)
    found = attribute(WindowEvidence(measurement, window), steps[name], samples)
    true_j = host.request_energy_j(window.interval.start_s, window.interval.end_s)
    numbers = range(len(window.requests.request_id))
    if timed:
        begin_s = window.traffic.begin_s - 2.0
        due_s = {round(begin_s + time_s, 6): number for number, time_s in enumerate(times_s)}
        numbers = [due_s[round(arrival_s, 6)] for arrival_s in window.requests.arrival_s]
    whole_j = math.fsum(part.energy_j or 0.0 for part in window.interval.energy)
    assert math.fsum([*found.requests_j, found.idle_j]) == pytest.approx(whole_j, rel=1e-9)
    drawn_j = host.truth_energy_j("gpu", window.interval.start_s, window.interval.end_s)
    idle_j = drawn_j - sum(true_j.values())
    return found, [*(true_j.get(number, 0.0) for number in numbers), idle_j], window


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_the_share_of_a_request_is_near_its_true_energy(tmp_path, strategy, size, seed):
    found, (*true_j, _), _ = attributed(tmp_path, strategy, size, seed)
    errors = [abs(j / true - 1) for j, true in zip(found.requests_j, true_j, strict=True)]
    assert statistics.fmean(errors) < 0.05
    assert found.power == "power trace"
    assert found.idle_j < 1e-3 * sum(found.requests_j), "the simulated engine never rests in a pass"


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_what_is_drawn_between_steps_of_timed_traffic_is_no_request_s(tmp_path, strategy):
    errors = []
    for seed in range(1, 7):
        found, (*true_j, idle_j), window = attributed(tmp_path, strategy, 4, seed, timed=True)
        served = zip(window.requests.service_start_s, window.requests.last_token_s, strict=True)
        begin_s, end_s = window.interval.start_s, window.interval.end_s
        whole = [k for k, (first, last) in enumerate(served) if begin_s <= first and last <= end_s]
        errors += [abs(found.requests_j[k] / true_j[k] - 1) for k in whole]
        assert found.idle_j == pytest.approx(idle_j, rel=0.05)
        assert found.idle_j > 0.05 * sum(found.requests_j)
        both = math.fsum([*found.requests_j, *found.idle_of_requests_j])
        assert both == pytest.approx(math.fsum([*found.requests_j, found.idle_j]))
    assert len(errors) > 50
    assert statistics.fmean(errors) < 0.05


def test_without_a_power_trace_the_power_is_taken_as_constant(tmp_path):
    found, (*true_j, _), _ = attributed(tmp_path, "static", 4, 1, trace=False)
    assert found.power == "mean power"
    errors = [abs(j / true - 1) for j, true in zip(found.requests_j, true_j, strict=True)]
    assert statistics.fmean(errors) < 0.1
    assert any("no data sheet" in text for text in found.assumptions)


def test_idle_joules_of_a_window_without_any_work_stay_nobody_s():
    assert Attribution((0.0, 0.0), 5.0, "measured", "mean power").idle_of_requests_j == (0.0, 0.0)
