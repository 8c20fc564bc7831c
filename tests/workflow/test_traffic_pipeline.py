"""The example of timed traffic on real engines: Poisson arrivals at three rates, and saturation."""

from __future__ import annotations

import csv
import math

import pytest
from support.host_faults import is_measured
from support.project import ROOT, Project, example, tiny_sweep
from support.shares import assert_shared_out

from llm_energy.environments.registry import is_installed

pytestmark = pytest.mark.engine

EXAMPLE = example("traffic")
FASTER = 8  # than the example, whose model is larger
HORIZON_S = 2.5
RATES = {
    workload["id"]: FASTER * workload["traffic_simulation"]["rate_per_s"]
    for workload in EXAMPLE["workloads"]
    if "traffic_simulation" in workload
}
BACKENDS = [b for b in EXAMPLE["backends"] if is_installed(ROOT, f"{b}-cpu")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Run the example on a tiny model once on every installed engine; tests only look at it."""
    project = Project(tmp_path_factory.mktemp("traffic") / "copy")
    folder = project.tiny_model("tiny", "llama")
    short = {"ramp_s": 0.2, "horizon_s": HORIZON_S}
    workloads = [
        workload | {"traffic_simulation": short | workload["traffic_simulation"]}
        if "traffic_simulation" in workload
        else workload
        for workload in EXAMPLE["workloads"]
    ]
    for workload in workloads:
        if workload["id"] in RATES:
            workload["traffic_simulation"]["rate_per_s"] = RATES[workload["id"]]
    tiny = tiny_sweep(folder)
    same = {key: tiny[key] for key in ("name", "models", "device", "protocol")}
    prompts = EXAMPLE["prompts"] | {"chat_template": False}
    sweep = EXAMPLE | same | {"workloads": workloads, "prompts": prompts, "backends": BACKENDS}
    config = project.write_config("tiny", sweep)
    project.snakemake("--configfile", config, "--until", "tables")
    return project


def rows_of(swept, table: str) -> list[dict]:
    with open(swept.folder / f"results/tiny/tables/{table}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def measured(swept, backend: str) -> list[str]:
    """Return the workloads that have numbers."""
    rows = [row for row in rows_of(swept, "energy") if row["backend"] == backend]
    assert {row["workload"] for row in rows} == {"saturated", *RATES}
    return [row["workload"] for row in rows if is_measured(swept, row)]


def windows_of(swept, backend: str) -> dict[str, dict]:
    path = f"results/tiny/{backend}/measurements/tiny--{backend}--float32/r01.json"
    measurement = swept.read(path)
    assert measurement["outcome"] == "ok", measurement["reason"]
    return {window["workload"]: window for window in measurement["windows"]}


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_rate_is_a_window_of_the_horizon(swept, backend) -> None:
    windows = windows_of(swept, backend)
    for id in RATES:
        window, report = windows[id], windows[id]["traffic"]
        assert window["outcome"] == "ok", window["reason"]
        assert report["end_s"] - report["begin_s"] == pytest.approx(HORIZON_S)
        assert report["begin_s"] <= window["interval"]["start_s"]
        assert report["end_s"] <= window["interval"]["end_s"]
        assert report["arrived"] > 0
        assert set(window["requests"]["output_tokens"]) == {32}
    assert windows["saturated"]["traffic"] is None
    assert windows["saturated"]["passes"] >= 1


def test_every_backend_gets_the_same_requests_at_the_same_moments(swept) -> None:
    found = []
    for backend in BACKENDS:
        path = f"results/tiny/{backend}/measurements/tiny--{backend}--float32/r01.json"
        measurement = swept.read(path)
        hashes = measurement["arrivals_sha256"]
        asked = measurement["spec"]["workloads"]
        assert {w["id"]: w["arrivals_sha256"] for w in asked if w["id"] in hashes} == hashes
        windows = windows_of(swept, backend)
        due = {id: windows[id]["traffic"]["arrived"] for id in RATES}
        found.append((hashes, due, [windows[id]["traffic"]["gap_cv"] for id in RATES]))
    assert set(found[0][0]) == set(RATES)
    for hashes, due, variations in found[1:]:
        assert (hashes, due) == found[0][:2]
        assert variations == pytest.approx(found[0][2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_joule_is_a_request_s_or_was_drawn_while_no_step_ran(swept, backend) -> None:
    assert_shared_out(swept.read(f"results/tiny/{backend}/metrics.json"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tables_have_every_latency(swept, backend) -> None:
    rows = [row for row in rows_of(swept, "latency") if row["backend"] == backend]
    for workload in measured(swept, backend):
        own = [row for row in rows if row["workload"] == workload]
        values = {f"{row['latency']}_{row['statistic']}": float(row["mean"]) for row in own}
        assert {"ttft_p50", "itl_p50", "e2e_p50", "queueing_p50"} <= set(values)
        assert all(math.isfinite(value) and value >= 0 for value in values.values())
        for name in ("ttft", "tpot", "itl", "e2e", "queueing"):
            reached = [p for p in (50, 90, 95, 99) if f"{name}_p{p}" in values]
            quantiles = [values[f"{name}_p{percent}"] for percent in reached]
            assert quantiles == sorted(quantiles)
        assert values["queueing_p50"] <= values["ttft_p50"] < values["e2e_p50"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tables_have_joules_over_load(swept, backend) -> None:
    rows = {r["workload"]: r for r in rows_of(swept, "load") if r["backend"] == backend}
    assert set(rows) == {"saturated", *RATES}
    found = RATES.keys() & measured(swept, backend)
    for id in found:
        assert float(rows[id]["energy_per_request_j_mean"]) > 0
        assert float(rows[id]["energy_per_output_token_j_mean"]) > 0
        assert float(rows[id]["requested_rate_per_s"]) == RATES[id]
        assert float(rows[id]["utilisation"]) > 0
    [fit] = [row for row in rows_of(swept, "load-fit") if row["backend"] == backend]
    assert fit["windows"] == str(len(found))
    if not fit["reason"]:
        assert float(fit["loaded_power_w_value"]) > 0
        assert not any(name.endswith(("_low", "_high")) for name in fit)
