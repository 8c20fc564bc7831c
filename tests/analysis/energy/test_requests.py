"""What requests of a repeat took: read from its files, summarised, and one reason where unknown."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.simulated_runs import (
    run_with_steps,
    simulated_spec,
    simulated_workload,
    with_step_file,
)

from llm_energy.analysis.energy.requests import attributions, over_repeats, request_energy
from llm_energy.measure.simulation.host import SimulatedHost
from llm_energy.records import ComponentEnergy, Measurement, StepReport
from llm_energy.records.files import paths
from llm_energy.records.steps import StepTable

VARIED = {"min_output_tokens": 1, "max_output_tokens": 100}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Measurement, Path]:
    """Return a simulated repeat of two workloads, and where it lies with its steps and trace."""
    path = tmp_path_factory.mktemp("repeat") / "r01.json"
    workloads = [simulated_workload(f"b{size}", 12, **VARIED) for size in (2, 4)]
    quick = {"window_min_duration_s": 3.0, "loaded_idle_duration_s": 1.0, "thermal_policy": "none"}
    spec = simulated_spec(*workloads, **quick)
    measurement, steps = run_with_steps(SimulatedHost(), spec, trace_path=paths.power_trace(path))
    return with_step_file(measurement, steps, path), path


def test_the_files_beside_a_measurement_give_the_shares_of_each_window(measured):
    measurement, path = measured
    found = attributions(measurement, path)
    assert list(found) == ["b2", "b4"]
    for window in measurement.windows:
        shares = found[window.workload]
        assert (shares.power, shares.status) == ("power trace", "measured")
        assert len(shares.requests_j) == len(window.requests.request_id)
        told = request_energy(window, shares)
        assert told.requests == len(shares.requests_j)
        assert told.mean_j == pytest.approx(sum(shares.requests_j) / told.requests)
        assert told.dearest[0].energy_j == max(one.energy_j for one in told.dearest)
        assert len({one.request_id for one in told.dearest}) == 5
        assert sum(group.requests for group in told.groups) == told.requests
        joined = over_repeats([told, told])
        assert (joined.mean_j, joined.dearest) == (pytest.approx(told.mean_j), told.dearest)
        assert joined.requests == 2 * told.requests
        assert [g.energy_j for g in joined.groups] == pytest.approx(
            [g.energy_j for g in told.groups]
        )


def test_another_power_trace_is_not_taken(measured, tmp_path):
    measurement, path = measured
    other = tmp_path / path.name
    paths.steps(other).write_bytes(paths.steps(path).read_bytes())
    paths.power_trace(other).write_bytes(b"something else")
    assert {one.power for one in attributions(measurement, other).values()} == {"mean power"}


def reported(measurement: Measurement, **changes) -> Measurement:
    return replace(measurement, steps=replace(measurement.steps, **changes))


def without_joules(measurement: Measurement) -> Measurement:
    part = ComponentEnergy("gpu", "GPU-1", "measured", "nvml", -1.0)
    windows = [
        replace(window, interval=replace(window.interval, energy=(part,)))
        for window in measurement.windows
    ]
    return replace(measurement, windows=tuple(windows))


WITHOUT = {
    "older": (lambda m: replace(m, steps=None), "of a version that kept no steps"),
    "untold": (
        lambda m: replace(m, steps=StepReport(None, None, "the engine does not tell its steps")),
        "the engine does not tell its steps",
    ),
    "changed": (lambda m: reported(m, sha256="f" * 64), "not the file that was written with"),
    "no joules": (without_joules, "the measured joules of the window are -1"),
}


@pytest.mark.parametrize(("change", "said"), WITHOUT.values(), ids=WITHOUT)
def test_why_nothing_is_attributed_is_said(measured, change, said):
    measurement, path = measured
    found = attributions(change(measurement), path)
    assert len(set(found.values())) == 1
    assert said in found["b2"]


def test_a_window_whose_steps_are_none_takes_no_joules_from_its_requests(measured, tmp_path):
    measurement, path = measured
    table = StepTable(*[()] * len(fields(StepTable)))
    emptied = with_step_file(measurement, {"b2": table}, tmp_path / path.name)
    found = attributions(emptied, tmp_path / path.name)
    assert set(found.values()) == {"no steps were recorded of this window"}


def test_a_lost_file_of_steps_is_said(measured, tmp_path):
    found = attributions(measured[0], tmp_path / "r01.json")
    assert found["b2"].endswith("r01.steps.json.gz is missing")
