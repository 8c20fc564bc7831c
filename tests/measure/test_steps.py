"""The steps of the simulated engine: they hold the very tokens and times that its answers tell."""

from __future__ import annotations

from collections import Counter

import pytest
from support.simulated_runs import (
    draw_truth,
    prompts_of,
    run_with_steps,
    simulated_spec,
    simulated_workload,
)

from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.records import Arrivals

SHORT = {"window_min_duration_s": 2.0, "loaded_idle_duration_s": 1.0, "thermal_policy": "none"}
VARIED = {"min_output_tokens": 1, "max_output_tokens": 40}


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_a_window_s_steps_compute_its_requests_tokens(strategy):
    spec = simulated_spec(simulated_workload("b4", 10, strategy=strategy, **VARIED), **SHORT)
    measurement, steps = run_with_steps(SimulatedHost(draw_truth(1)), spec)
    (window,), table = measurement.windows, steps["b4"]
    requests = window.requests
    prefilled, decoded, padded = Counter(), Counter(), Counter()
    for run in table.runs:
        prefilled[run.request] += run.steps * run.prefill_tokens
        decoded[run.request] += run.steps * run.decode_tokens
        padded[run.request] += run.padding_tokens * (run.prefill_tokens > 0)
    places = range(len(requests.request_id))
    assert [prefilled[place] for place in places] == list(requests.prompt_tokens)
    assert [decoded[place] + 1 for place in places] == list(requests.output_tokens)
    assert [padded[place] for place in places] == list(requests.padding_tokens)
    assert set(prefilled) == set(places), "no step is of another request, or of the warm-up"
    assert window.interval.start_s <= table.start_s[0] < table.end_s[-1] <= window.interval.end_s
    last = {run.request: table.end_s[run.first_step + run.steps - 1] for run in table.runs}
    if strategy == "dynamic":
        assert [last[p] for p in places] == pytest.approx(requests.last_token_s, abs=1e-6)


@pytest.mark.parametrize("strategy", ["static", "dynamic"])
def test_of_timed_traffic_only_the_steps_that_reach_into_the_window_are_kept(strategy):
    traffic = {"traffic_simulation": {"batch_timeout_s": 0.2}}
    workload = simulated_workload("b4", 6, strategy=strategy, **VARIED, **traffic)
    spec = simulated_spec(workload, **SHORT)
    arrivals = Arrivals("poisson", 2.0, 6.0, tuple(0.11 * k for k in range(1, 70)), 10.0)
    measurement, steps = run_with_steps(
        SimulatedHost(draw_truth(2)), spec, prompts_of(spec), arrivals={"b4": arrivals}
    )
    (window,), table = measurement.windows, steps["b4"]
    begin_s, end_s = window.interval.start_s, window.interval.end_s
    assert table.end_s[0] > begin_s
    assert table.start_s[-1] < end_s
    # only a row that goes on in its batch, though its request had ended before the window
    assert all(run.padding_tokens == 1 for run in table.runs if run.request is None)
    inside = Counter()
    for run in table.runs:
        emits = run.decode_tokens or (run.prefill_tokens > 0)
        ends_s = table.end_s[run.first_step : run.first_step + run.steps]
        inside[run.request] += sum(emits for t in ends_s if begin_s < t <= end_s)
    told = window.requests.output_tokens_inside
    assert [inside[place] for place in range(len(told))] == list(told)
