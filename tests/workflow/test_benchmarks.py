"""The benchmarks say by their exit status whether a floor holds; here on stand-ins for the runs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from support import (
    builders,
    coverage_runs,
    simulated_cells,
    simulated_loads,
    simulated_queues,
    simulated_sweeps,
)
from support.project import ROOT
from support.simulated_sweeps import Score

from llm_energy.analysis.statistics import paired
from llm_energy.core.files import write_json


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark from its folder, under a name that no installed package has."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests"), *sys.path])
    yield lambda name: import_module(f"benchmarks.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "tests/benchmarks").glob("*.py")))
def test_a_benchmark_finds_what_it_imports_of_the_project(name):
    path = ROOT / "tests" / "benchmarks" / f"{name}.py"
    command = [sys.executable, path, "--help"]  # no engine is imported for that
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "No module named 'support" not in said
    assert "No module named 'llm_energy" not in said


@pytest.mark.parametrize(
    ("single", "five", "status"),
    [(0.95, 0.95, 0), (0.93, 0.97, 0), (0.92, 0.95, 1), (0.95, 0.92, 1), (0.98, 0.95, 1)],
)
def test_intervals_that_hold_the_truth_too_seldom_or_too_often_are_missed(
    benchmark, monkeypatch, single, five, status
) -> None:
    def both(share):
        return dict.fromkeys(("gross_energy_j", "net_energy_j"), share)

    monkeypatch.setattr(coverage_runs, "repeats", lambda truth, seeds: [])
    monkeypatch.setattr(coverage_runs, "share_of_windows_held", lambda known: both(single))
    monkeypatch.setattr(coverage_runs, "share_of_cells_held", lambda known, draws: both(five))
    monkeypatch.setattr(simulated_cells, "held", lambda kind, seeds: {"gross_energy_j": 0.95})
    assert benchmark("coverage").main([]) == status


@pytest.mark.parametrize(("harder", "status"), [(0.90, 0), (0.89, 1)])
def test_intervals_that_harder_noise_breaks_are_missed(
    benchmark, monkeypatch, harder, status
) -> None:
    right = dict.fromkeys(("gross_energy_j", "net_energy_j"), 0.95)
    monkeypatch.setattr(coverage_runs, "repeats", lambda truth, seeds: [])
    monkeypatch.setattr(coverage_runs, "share_of_windows_held", lambda known: dict(right))
    monkeypatch.setattr(coverage_runs, "share_of_cells_held", lambda known, draws: dict(right))

    def held(kind, seeds):
        return {"gross_energy_j": 0.95 if kind.noise is simulated_cells.normal else harder}

    monkeypatch.setattr(simulated_cells, "held", held)
    assert benchmark("coverage").main([]) == status


@pytest.mark.parametrize(("held", "status"), [(0.95, 0), (0.90, 0), (0.86, 1)])
def test_intervals_of_latencies_that_hold_the_truth_too_seldom_are_missed(
    benchmark, monkeypatch, held, status
) -> None:
    def share(queue, *_):  # what is harder than is asked for may miss it
        return held if queue in simulated_queues.KINDS.values() else 0.5

    monkeypatch.setattr(simulated_queues, "share_held", share)
    monkeypatch.setattr(simulated_queues, "share_held_by_order_statistics", share)
    assert benchmark("latency_coverage").main([]) == status


@pytest.mark.parametrize(
    ("normal", "harder", "status"), [(0.95, 0.90, 0), (0.90, 0.95, 1), (0.95, 0.87, 1)]
)
def test_intervals_of_loads_that_hold_the_truth_too_seldom_are_missed(
    benchmark, monkeypatch, normal, harder, status
) -> None:
    independent = simulated_loads.Load()

    def held(load, seeds):
        alike = (load.noise, load.sessions) == (independent.noise, independent.sessions)
        return [0.97, normal if alike else harder]

    monkeypatch.setattr(simulated_loads, "held", held)
    assert benchmark("load_coverage").main([]) == status


@pytest.mark.parametrize(("held", "status"), [(475, 0), (450, 1), (500, 1)])
def test_intervals_of_traffic_that_hold_its_long_run_cost_too_seldom_or_too_often_are_missed(
    benchmark, monkeypatch, held, status
) -> None:
    module = benchmark("traffic_coverage")
    monkeypatch.setattr(module, "measured", lambda rate_per_s, block: (builders.metrics(), {}))
    monkeypatch.setattr(module, "truths", lambda known: {module.GROSS: 0.5})
    monkeypatch.setattr(module, "shares", lambda rows, truth, sweeps: {module.GROSS: (held, 500)})
    assert module.main(["--blocks", "1"]) == status


HARD = Score(0.94, 0.11, 0.09)  # what noise may do that the method does not assume


@pytest.mark.parametrize(
    ("equal", "others", "status"),
    [
        (Score(0.95, 0.70, 0.06), HARD, 0),
        (Score(0.95, None, None), HARD, 0),
        (Score(0.92, 0.90, 0.05), HARD, 1),
        (Score(0.98, 0.90, 0.05), HARD, 1),
        (Score(0.95, 0.69, 0.05), HARD, 1),
        (Score(0.95, 0.90, 0.07), HARD, 1),
        (Score(0.95, 0.90, 0.05), Score(0.92, 0.90, 0.05), 1),
    ],
)
def test_comparisons_that_miss_a_floor_are_told(
    benchmark, monkeypatch, equal, others, status
) -> None:
    module = benchmark("comparison_coverage")
    monkeypatch.setattr(paired, "LEAST_PAIRS", paired.LEAST_PAIRS)  # which the benchmark changes
    equally = module.NOISE["equal noise"]
    monkeypatch.setattr(
        simulated_sweeps, "score", lambda sweep, seeds: equal if sweep.cv is equally else others
    )
    monkeypatch.setattr(simulated_sweeps, "crossovers_held", lambda *_, **noise: 0.95)
    assert module.main([]) == status


@pytest.mark.parametrize(("held", "status"), [(0.90, 0), (0.89, 1)])
def test_crossovers_that_are_held_too_seldom_are_told(benchmark, monkeypatch, held, status) -> None:
    module = benchmark("comparison_coverage")
    monkeypatch.setattr(paired, "LEAST_PAIRS", paired.LEAST_PAIRS)
    monkeypatch.setattr(simulated_sweeps, "score", lambda sweep, seeds: Score(0.95, 0.80, 0.06))
    monkeypatch.setattr(simulated_sweeps, "crossovers_held", lambda *_, **noise: held)
    assert module.main([]) == status


@pytest.mark.parametrize("faulty", ["pytorch", "vllm"])
def test_an_invalid_window_of_any_backend_is_found(
    benchmark, monkeypatch, tmp_path, faulty
) -> None:
    scale = benchmark("scale")
    monkeypatch.setattr(scale, "FOLDER", tmp_path)
    for backend in scale.BACKENDS:
        word = "invalid" if backend == faulty else "valid"
        write_json(tmp_path / backend / "verdicts.json", {"verdicts": [{"verdict": word}]})
    assert scale.invalid() == [{"verdict": "invalid"}]


def test_the_report_is_opened_on_the_windows_that_the_stages_are_timed_on(
    benchmark, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests/benchmarks"), *sys.path])
    opening = benchmark("report_opening")
    monkeypatch.setattr(opening.scale.builders, "PASSES", 2)
    asked = []

    def stop(count):
        asked.append(opening.scale.builders.PASSES)
        raise InterruptedError

    monkeypatch.setattr(opening.scale, "generate", stop)
    with pytest.raises(InterruptedError):
        opening.make(10)
    assert asked == [154]
