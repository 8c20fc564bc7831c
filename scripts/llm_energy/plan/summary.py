"""Say of a plan what will be measured and what will not."""

from __future__ import annotations

from llm_energy.inputs.traffic.arrivals import unlike_asked
from llm_energy.plan.context import beyond_context
from llm_energy.plan.duplicates import duplicates
from llm_energy.plan.plan import Planning
from llm_energy.records import Note


def describe(made: Planning) -> str:
    """Say in a few lines what will be measured and what will not, with the reasons."""
    plan = made.plan
    lines = [
        f"Sweep {plan.sweep}: {len(plan.planned)} of {len(plan.cells)} cells planned, "
        f"{len(made.specs)} repeats to measure in all."
    ]
    lines += [f"  {c.cell}: unsupported: {c.reason}" for c in plan.cells if c.outcome != "planned"]
    notes: dict[Note, list[str]] = {}
    for cell in plan.planned:
        for note in cell.notes:
            notes.setdefault(note, []).append(cell.backend)
    for note, backends in notes.items():
        lines.append(f"  note ({', '.join(dict.fromkeys(backends))}): {note.message}")
    firsts = [made.specs[cell.specs[0]] for cell in plan.planned]
    lines += [f"  note: {t}" for t in duplicates(firsts, made.models, made.prompt_requests)]
    lines += [f"  note: {t}" for t in beyond_context(firsts, made.models, made.prompt_requests)]
    timed = {w.id: w.parameters["traffic_simulation"] for spec in firsts for w in spec.workloads}
    for id, arrivals in made.arrivals.workloads.items():
        told = unlike_asked(timed[id], arrivals) if id in timed else []
        lines += [f"  note (workload {id}): {text}" for text in told]
    return "\n".join(lines)
