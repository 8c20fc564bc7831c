"""Checks of the machine: is it one machine, and did it do nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_energy.checks.catalogue import Finding, Trace, check


@check(
    "H10",
    "sweep",
    "warning",
    "more than one host or set of boards",
    "Boards of one kind differ by several percent: measure a sweep on one host and its boards.",
)
def mixed_machines(traces: Sequence[Trace]) -> Iterator[tuple[Trace, Finding]]:
    """Find measurements of one backend that come from different hosts or boards."""
    machines = sorted({(t.hostname, t.boards) for t in traces})
    if len(machines) > 1:
        evidence = {"machines": [{"hostname": h, "boards": list(b)} for h, b in machines]}
        for trace in traces:
            yield trace, Finding(evidence)
