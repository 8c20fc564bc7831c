"""Find what a sweep would measure twice: workloads of a cell, and cells, that are the same work."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from llm_energy.backends.compatibility import matrix
from llm_energy.core.files import canonical_json
from llm_energy.core.serialize import to_dict
from llm_energy.records import AskedPrompts, PromptRequest, Spec, Workload


def duplicates(
    specs: Iterable[Spec],
    models: dict[str, dict[str, Any]],
    prompt_requests: dict[str, PromptRequest],
) -> list[str]:
    """Return one sentence for each group of workloads, and of cells, whose work is the same.

    ``specs`` holds one spec of each planned cell; the other two are those of the plan. Two values
    that differ only in a parameter without effect resolve to the same work.
    """
    cells: dict[Hashable, list[str]] = {}
    found: dict[str, list[str]] = {}
    for spec in specs:
        asked = prompt_requests[spec.model].workloads
        works: dict[str, list[str]] = {}
        for workload in sorted(spec.workloads, key=lambda w: w.id):
            prompts = asked[workload.prompts_key(spec.repeat)]
            work = _work(workload, spec.engine_id, prompts)
            works.setdefault(work, []).append(workload.id)
        for names in works.values():
            if len(names) > 1:
                text = f"workloads {' and '.join(names)} resolve to the same work"
                found.setdefault(text, []).append(spec.backend)
        source = {key: value for key, value in models[spec.model].items() if key != "id"}
        # A simulated model is told its precision by no engine argument.
        told = spec.precision if source["source"]["kind"] == "simulated" else None
        engine = [spec.engine_id, spec.device, spec.engine, spec.checkpoint]
        loaded = canonical_json([source, *engine, told])
        cells.setdefault((loaded, tuple(sorted(works))), []).append(spec.cell)
    sentences = [
        f"{text} ({', '.join(dict.fromkeys(backends))})" for text, backends in found.items()
    ]
    return sentences + [
        f"cells {' and '.join(names)} resolve to the same engine and the same work"
        for names in cells.values()
        if len(names) > 1
    ]


def _work(workload: Workload, backend: str, prompts: AskedPrompts) -> str:
    """Return all that decides what an engine does for a workload, and nothing without effect."""
    batching = workload.parameters["batching"]
    obeyed = {"batch_size": batching["batch_size"]}
    if _obeys_strategy(backend):
        obeyed["strategy"] = batching["strategy"]
        if batching["strategy"] == "dynamic":
            obeyed = {k: batching.get(k) for k in ("batch_size", "strategy", "max_batch_tokens")}
    traffic = workload.parameters.get("traffic_simulation")
    return canonical_json([workload.requests, workload.engine, obeyed, traffic, to_dict(prompts)])


def _obeys_strategy(backend: str) -> bool:
    rows = (row for section in matrix()["sections"] for row in section["rows"])
    entries = (row.get(backend, ()) for row in rows if row.get("parameter") == "batching.strategy")
    return any(entry["status"] == "supported" for found in entries for entry in found)
