"""Every example explains itself and is run: on a tiny model, or dry where it needs a GPU."""

from __future__ import annotations

import pytest
from support.project import ROOT, Project, example, tiny_sweep

from llm_energy.environments.registry import is_installed

EXAMPLES = {path.stem: path for path in (ROOT / "config" / "examples").glob("*.yaml")}
DRY = ("ai-energy-score", "eager-and-compiled", "kv-cache", "phases", "saturation", "speculative")
ON_A_TINY_MODEL = ("batch-sizes", "tensor-parallel")
ELSEWHERE = {
    "traffic": "test_traffic_pipeline.py",
    "served": "test_served_pipeline.py",
    "simulated": "test_simulated_pipeline.py",
    "precisions": "test_workflow.py",
    "backends": "test_workflow.py",
    "single": "test_workflow.py",
    "three-backends": "test_tensorrt_pipeline.py",
    "quantised-checkpoints": "tests/plan/test_checkpoints.py, which plans it",
}


def test_every_example_is_run() -> None:
    assert {*DRY, *ON_A_TINY_MODEL, *ELSEWHERE} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_says_first_what_it_is_for_and_how_to_run_it(name: str) -> None:
    lines = EXAMPLES[name].read_text(encoding="utf-8").splitlines()
    top = lines[: next(k for k, line in enumerate(lines) if not line.startswith("#"))]
    assert f"# snakemake --cores 1 --configfile config/examples/{name}.yaml" in top
    assert len(" ".join(top).split()) > 15
    assert example(name)["name"] == name
    assert f"| [{name}](examples/{name}.yaml) |" in (ROOT / "config/README.md").read_text("utf-8")


@pytest.mark.parametrize("name", DRY)
def test_one_that_needs_more_than_a_cpu_is_planned(name: str, tmp_path) -> None:
    project = Project(tmp_path / "copy")
    shown = project.snakemake("--dry-run", "--configfile", f"config/examples/{name}.yaml").stdout
    sweep = example(name)
    variant = "" if sweep.get("device") == "cuda" else "-cpu"
    entries = sweep["backends"]
    engines = [entry if isinstance(entry, str) else entry["engine"] for entry in entries]
    missing = [engine for engine in engines if not is_installed(ROOT, f"{engine}{variant}")]
    for backend in missing:
        assert f"Backend '{backend}' requires extra dependencies" in shown
    cells, planned = len(sweep["backends"]), len(sweep["backends"]) - len(missing)
    repeats = planned * sweep.get("protocol", {}).get("repeats", 5)
    assert f"{planned} of {cells} cells planned, {repeats} repeats" in shown


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Return a copy of the project with a tiny model."""
    made = Project(tmp_path_factory.mktemp("project") / "copy")
    made.tiny = tiny_sweep(made.tiny_model("tiny", "llama"))
    return made


@pytest.mark.engine
@pytest.mark.parametrize("name", ON_A_TINY_MODEL)
def test_it_runs_to_the_end_on_a_tiny_model(name: str, project) -> None:
    sweep = example(name)
    workloads = {workload["id"] for workload in sweep["workloads"]}
    sweep |= {key: project.tiny[key] for key in ("models", "device", "protocol")}
    if "sharding" in sweep["parameters"]:
        # Two divide the tiny model's heads; tests/engines has ranks of the other engines.
        sweep["parameters"]["sharding"]["num_devices"] = 2
        sweep["backends"] = sweep["backends"][:1]
    project.snakemake("--configfile", project.write_config(name, sweep))
    for backend in sweep["backends"]:
        rows = project.read(f"results/{name}/{backend}/aggregate.json")["rows"]
        assert {(row["workload"], row["outcome"]) for row in rows} == {(w, "ok") for w in workloads}
