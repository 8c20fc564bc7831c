"""The named checks that decide what a measurement is worth, one file per group of failures."""

from __future__ import annotations

from llm_energy.checks import engine, machine, meter, pipeline
from llm_energy.checks.catalogue import (
    CATALOGUE,
    Case,
    Check,
    Current,
    FileState,
    Finding,
    Key,
    Remaining,
    Trace,
    of_scope,
    trace_of,
    verdict_word,
)

GROUPS = {"meter": meter, "machine": machine, "engine": engine, "pipeline": pipeline}

__all__ = [
    "CATALOGUE",
    "GROUPS",
    "Case",
    "Check",
    "Current",
    "FileState",
    "Finding",
    "Key",
    "Remaining",
    "Trace",
    "of_scope",
    "trace_of",
    "verdict_word",
]
