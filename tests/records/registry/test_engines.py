"""Engines are named once, and what else lists them lists the same."""

from __future__ import annotations

import re

import yaml
from support.project import ROOT

from llm_energy.records.registry.engines import REGISTRY, SIMULATED_IDS

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


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
