"""Joules per token and latencies, from windows whose numbers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import normalise as script
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import builders

from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.validate import validate
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import (
    ComponentEnergy,
    Flag,
    MeterSettings,
    MetricsTable,
    Quality,
    SteadyState,
    Verdicts,
    read_record,
    write_record,
)
from llm_energy.records.registry.metrics import GROSS


def rows(window=None, **changes):
    windows = (builders.window(**(window or {})),)
    measured = builders.measurement(windows=windows, **changes)
    return list(builders.window_metrics(measured, builders.verdict(measured)))


def test_measured_and_estimated_joules_are_two_rows():
    measured, estimated = rows()
    assert (measured.energy_status, measured.components) == ("measured", ("gpu",))
    assert (estimated.energy_status, estimated.components) == ("estimated", ("dram",))
    assert measured.gross_energy_j == 4000.0
    assert estimated.gross_energy_j == 200.0


def test_the_quantities_of_a_known_window():
    row = rows()[0]
    # 100 W for 40 s over 2 passes of 2 requests, with 4 prompt and 8 output tokens each.
    assert (row.requests, row.prompt_tokens, row.output_tokens) == (4, 16, 32)
    assert row.energy_per_output_token_j == pytest.approx(4000 / 32)
    assert row.energy_per_total_token_j == pytest.approx(4000 / 48)
    assert row.energy_per_request_j == pytest.approx(1000)
    assert row.mean_power_w == pytest.approx(100)
    assert row.output_tokens_per_s == pytest.approx(0.8)
    # The loaded, idle model draws 50 W.
    assert row.loaded_idle_power_w == pytest.approx(50)
    assert row.net_energy_j == pytest.approx(2000)
    assert row.net_energy_per_output_token_j == pytest.approx(2000 / 32)
    assert row.net_reason is None
    # 360 g/kWh is 0.1 mg/J.
    assert row.co2e_g_per_output_token == pytest.approx(4000 / 32 * 1e-4)
    assert row.ttft_s == pytest.approx(2.0)
    assert row.tpot_s == pytest.approx(2.0)
    assert row.e2e_latency_s == pytest.approx(16.0)
    assert (row.workload, row.batch_size, row.repeat, row.verdict) == ("b1", 1, 1, "valid")
    assert row.hostname == "node1"


def test_without_a_baseline_net_is_null_with_a_reason():
    row = rows(baselines=())[0]
    assert row.net_energy_j is None
    assert row.net_energy_per_output_token_j is None
    assert row.loaded_idle_power_w is None
    assert row.net_reason == "no baseline loaded_idle_before"


def test_without_a_carbon_intensity_there_is_no_co2e():
    assert rows(carbon_intensity=None)[0].co2e_g_per_output_token is None


def test_gpus_of_one_kind_are_added():
    gpus = tuple(
        ComponentEnergy("gpu", uuid, "measured", "nvml", joules)
        for uuid, joules in (("GPU-1", 100.0), ("GPU-2", 50.0))
    )
    (row,) = rows({"interval": builders.interval("window", 1020.0, 40.0, gpus)})
    assert (row.gross_energy_j, row.components) == (150.0, ("gpu",))


def test_components_add_up_to_the_gross_energy_of_their_own_status():
    parts = (
        *builders.energy(40.0)[:1],
        ComponentEnergy("cpu", "package-0", "measured", "rapl", 800.0),
        *builders.energy(40.0)[2:],
    )
    measured, estimated = rows({"interval": builders.interval("window", 1020.0, 40.0, parts)})
    tokens = measured.output_tokens
    assert measured.gpu_energy_per_output_token_j == pytest.approx(4000.0 / tokens)
    assert measured.cpu_energy_per_output_token_j == pytest.approx(800.0 / tokens)
    assert measured.dram_energy_per_output_token_j is None
    assert measured.energy_per_output_token_j == pytest.approx(4800.0 / tokens)
    assert estimated.gpu_energy_per_output_token_j is None
    assert estimated.dram_energy_per_output_token_j == estimated.energy_per_output_token_j


def test_latencies_skip_requests_without_the_times_they_need():
    def means(**columns):
        [measured, _] = rows({"requests": builders.request_table(1020.0, **columns)})
        return measured.ttft_s, measured.tpot_s, measured.e2e_latency_s

    assert means(first_token_s=(None, 1022.0, None, 1042.0))[0] == pytest.approx(2.0)
    without = {"first_token_s": (None,) * 4, "last_token_s": (None,) * 4}
    assert means(**without) == (None, None, None)


def test_the_place_in_the_queue_is_no_part_of_service():
    """Of requests that are all there at the start, the last ones wait for all others."""
    due_s, starts_s = (1020.0,) * 4, (1020.0, 1030.0, 1040.0, 1050.0)
    firsts_s = tuple(start_s + 0.5 for start_s in starts_s)
    table = builders.request_table(
        1020.0,
        arrival_s=due_s,
        service_start_s=starts_s,
        first_token_s=firsts_s,
        last_token_s=tuple(first_s + 5 for first_s in firsts_s),
    )
    [measured, _] = rows({"requests": table})
    assert measured.ttft_s == pytest.approx(15.5)
    assert measured.service_ttft_s == pytest.approx(0.5)
    assert measured.queueing_s == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("events", "share"),
    [
        ({}, None),
        ({"drafted_tokens": 0, "accepted_tokens": 0}, None),
        ({"drafted_tokens": 40, "accepted_tokens": 10}, 0.25),
    ],
)
def test_of_drafted_tokens_the_share_that_was_accepted_is_told(events, share):
    assert {row.accepted_draft_share for row in rows({"events": events})} == {share}


def test_one_output_token_has_no_time_per_output_token():
    table = builders.request_table(1020.0, output_tokens=(1,) * 4)
    [measured, _] = rows({"requests": table})
    assert measured.tpot_s is None
    assert measured.ttft_s is not None
    assert measured.e2e_latency_s is not None
    assert not any(name.startswith("tpot") for name in measured.latencies_s)
    assert measured.latencies_s["e2e_p50"] == pytest.approx(16.0)


def test_measured_joules_have_an_uncertainty_and_estimated_ones_a_reason():
    meter = replace(builders.measurement().meter, counter_tick_s={"GPU-1": 0.2})
    measured, estimated = rows(meter=meter)
    # The GPU draws 50 W before the window and 100 W inside, and ticks every 0.2 s.
    assert measured.gross_energy_standard_uncertainty_j == pytest.approx(
        0.2 * math.sqrt((50**2 + 100**2) / 12)
    )
    idle_w = 50 * 0.2 / math.sqrt(6) / 10 / math.sqrt(2)  # two baselines of 10 s
    assert measured.net_energy_standard_uncertainty_j == pytest.approx(
        math.hypot(measured.gross_energy_standard_uncertainty_j, 40 * idle_w)
    )
    assert measured.counter_lag_j == pytest.approx(0.1 * (100 - 50))
    assert measured.loaded_idle_drift_w == pytest.approx(0.0)
    assert (measured.uncertainty_reason, measured.assumptions) == (None, ())
    assert estimated.gross_energy_standard_uncertainty_j is None
    assert estimated.net_energy_standard_uncertainty_j is None
    assert estimated.counter_lag_j is None
    assert "a model of the hardware has no known error" in estimated.uncertainty_reason


def test_a_tick_that_was_not_measured_is_assumed_and_named():
    row = rows(meter=None)[0]
    assert row.assumptions == ("the gpu counter ticks every 100 ms (not measured)",)
    assert row.counter_lag_j == pytest.approx(0.05 * (100 - 50))


def test_baselines_of_other_components_bound_nothing():
    other = builders.interval("loaded_idle_before", 1010.0, 10.0, builders.estimated_only(10.0))
    row = rows(baselines=(other,))[0]
    assert (row.net_energy_j, row.net_energy_standard_uncertainty_j) == (None, None)
    assert row.gross_energy_standard_uncertainty_j > 0


def test_pue_enters_once_and_only_where_it_is_given():
    assert rows()[0].facility_energy_per_output_token_j is None
    row, estimated = rows_of(builders.spec(meter=MeterSettings(pue=1.25)))
    assert row.facility_energy_per_output_token_j == pytest.approx(1.25 * 4000 / 32)
    assert row.energy_per_output_token_j == pytest.approx(4000 / 32)
    assert row.gross_energy_j == 4000
    assert estimated.facility_energy_per_output_token_j == pytest.approx(1.25 * 200 / 32)


def rows_of(spec):
    measured = builders.measurement(spec)
    return list(builders.window_metrics(measured, builders.verdict(measured)))


def test_the_steady_state_stands_beside_the_whole_window():
    passes = tuple(builders.interval("steady_state", 1022.0 + 20 * k, 10.0) for k in range(2))
    row, estimated = rows({"steady_state": SteadyState(passes, 20)})
    assert row.steady_state_energy_per_output_token_j == pytest.approx(2 * 10 * 100 / 20)
    assert estimated.steady_state_energy_per_output_token_j == pytest.approx(2 * 10 * 5 / 20)
    assert row.energy_per_output_token_j == pytest.approx(4000 / 32)


@pytest.mark.parametrize(
    "steady_state",
    [
        None,
        SteadyState((), 0, "too few requests"),
        SteadyState(
            (builders.interval("steady_state", 1022.0, 10.0, builders.estimated_only(10.0)),), 20
        ),
    ],
)
def test_without_a_steady_state_there_is_no_number_for_it(steady_state):
    row = rows({"steady_state": steady_state})[0]
    assert row.steady_state_energy_per_output_token_j is None


def test_batching_is_what_the_engine_did_else_what_it_was_asked_for():
    assert rows()[0].batching == "static"
    asked_and_done = {"batching": {"strategy": "continuous", "max_requests_in_flight": 8}}
    assert rows({"effective": asked_and_done})[0].batching == "continuous"


def test_simulated_joules_say_so():
    assert not rows()[0].simulated
    meter = replace(builders.measurement().meter, simulated=True)
    assert all(row.simulated for row in rows(meter=meter))


@given(
    st.lists(st.integers(1, 50), min_size=4, max_size=4),
    st.floats(min_value=1.0, max_value=1e4),
)
def test_joules_are_conserved_over_tokens_and_requests(tokens, power_w):
    window = {
        "requests": builders.request_table(1020.0, output_tokens=tuple(tokens)),
        "interval": builders.interval("window", 1020.0, 40.0, builders.energy(40.0, power_w)),
    }
    row = rows(window)[0]
    gross = pytest.approx(row.gross_energy_j)
    assert row.energy_per_output_token_j * row.output_tokens == gross
    assert row.energy_per_total_token_j * (row.output_tokens + row.prompt_tokens) == gross
    assert row.energy_per_request_j * row.requests == gross
    assert row.mean_power_w * row.duration_s == gross
    assert row.net_energy_j + row.loaded_idle_power_w * row.duration_s == gross


@pytest.fixture
def verdicts(tmp_path):
    """Judge a sweep with a healthy, a degraded, an invalid and a failed repeat."""
    aborted = builders.request_table(3020.0, finish_reason=("abort",) * 4)
    changes = [
        {},
        {"windows": (builders.window(start_s=2020.0, warmup_converged=False),)},
        {"windows": (builders.window(start_s=3020.0, requests=aborted),)},
        {"windows": (), "outcome": "oom", "reason": "out of memory"},
    ]
    measured = [
        builders.measurement(builders.spec(repeat=k), **change)
        for k, change in enumerate(changes, 1)
    ]
    return validate("test", "pytorch", builders.write_sweep(tmp_path, measured))


def test_what_is_invalid_is_listed_and_not_counted(verdicts):
    table = normalise(verdicts)
    assert {(r.repeat, r.energy_status) for r in table.rows} == {
        (repeat, status) for repeat in (1, 2) for status in ("measured", "estimated")
    }
    assert [(v.repeat, v.outcome, v.reason) for v in table.without] == [
        (3, "ok", "E19 failed requests"),
        (4, "oom", "out of memory"),
    ]


def test_a_degraded_window_stays_marked(verdicts):
    rows = [r for r in normalise(verdicts).rows if r.repeat == 2]
    assert {r.verdict for r in rows} == {"degraded"}
    assert {"E29", "P03"} <= set(rows[0].flags)


def test_rows_lead_back_to_their_files(verdicts):
    for row in normalise(verdicts).rows:
        verdict = next(v for v in verdicts.verdicts if v.repeat == row.repeat)
        assert row.measurement == verdict.measurement
        assert row.measurement_sha256 == verdict.measurement_sha256


def test_a_measurement_that_changed_since_is_refused(verdicts):
    path = Path(verdicts.verdicts[0].measurement)
    path.write_text(path.read_text().replace("4000.0", "4.0"))
    with pytest.raises(LlmEnergyError, match=r"r01.json: it changed after it was judged"):
        normalise(verdicts)
    path.unlink()
    with pytest.raises(LlmEnergyError, match=r"r01.json: no such file"):
        normalise(verdicts)


def test_the_windows_of_one_measurement_are_all_normalised(tmp_path):
    asked = builders.spec(workloads=(builders.workload("b1"), builders.workload("b8")))
    plan = builders.write_sweep(tmp_path, [builders.measurement(asked)])
    table = normalise(validate("test", "pytorch", plan))
    assert {(r.workload, r.batch_size) for r in table.rows} == {("b1", 1), ("b8", 8)}


def test_the_command_line(tmp_path, verdicts, capsys):
    source, out = tmp_path / "verdicts.json", tmp_path / "metrics.json"
    write_record(source, verdicts)
    assert script.main(["--verdicts", str(source), "--out", str(out)]) == 0
    assert read_record(MetricsTable, out) == normalise(verdicts)
    write_record(source, replace(verdicts, schema_version=2))
    assert script.main(["--verdicts", str(source), "--out", str(out)]) == 1
    assert "schema_version is 2" in capsys.readouterr().err


def test_a_backend_without_any_result_has_an_empty_table():
    missing = builders.verdict(outcome="missing", verdict="invalid", measurement=None)
    table = normalise(Verdicts(1, "test", "pytorch", (missing,)))
    assert (table.rows, table.without) == ((), (missing,))


@pytest.mark.parametrize(("flag", "times"), [("M09", True), ("E05", False)])
def test_times_and_quality_stand_where_only_sensors_are_at_fault(tmp_path, flag, times):
    quality = Quality("text", "f" * 64, "e" * 64, 100, 200.0)
    plan = builders.write_sweep(tmp_path, [builders.measurement(quality=quality)])
    judged = validate("test", "pytorch", plan)
    fault = Flag(flag, "invalid", {}, "measure again")
    bad = replace(judged.verdicts[0], verdict="invalid", flags=(fault,))
    table = normalise(replace(judged, verdicts=(bad,)))
    assert table.rows == ()
    if not times:
        assert table.beside == ()
        return
    [one] = table.beside
    assert (one.cell, one.workload, one.repeat) == ("m--pytorch--float32", "b1", 1)
    assert (one.values["perplexity"], one.values["tpot_s"]) == (pytest.approx(math.exp(2)), 2.0)
    assert GROSS not in one.values
    assert one.latencies_s["tpot_p50"] == 2.0


def test_of_a_window_that_ran_out_of_memory_quality_alone_is_left(tmp_path):
    quality = Quality("text", "f" * 64, "e" * 64, 100, 200.0)
    lost = builders.window(outcome="oom", reason="no memory", interval=None, requests=None)
    made = builders.measurement(quality=quality, windows=(lost,))
    table = normalise(validate("test", "pytorch", builders.write_sweep(tmp_path, [made])))
    [one] = table.beside
    assert one.values == {"nll_per_token": 2.0, "perplexity": pytest.approx(math.exp(2))}
