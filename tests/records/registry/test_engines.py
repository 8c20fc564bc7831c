"""Engines are named once; a new one is planned after the steps of the page, and after no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml
from support.documented_backend import PAGE, code
from support.project import ROOT, Project, tiny_sweep

from llm_energy.backends.compatibility import matrix
from llm_energy.records.registry.engines import REGISTRY, SIMULATED_IDS

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
ENTRY = """
    "toy": Engine(
        module="llm_energy.backends.toy",
        environments={"toy": "transformers", "toy-cpu": "transformers"},
        told=("transformers", "torch"),
    ),
}
# The simulated"""
PLANNED = """
import json, sys
from pathlib import Path
from llm_energy.backends import base
from llm_energy.plan import plan
from llm_energy.plan.config.load import load_sweep
sweep = load_sweep(json.loads(Path(sys.argv[1]).read_text()))
made = plan.make_plan(sweep, plan.installed_engine(Path(), "cpu", True))
print(json.dumps([[c.cell, c.outcome, c.reason, base.MODULES[c.backend]] for c in made.plan.cells]))
"""


def test_the_schema_of_the_config_has_each_engine_and_its_environments():
    schema = yaml.safe_load(SCHEMA.read_text("utf-8"))
    found = re.findall(r"enum: \[(pytorch, [^]]+)\]", SCHEMA.read_text("utf-8"))
    assert found == [", ".join((*REGISTRY, *SIMULATED_IDS))]
    images = set(schema["properties"]["containers"]["properties"])
    assert images == {"workflow", *(name for e in REGISTRY.values() for name in e.environments)}


def test_the_makefile_proves_the_packages_of_each_engine_that_it_installs():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    proved = set(re.findall(r"^IMPORTS_(\w+) =", makefile, re.M))
    assert {id for id, engine in REGISTRY.items() if not engine.cuda_only} <= proved


def test_a_new_engine_is_planned_after_the_steps_of_the_page(tmp_path: Path):
    page = " ".join(PAGE.read_text("utf-8").split())
    steps = ("scripts/llm_energy/backends/", "records/registry/engines.py", "config.schema.yaml")
    steps += ("compatibility.yaml", "envs/<name>-cpu.in")
    assert [step for step in steps if step not in page] == []
    copy = Project(tmp_path / "copy").folder
    package = copy / "scripts" / "llm_energy"
    (package / "backends" / "toy.py").write_text(code(), "utf-8")
    registry = (package / "records" / "registry" / "engines.py").read_text("utf-8")
    (package / "records" / "registry" / "engines.py").write_text(
        registry.replace("\n}\n# The simulated", ENTRY), "utf-8"
    )
    schema = copy / SCHEMA.relative_to(ROOT)
    listed = f"[{', '.join((*REGISTRY, *SIMULATED_IDS))}]"
    schema.write_text(schema.read_text("utf-8").replace(listed, f"{listed[:-1]}, toy]"), "utf-8")
    data = json.loads(json.dumps(matrix()))
    data["backends"]["toy"] = data["backends"]["pytorch"]
    for row in (row for section in data["sections"] for row in section["rows"]):
        row["toy"] = row["pytorch"]
    (package / "backends" / "compatibility.yaml").write_text(
        yaml.safe_dump(data, sort_keys=False), "utf-8"
    )
    for name in ("toy", "toy-cpu"):
        lock = (copy / "envs" / name.replace("toy", "pytorch")).with_suffix(".txt")
        lock.with_stem(name).write_text(lock.read_text("utf-8"), "utf-8")
    (tmp_path / "model").mkdir()
    sweep = tiny_sweep(str(tmp_path / "model"), backends=["toy"])
    (copy / "toy.json").write_text(json.dumps(sweep), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, "toy.json"],
        cwd=copy,
        env={"PYTHONPATH": str(copy / "scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = [["tiny--toy--float32", "planned", None, "llm_energy.backends.toy"]]
    assert json.loads(done.stdout) == wanted
