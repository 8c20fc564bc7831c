"""Entries of one engine are measured apart, and compared only where they do the same work."""

from __future__ import annotations

import json
import math

import pytest
from support.project import Project, tiny_sweep

ENTRIES = [
    "pytorch",
    {"id": "pytorch-continuous", "engine": "pytorch", "flow": "continuous"},
    "vllm",
    {"id": "vllm-64", "engine": "vllm", "arguments": {"block_size": 64}},
    {"id": "vllm-whole", "engine": "vllm", "arguments": {"enable_chunked_prefill": False}},
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
        if isinstance(entry, str):
            continue
        [path] = (results / entry["id"] / "measurements").glob("*/r01.json")
        used = json.loads(path.read_text("utf-8"))["effective"]
        assert used["arguments"].items() >= entry.get("arguments", {}).items()
        assert used.get("flow") == entry.get("flow")
        verdicts = json.loads((results / entry["id"] / "verdicts.json").read_text("utf-8"))
        flags = {flag["id"] for verdict in verdicts["verdicts"] for flag in verdict["flags"]}
        assert "E37" not in flags
    found = json.loads((results / "comparisons.json").read_text("utf-8"))["comparisons"]
    pairs = [
        one
        for one in found
        if one["contrast"] == "backend" and one["metric"] == "energy_per_output_token_j"
    ]
    assert len(pairs) == math.comb(len(ENTRIES), 2) * 2  # workloads
    for one in pairs:
        names = {one[side]["backend"] for side in ("reference", "other")}
        unfair = "vllm-prefix" in names
        assert (one["outcome"] == "not_comparable") == unfair
        assert (LEFT_OUT in one["verdict"]) == unfair
        noted = " ".join(one["notes"])
        assert ("arguments of the engine that the entry sets" in noted) == (
            names - {"pytorch", "pytorch-continuous", "vllm"} != set()
        )
        assert ("batching: static and continuous" in noted) == ("pytorch" in names)
        assert ("flow: eager and continuous" in noted) == (
            names == {"pytorch", "pytorch-continuous"}
        )
