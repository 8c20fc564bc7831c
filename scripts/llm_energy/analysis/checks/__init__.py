"""The named checks that decide what a measurement is worth, one file per group of failures."""

from __future__ import annotations

from llm_energy.analysis.checks import (
    comparison,
    conservation,
    energy,
    engine,
    files,
    gpus,
    machine,
    meter,
    physics,
    pipeline,
    power_trace,
    running,
    sessions,
    workload,
)
from llm_energy.analysis.checks.catalogue import (
    CATALOGUE,
    Check,
    Finding,
    Scope,
    bias_bound,
    expected_of,
    flags_of,
    of_scope,
    summary_of,
    verdict_word,
)
from llm_energy.analysis.evidence import (
    Expected,
    FileState,
    Key,
    RepeatCounts,
    WindowEvidence,
    WindowSummary,
)

GROUPS = {
    "meter": meter,
    "power_trace": power_trace,
    "energy": energy,
    "gpus": gpus,
    "machine": machine,
    "sessions": sessions,
    "engine": engine,
    "workload": workload,
    "running": running,
    "physics": physics,
    "pipeline": pipeline,
    "files": files,
    "conservation": conservation,
    "comparison": comparison,
}
# By id: a failure that needs no check, or that no check could see, and what keeps it out.
EXPLAINED: dict[str, str] = {
    id: why for group in GROUPS.values() for id, why in vars(group).get("EXPLAINED", {}).items()
}

__all__ = [
    "CATALOGUE",
    "EXPLAINED",
    "GROUPS",
    "Check",
    "Expected",
    "FileState",
    "Finding",
    "Key",
    "RepeatCounts",
    "Scope",
    "WindowEvidence",
    "WindowSummary",
    "bias_bound",
    "expected_of",
    "flags_of",
    "of_scope",
    "summary_of",
    "verdict_word",
]
