"""What the audit found: for each measured window, whether its files still prove its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from llm_energy.records.results import Flag


@dataclass(frozen=True)
class AuditedWindow:
    """What the audit says of one window.

    ``measurement_sha256`` and ``power_trace_sha256`` are those of the files as they were read, the
    latter None where there is no power trace. ``integrals`` counts the integrals of the power trace
    that were made again from the file for this window and the baselines of its repeat.
    """

    cell: str
    repeat: int
    workload: str
    measurement_sha256: str
    power_trace_sha256: str | None
    integrals: int
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Audit:
    """What the audit says of all measured windows of one backend in one sweep."""

    schema_version: int
    sweep: str
    backend: str
    windows: tuple[AuditedWindow, ...]
