"""The named checks that decide what a measurement is worth, one file per group of failures."""

from __future__ import annotations

from llm_energy.analysis.checks import (
    engine,
    gpus,
    machine,
    pipeline,
    running,
    sessions,
    workload,
)
from llm_energy.analysis.checks.audit import conservation, files, readings, repeats, steps
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
from llm_energy.analysis.checks.energy import counters, joules, physics, power_trace
from llm_energy.analysis.evidence.windows import (
    Expected,
    FileState,
    Key,
    RepeatCounts,
    WindowEvidence,
    WindowSummary,
)

MODULES = (
    counters,
    power_trace,
    joules,
    gpus,
    machine,
    sessions,
    engine,
    workload,
    running,
    physics,
    pipeline,
    files,
    conservation,
    repeats,
    readings,
    steps,
)
GROUPS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
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
