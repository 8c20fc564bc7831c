"""Simulated sweeps through the real meter, protocol and validate stage: no fault is missed, and
nothing is said of a healthy host.
"""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from support.fault_sweeps import arriving, healthy_setting, judge, measure, write_sweep
from support.faults import FAULTS, faulty_sweep, healthy_sweep

from llm_energy.analysis.checks import CATALOGUE
from llm_energy.measure.simulation.truth import PackageTruth

RUNS = 200
SEEDS = 12  # of the settings in which faults are tried


def _schedule() -> dict[str, list[tuple[int, int]]]:
    """Return each check its runs as (variant, seed): every variant once, then random ones."""
    random = Random("faults")
    variants = [(id, n) for id, faults in FAULTS.items() for n in range(len(faults))]
    runs = [*variants, *random.choices(variants, k=RUNS - len(variants))]
    schedule: dict[str, list[tuple[int, int]]] = {id: [] for id in FAULTS}
    for number, (id, variant) in enumerate(runs):
        schedule[id].append((variant, number % SEEDS))
    return schedule


SCHEDULE = _schedule()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch):
    """Leave out what costs time and decides nothing: flushing to disk, collecting old garbage."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    gc.freeze()
    yield
    gc.unfreeze()


def alarms(flags: dict[str, set[str]]) -> dict[str, set[str]]:
    return {id: severities for id, severities in flags.items() if severities - {"note"}}


def test_every_check_has_a_fault() -> None:
    audits = {id for id, check in CATALOGUE.items() if check.scope in ("files", "spans")}
    assert FAULTS.keys() == CATALOGUE.keys() - audits
    assert sum(map(len, SCHEDULE.values())) == RUNS


@pytest.mark.parametrize("id", FAULTS)
def test_no_fault_is_missed(id: str, tmp_path: Path) -> None:
    for number, (variant, seed) in enumerate(SCHEDULE[id]):
        flags = faulty_sweep(FAULTS[id][variant], seed, tmp_path / str(number))
        assert id in flags, (variant, seed, sorted(flags))


@pytest.mark.parametrize("id", FAULTS)
def test_the_healthy_twin_of_a_fault_passes(id: str, tmp_path: Path) -> None:
    for variant, fault in enumerate(FAULTS[id]):
        _, seed = SCHEDULE[id][variant]
        flags = healthy_sweep(fault, seed, tmp_path / str(variant))
        assert id not in flags, (variant, seed)
        assert alarms(flags) == {}, (variant, seed)


@pytest.mark.parametrize("seed", range(300, 304))
@pytest.mark.parametrize(
    "traffic",
    [
        arriving("poisson", rate_per_s=1.5),
        arriving("constant", rate_per_s=0.1),
        arriving("closed_loop", concurrency=3),
    ],
    ids=["busy", "waiting", "closed_loop"],
)
def test_there_is_no_false_alarm_in_timed_traffic(traffic, seed: int, tmp_path: Path) -> None:
    # The engine can keep up with this: eight at a time, of half a second each.
    setting = replace(traffic(healthy_setting(seed)), batch_size=8, output_tokens=64)
    sweep = [measure(setting, repeat, seed) for repeat in (1, 2)]
    plan_path, _ = write_sweep(sweep, setting, tmp_path)
    assert alarms(judge(plan_path)) == {}


def test_a_guests_counter_that_stands_still_costs_no_window(tmp_path: Path) -> None:
    dead = PackageTruth(idle_w=0.0, core_w=0.0, dram_w=None)
    setting = healthy_setting(1).on_host(packages=(dead,))
    sweep = [measure(setting, repeat, 1) for repeat in (1, 2)]
    plan_path, _ = write_sweep(sweep, setting, tmp_path)
    flags = judge(plan_path)
    assert (alarms(flags), flags["M12"]) == ({}, {"note"})
    (part,) = [e for e in sweep[0].windows[0].interval.energy if e.device == "package-0"]
    assert "stands still" in part.reason


@pytest.mark.parametrize("tenth", range(10))
def test_there_is_no_false_alarm_in_200_healthy_runs(tenth: int, tmp_path: Path) -> None:
    for seed in range(100 + RUNS // 20 * tenth, 100 + RUNS // 20 * (tenth + 1)):
        setting = healthy_setting(seed)
        sweep = [measure(setting, repeat, seed) for repeat in (1, 2)]
        assert {window.outcome for one in sweep for window in one.windows} == {"ok"}
        plan_path, _ = write_sweep(sweep, setting, tmp_path / str(seed))
        assert alarms(judge(plan_path)) == {}, seed
