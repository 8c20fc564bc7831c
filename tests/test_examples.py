"""Every example explains itself and is run: on a tiny model, or dry where it needs a GPU."""

from __future__ import annotations

import pytest
import yaml
from project import ROOT, Project, tiny_sweep

from llm_energy.environments import is_installed

EXAMPLES = {path.stem: path for path in (ROOT / "config" / "examples").glob("*.yaml")}
DRY = ("ai-energy-score", "saturation")
ON_A_TINY_MODEL = ("single", "batch-sizes", "backends", "tensor-parallel")
ELSEWHERE = {
    "traffic": "test_traffic_pipeline.py",
    "replay": "test_replay_pipeline.py",
    "precisions": "test_workflow.py",
    "three-backends": "test_tensorrt_pipeline.py",
}


def content(name: str) -> dict:
    return yaml.safe_load(EXAMPLES[name].read_text(encoding="utf-8"))


def test_every_example_is_run() -> None:
    assert {*DRY, *ON_A_TINY_MODEL, *ELSEWHERE} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_says_first_what_it_is_for_and_how_to_run_it(name: str) -> None:
    lines = EXAMPLES[name].read_text(encoding="utf-8").splitlines()
    top = lines[: next(k for k, line in enumerate(lines) if not line.startswith("#"))]
    assert f"# snakemake --cores 1 --configfile config/examples/{name}.yaml" in top
    assert len(" ".join(top).split()) > 15
    assert content(name)["name"] == name


@pytest.mark.parametrize("name", DRY)
def test_one_that_needs_more_than_a_cpu_is_planned(name: str, tmp_path) -> None:
    project = Project(tmp_path / "copy")
    shown = project.snakemake("--dry-run", "--configfile", f"config/examples/{name}.yaml").stdout
    example = content(name)
    variant = "" if example.get("device") == "cuda" else "-cpu"
    missing = [b for b in example["backends"] if not is_installed(ROOT, f"{b}{variant}")]
    for backend in missing:
        assert f"Backend '{backend}' requires extra dependencies" in shown
    cells, planned = len(example["backends"]), len(example["backends"]) - len(missing)
    repeats = planned * example.get("protocol", {}).get("repeats", 5)
    assert f"{planned} of {cells} cells planned, {repeats} repeats" in shown


@pytest.mark.engine
@pytest.mark.parametrize("name", ON_A_TINY_MODEL)
def test_it_runs_to_the_end_on_a_tiny_model(name: str, tmp_path) -> None:
    project = Project(tmp_path / "copy")
    tiny = tiny_sweep(project.tiny_model("tiny", "llama"))
    example = {k: v for k, v in content(name).items() if k != "model_name"}
    prompts = example.get("prompts", {}) | {"chat_template": False}
    if "sharding" in example.get("parameters", {}):
        # Two divide the tiny model's heads; tests/backends has ranks of the other engines.
        example["parameters"]["sharding"]["num_devices"] = 2
        example["backends"] = example["backends"][:1]
    same = {key: tiny[key] for key in ("models", "device", "protocol")}
    config = project.write_config(name, example | same | {"prompts": prompts})
    project.snakemake("--configfile", config)
    backends = example.get("backends", ["pytorch"])
    for backend in backends:
        rows = project.read(f"results/{name}/{backend}/aggregate.json")["rows"]
        there = is_installed(ROOT, f"{backend}-cpu")
        assert {row["outcome"] for row in rows} == {"ok" if there else "unsupported"}
        workloads = {w["id"] for w in content(name).get("workloads", [{"id": "default"}])}
        assert {row["workload"] for row in rows} == workloads
