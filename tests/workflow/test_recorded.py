"""What was recorded on a real GPU: provoked faults are caught, and healthy windows are not."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from support.project import ROOT

from llm_energy.analysis.audit import audit
from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.compare.pairs import pairs_of
from llm_energy.analysis.compare.series import collect
from llm_energy.analysis.normalise import normalise
from llm_energy.analysis.validate import validate
from llm_energy.core.files import read_json, write_json
from llm_energy.core.serialize import from_dict
from llm_energy.records import Interval, Measurement, Plan, PromptSet, read_record

FAULTS = ROOT / "tests" / "recorded" / "h100-faults.tar.gz"
ARCHIVES = ROOT / "docs" / "measurements"


class Sweep(NamedTuple):
    """An archived sweep, and what is known of it."""

    name: str
    backend: str
    windows: int
    flags: set[str]  # those that it carries beyond the known ones
    most: float  # share of the GPU's bandwidth or arithmetic that none of its windows used
    pairs: int  # blocks over all comparisons


SWEEPS = {
    "h100-llama-3.1-8b": Sweep("h100", "pytorch", 20, set(), 0.5, 69),
    "h100-llama-3.1-8b-compiled": Sweep(
        "h100-compiled", "pytorch", 12, {"M23", "H05", "H14"}, 0.6, 27
    ),
    "h100-llama-3.1-8b-int8": Sweep("h100-quantised", "pytorch", 4, {"E05"}, 0.5, 12),
    "h100-llama-3.1-8b-quantised": Sweep("h100-quantised", "pytorch", 4, set(), 0.5, 12),
    "h100-llama-3.1-8b-vllm": Sweep("h100-vllm", "vllm", 12, {"H14", "E22"}, 0.65, 27),
    "h200-llama-3.1-8b-vllm": Sweep("h200-vllm", "vllm", 15, {"H14", "E22", "M03"}, 0.65, 56),
    "h200-llama-3.1-8b-precisions": Sweep("h200-precisions", "vllm", 24, {"E22", "M03"}, 0.65, 102),
    "h200-llama-3.1-8b-load": Sweep("h200-load", "vllm", 3, {"E22", "M03", "E35"}, 0.65, 0),
}
SENSORS = ARCHIVES / "h100-sensors.json"
TWO_GPUS = ROOT / "tests" / "recorded" / "h200-two-boards.tar.gz"
CELL = "smollm2-135m--pytorch--bfloat16"

# A window of 13 s, one repeat, and a host whose passes of 3 to 4.5 s never come to agree.
IN_EVERY_ONE = {("M12", "note"), ("E29", "warning"), ("P03", "warning")}


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder


def judged(name: str):
    sweep = f"h100-faults-{name}"
    (verdict,) = validate(sweep, "pytorch", Path(f"results/{sweep}/plan.json")).verdicts
    return verdict, {(flag.id, flag.severity) for flag in verdict.flags}


@pytest.fixture
def faults(tmp_path, monkeypatch):
    monkeypatch.chdir(unpacked(FAULTS, tmp_path))


@pytest.mark.parametrize(
    ("name", "outcome", "flags"),
    [
        ("healthy", "ok", {("M03", "note")}),
        ("short", "ok", {("M03", "warning")}),
        ("cold", "ok", {("M03", "note")}),
        (
            "tenant",
            "ok",
            {("H01", "invalid"), ("E30", "invalid"), ("H07", "warning"), ("H13", "warning")}
            | {("M03", "note"), ("H04", "note")},
        ),
        ("no-board", "unsupported", set()),
    ],
)
def test_each_fault_that_was_provoked_is_named(faults, name, outcome, flags):
    verdict, found = judged(name)
    assert verdict.outcome == outcome
    assert found - IN_EVERY_ONE == flags
    assert (verdict.verdict == "invalid") is (name in ("tenant", "no-board"))


def test_a_cold_window_says_that_nothing_warmed_it_up(faults):
    verdict, _ = judged("cold")
    (flag,) = (flag for flag in verdict.flags if flag.id == "E29")
    assert flag.evidence == {"warmup_passes": 0}


def test_another_gpu_than_the_engines_is_found_in_a_real_record(faults):
    path = Path(f"results/h100-faults-healthy/pytorch/measurements/{CELL}/r01.json")
    record = read_json(path)
    record["effective"]["device_uuids"] = ["GPU-another"]
    write_json(path, record)
    assert ("M06", "invalid") in judged("healthy")[1]


@pytest.fixture(scope="module", params=SWEEPS)
def archived(tmp_path_factory, request) -> tuple[Sweep, Path]:
    """Return what is known of an archived sweep, and where it is unpacked."""
    (archive,) = ARCHIVES.glob(f"{request.param}.tar.*")
    return SWEEPS[request.param], unpacked(archive, tmp_path_factory.mktemp("sweep"))


def test_no_window_of_a_sweep_is_called_invalid(archived, monkeypatch):
    sweep, folder = archived
    monkeypatch.chdir(folder)
    found = validate(sweep.name, sweep.backend, Path(f"results/{sweep.name}/plan.json")).verdicts
    measured = [verdict for verdict in found if verdict.outcome == "ok"]
    assert len(measured) == sweep.windows
    assert {verdict.verdict for verdict in measured} <= {"valid", "degraded"}
    # Passes vary as the host has it, some repeats were not made, and a burst meets the power limit.
    known = {"M12", "E29", "P03", "H04"} | sweep.flags
    flags = [flag for verdict in measured for flag in verdict.flags]
    assert {flag.id for flag in flags} <= known
    held = [flag.evidence["share_of_window"] for flag in flags if flag.id == "H04"]
    assert all(share <= 1 for gpus in held for shares in gpus.values() for share in shares.values())


def test_a_healthy_window_tells_how_large_its_bias_may_be(archived, monkeypatch):
    sweep, folder = archived
    monkeypatch.chdir(folder)
    found = validate(sweep.name, sweep.backend, Path(f"results/{sweep.name}/plan.json")).verdicts
    measured = [verdict for verdict in found if verdict.outcome == "ok"]
    unknown = [v for v in measured if v.bias_bound_percent is None]
    assert [v.bias_reason for v in unknown if not v.bias_reason] == []
    quiet = [v for v in measured if not {"E29", "E22", "E05"} & {f.id for f in v.flags}]
    assert all(v.bias_bound_percent < 3.5 for v in quiet)  # passes that scatter bound nothing well


def test_what_was_measured_in_one_session_is_paired(archived, monkeypatch):
    sweep, folder = archived
    monkeypatch.chdir(folder)
    plan = Path(f"results/{sweep.name}/plan.json")
    metrics = normalise(validate(sweep.name, sweep.backend, plan))
    compared, _ = compare(pairs_of(collect([metrics]), read_record(Plan, plan)))
    assert sum(one.n for one in compared) == sweep.pairs
    assert not [one for one in compared if one.outcome == "not_comparable"]


def counter_j(interval: Interval) -> float:
    (gpu,) = (part for part in interval.energy if part.component == "gpu")
    return gpu.energy_j


def of_sensors(name: str) -> Interval:
    found = (i for i in read_json(SENSORS)["intervals"] if i["name"] == name)
    return from_dict(Interval, next(found), SENSORS.name)


def agreement(interval: Interval) -> float:
    return interval.trace[0].energy_j / counter_j(interval)


def test_counter_and_sampled_power_agree(archived):
    sweep, folder = archived
    paths = sorted(folder.glob("results/*/*/measurements/*/r0?.json"))
    found = [agreement(w.interval) for p in paths for w in read_record(Measurement, p).windows]
    assert len(found) == sweep.windows
    assert max(abs(ratio - 1) for ratio in found) < 0.05


@pytest.mark.parametrize("name", ["load, 30 s", "load, 60 s"])
def test_counter_and_sampled_power_agree_under_matrix_products(name):
    assert abs(agreement(of_sensors(name)) - 1) < 0.05


def test_the_gpu_was_asked_for_what_it_can_do(archived, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    import limits

    sweep, folder = archived
    found = [one for every in limits.limits(folder).values() for one in every]
    assert len(found) == sweep.windows
    for one in found:
        assert one.fault is None
        assert one.energy_j > 4 * one.floor_j
        assert max(one.mbu, one.mfu) < sweep.most


def test_joules_beside_the_raw_readings_of_a_real_gpu_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(unpacked(ARCHIVES / "h200-llama-3.1-8b-load.tar.xz", tmp_path))
    (path,) = Path("results").glob("*/*/measurements/*/r01.json")
    record = read_json(path)
    record["windows"][0]["interval"]["energy"][0]["energy_j"] *= 0.99
    write_json(path, record)
    found = audit("h200-load", "vllm", Path("results/h200-load/plan.json")).windows
    assert "A16" in {flag.id for window in found for flag in window.flags}


@pytest.mark.parametrize(
    "config", sorted((ROOT / "tests" / "gpu").glob("*.yaml")), ids=lambda p: p.stem
)
def test_each_sweep_for_a_gpu_can_be_planned_and_has_its_prompts(config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    import model
    import offline

    (tmp_path / "envs").symlink_to(ROOT / "envs")
    monkeypatch.setattr(offline, "ROOT", tmp_path)
    offline.plan(config)
    requests = sorted(tmp_path.glob("results/*/prompts/*.request.json"))
    assert requests
    for path in requests:
        model.write_prompts(path, path.with_name("made.json"))
        asked = read_json(path)["workloads"]
        made = read_record(PromptSet, path.with_name("made.json")).requests
        assert {key: len(of) for key, of in made.items()} == {
            key: one["requests"] for key, one in asked.items()
        }
        lengths = {(key, len(one.prompt_token_ids)) for key, of in made.items() for one in of}
        assert lengths == {(key, one["prompts"]["input_tokens"]) for key, one in asked.items()}


@pytest.mark.parametrize("timed", [True, False])
def test_a_host_that_fetches_nothing_is_told_when_requests_arrive(timed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    import offline

    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(offline, "_python", lambda *words, environment=None: started.append(words))
    if timed:
        (tmp_path / "arrivals.json").touch()
    offline.measure_one(tmp_path, "m", Path("r01.json"), tmp_path / "out" / "r01.json")
    assert ("--arrivals" in started[-1]) is timed
    assert tmp_path / "out" / "r01.json" in started[-1]


@pytest.mark.parametrize("way", ["tensor_parallel", "device_map", "data_parallel"])
def test_two_gpus_gave_the_ids_of_one_and_each_was_metered_once(tmp_path, way, monkeypatch):
    for folder in ("gpu", "backends"):
        monkeypatch.syspath_prepend(str(ROOT / "tests" / folder))
    from sharding import problems

    folder = unpacked(TWO_GPUS, tmp_path)
    found, alone = (read_record(Measurement, folder / f"{name}.json") for name in (way, "none"))
    assert problems(way, found, alone) == []
    one, other = (part for part in found.windows[0].interval.energy if part.component == "gpu")
    assert one.device != other.device
    twice = replace(found.windows[0].interval, energy=(one, one))
    counted = replace(found, windows=(replace(found.windows[0], interval=twice),))
    assert any("metered" in problem for problem in problems(way, counted, alone))
