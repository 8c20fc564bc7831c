"""Entries of one engine are measured apart, and compared only where they do the same work."""

from __future__ import annotations

import json

import pytest
from support.project import Project, tiny_sweep

ENTRIES = [
    "vllm",
    {"id": "vllm-64", "engine": "vllm", "arguments": {"block_size": 64}},
    {"id": "vllm-prefix", "engine": "vllm", "arguments": {"enable_prefix_caching": True}},
]
LEFT_OUT = "work that the engine leaves out: none and prompts that a cache holds"


@pytest.mark.engine
def test_settings_of_one_engine_are_swept_to_their_tables(tmp_path):
    project = Project(tmp_path / "copy")
    sweep = tiny_sweep(project.tiny_model("tiny", "llama"), backends=ENTRIES)
    (project.folder / "sweep.json").write_text(json.dumps(sweep), "utf-8")
    project.snakemake("--cores", "1", "--configfile", "sweep.json")
    results = project.folder / "results" / "tiny"
    for entry in ENTRIES[1:]:
        [path] = (results / entry["id"] / "measurements").glob("*/r01.json")
        used = json.loads(path.read_text("utf-8"))["effective"]["arguments"]
        assert used.items() >= entry["arguments"].items()
        verdicts = json.loads((results / entry["id"] / "verdicts.json").read_text("utf-8"))
        flags = {flag["id"] for verdict in verdicts["verdicts"] for flag in verdict["flags"]}
        assert "E37" not in flags
    found = json.loads((results / "comparisons.json").read_text("utf-8"))["comparisons"]
    pairs = [
        one
        for one in found
        if one["contrast"] == "backend" and one["metric"] == "energy_per_output_token_j"
    ]
    assert len(pairs) == 6
    for one in pairs:
        unfair = one["other"]["backend"] == "vllm-prefix"
        assert (one["outcome"] == "not_comparable") == unfair
        assert (LEFT_OUT in one["verdict"]) == unfair
        assert any("arguments of the engine that the entry sets" in note for note in one["notes"])
