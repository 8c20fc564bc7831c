"""What is written of a plan, in plan.json, and what is said of it."""

from __future__ import annotations

from typing import Any

from llm_energy.core.serialize import to_dict
from llm_energy.inputs.traffic.arrivals import unlike_asked
from llm_energy.plan.duplicates import duplicates
from llm_energy.plan.plan import Plan
from llm_energy.records import SCHEMA_VERSION, Note
from llm_energy.records.files import paths


def grid(plan: Plan) -> dict[str, Any]:
    """Return content of ``plan.json``: every expected cell, what was refused, and every path."""
    return {
        "schema_version": SCHEMA_VERSION,
        "sweep": plan.sweep,
        "device": plan.device,
        "allow_mixed_backends": plan.allow_mixed_backends,
        "recommendation": plan.recommendation,
        "cells": [
            {
                "cell": cell.id,
                "model": cell.model,
                "backend": cell.backend,
                "precision": cell.precision,
                "outcome": cell.outcome,
                "reason": cell.reason,
                "workloads": list(cell.workloads),
                "repeats": list(cell.specs),
                "specs": [str(paths.spec(plan.folder, cell.id, r)) for r in cell.specs],
                "measurements": [
                    str(paths.measurement(plan.folder, cell.backend, cell.id, r))
                    for r in cell.specs
                ],
                "notes": to_dict(cell.notes),
            }
            for cell in plan.cells
        ],
    }


def describe(plan: Plan) -> str:
    """Say in a few lines what will be measured and what will not, with the reasons."""
    repeats = sum(len(cell.specs) for cell in plan.planned)
    lines = [
        f"Sweep {plan.sweep}: {len(plan.planned)} of {len(plan.cells)} cells planned, "
        f"{repeats} repeats to measure in all."
    ]
    lines += [f"  {c.id}: unsupported: {c.reason}" for c in plan.cells if c.outcome != "planned"]
    notes: dict[Note, list[str]] = {}
    for cell in plan.planned:
        for note in cell.notes:
            notes.setdefault(note, []).append(cell.backend)
    for note, backends in notes.items():
        lines.append(f"  note ({', '.join(dict.fromkeys(backends))}): {note.message}")
    firsts = [next(iter(cell.specs.values())) for cell in plan.planned]
    lines += [f"  note: {t}" for t in duplicates(firsts, plan.models, plan.prompt_requests)]
    timed = {w.id: w.parameters["traffic_simulation"] for spec in firsts for w in spec.workloads}
    for id, arrivals in plan.arrivals.workloads.items():
        told = unlike_asked(timed[id], arrivals) if id in timed else []
        lines += [f"  note (workload {id}): {text}" for text in told]
    return "\n".join(lines)
