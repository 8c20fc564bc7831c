"""The whole way of a TensorRT-LLM cell, from config to tables, on a stand-in for the engine.

The environment that it finds is PyTorch's, in which tests/support/fake_tensorrt.py is what
``import tensorrt_llm`` gives. Everything else is the project's own.
"""

from __future__ import annotations

import csv
import shlex

import pytest
from support.project import ROOT, Project, tiny_sweep

from llm_energy.core.files import sha256_file
from llm_energy.environments import registry

pytestmark = pytest.mark.engine

PYTHON = """#!/bin/sh
PYTHONPATH={folder} exec {python} "$@"
"""
REGISTER = """
import sys
sys.path.append({tests!r})
from support import fake_tensorrt
fake_tensorrt.register()
"""
MEASUREMENTS = "results/tiny/tensorrt/measurements/tiny--tensorrt"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Sweep a tiny model in two precisions, of which the engine can load one."""
    project = Project(tmp_path_factory.mktemp("project") / "copy")
    places = project.folder / ".venvs"
    places.unlink()
    engine = places / "tensorrt"
    (engine / "bin").mkdir(parents=True)
    (places / "workflow").symlink_to(ROOT / ".venvs" / "workflow")
    (places / "pytorch").symlink_to(ROOT / ".venvs" / "pytorch-cpu")
    python = engine / "bin" / "python"
    real = ROOT / ".venvs" / "pytorch-cpu" / "bin" / "python"
    folder, real = shlex.quote(str(engine)), shlex.quote(str(real))
    python.write_text(PYTHON.format(folder=folder, python=real))
    python.chmod(0o755)
    (engine / "sitecustomize.py").write_text(REGISTER.format(tests=str(ROOT / "tests")))
    lock = registry.lock_path(project.folder, "tensorrt")
    registry.stamp_path(project.folder, "tensorrt").write_text(sha256_file(lock))
    sweep = tiny_sweep(
        project.tiny_model("tiny", "llama"),
        backends=["tensorrt"],
        precisions=["float32", "int8"],
        workloads=[{"id": "b2", "requests": 4, "batching": {"batch_size": 2}}],
        device="cuda",
    )
    project.config = project.write_config("tiny", sweep)
    project.snakemake("--configfile", project.config, "--until", "tables")
    return project


def rows(project, table: str) -> list[dict[str, str]]:
    with open(project.folder / f"results/tiny/tables/{table}.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_cell_is_measured(swept):
    measurement = swept.read(f"{MEASUREMENTS}--float32/r01.json")
    (window,) = measurement["windows"]
    assert (measurement["outcome"], window["outcome"]) == ("ok", "ok")
    assert measurement["effective"]["flow"] == "pytorch"
    assert measurement["effective"]["max_batch_size"] == 2
    assert set(window["requests"]["output_tokens"]) == {8}
    assert None not in window["requests"]["first_token_s"]
    assert window["effective"]["batching"]["strategy"] == "continuous"
    assert window["events"]["mean_running_requests"] > 1


def test_a_precision_that_it_cannot_load_is_a_row_with_the_remedy(swept):
    (row,) = [row for row in rows(swept, "failures") if row["precision"] == "int8"]
    assert row["outcome"] == "unsupported"
    assert "Use a checkpoint quantised beforehand to FP8" in row["reason"]


def test_the_stand_in_says_so_and_enters_no_table(swept):
    effective = swept.read(f"{MEASUREMENTS}--float32/r01.json")["effective"]
    assert effective["engine_version"] == "1.3.0rc26+stand.in"
    verdicts = swept.read("results/tiny/tensorrt/verdicts.json")["verdicts"]
    judged = [verdict for verdict in verdicts if verdict["outcome"] == "ok"]
    assert judged
    for verdict in judged:
        assert verdict["verdict"] == "invalid"
        assert "E32" in {flag["id"] for flag in verdict["flags"]}
    assert swept.read("results/tiny/tensorrt/metrics.json")["rows"] == []
    in_table = rows(swept, "energy")
    assert {row["n"] for row in in_table} == {"0"}
    assert not any(row.get("energy_per_output_token_j_mean") for row in in_table)


# without a GPU


def test_a_sweep_of_three_backends_is_planned_and_what_cannot_run_says_why(tmp_path):
    project = Project(tmp_path / "copy")
    shown = project.snakemake(
        *("--dry-run", "--quiet", "rules"),
        *("--configfile", "config/examples/three-backends.yaml", "--config", "device=cpu"),
    ).stdout
    assert "Sweep three-backends: 2 of 3 cells planned" in shown
    (refused,) = [line for line in shown.splitlines() if "--tensorrt--" in line]
    assert "smollm2-135m--tensorrt--bfloat16: unsupported: " in refused
    assert "NVIDIA GPU" in refused
