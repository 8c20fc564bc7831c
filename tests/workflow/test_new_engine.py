"""An engine that is added by the steps of docs/adding-a-backend.md alone is measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from support.documented_backend import PAGE, code
from support.host_faults import is_measured
from support.project import ROOT, Project, tiny_sweep

from llm_energy.backends.compatibility import matrix
from llm_energy.records.registry.engines import REGISTRY, SIMULATED_IDS

pytestmark = pytest.mark.engine

PACKAGE = Path("scripts/llm_energy")
ENTRY = """
    "toy": Engine(
        module="llm_energy.backends.toy",
        environments={"toy": "transformers", "toy-cpu": "transformers"},
        told=("transformers", "torch"),
    ),
}
# The simulated"""


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def add_engine(folder: Path) -> None:
    """Add the page's example to a copy of the project, with PyTorch's packages."""
    (folder / PACKAGE / "backends" / "toy.py").write_text(code(), "utf-8")
    registry = folder / PACKAGE / "records" / "registry" / "engines.py"
    replace(registry, "\n}\n# The simulated", ENTRY)
    listed = f"[{', '.join((*REGISTRY, *SIMULATED_IDS))}]"
    replace(folder / "workflow/schemas/config.schema.yaml", listed, f"{listed[:-1]}, toy]")
    data = json.loads(json.dumps(matrix()))
    for owner in (data["backends"], *(row for s in data["sections"] for row in s["rows"])):
        owner["toy"] = owner["pytorch"]
    column = folder / PACKAGE / "backends" / "compatibility.yaml"
    column.write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    for name in ("toy", "toy-cpu"):
        for suffix in (".txt", ".yaml"):  # which `make locks` writes
            pins = folder / "envs" / (name.replace("toy", "pytorch") + suffix)
            pins.with_stem(name).write_text(pins.read_text("utf-8"), "utf-8")
    built = folder / ".venvs"
    built.unlink()
    built.mkdir()
    for environment in (ROOT / ".venvs").iterdir():
        (built / environment.name).symlink_to(environment)
    (built / "toy-cpu").symlink_to(ROOT / ".venvs" / "pytorch-cpu")


def test_the_page_names_each_place_that_a_new_engine_stands_in():
    page = " ".join(PAGE.read_text("utf-8").split())
    steps = ("scripts/llm_energy/backends/", "records/registry/engines.py", "config.schema.yaml")
    steps += ("compatibility.yaml", "envs/<name>-cpu.in")
    assert [step for step in steps if step not in page] == []


def test_a_new_engine_stands_in_the_table(tmp_path: Path):
    project = Project(tmp_path / "copy")
    add_engine(project.folder)
    [_, workload] = tiny_sweep("")["workloads"]
    model = project.tiny_model("tiny", "llama")
    sweep = tiny_sweep(model, backends=["toy"], workloads=[workload])
    project.snakemake("--configfile", project.write_config("tiny", sweep), "--until", "tables")
    with open(project.folder / "results/tiny/tables/energy.csv", newline="") as stream:
        [row] = csv.DictReader(stream)
    assert (row["backend"], row["outcome"]) == ("toy", "ok")
    if is_measured(project, row):
        assert float(row["energy_per_output_token_j_mean"]) > 0
