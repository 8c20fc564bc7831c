"""Audit of a sweep: was each repeat measured once, alone, in the planned order and in one way."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from llm_energy.analysis.checks.catalogue import Finding, check, differing_values
from llm_energy.analysis.evidence.files import Span

# Copies whose times were shifted differ by the rounding of the new times.
SAME_DURATION_S = 1e-6
# By the calendar, windows of one host may seem to touch where its clock was set.
CALENDAR_TOLERANCE_S, CALENDAR_STEP_S = 1.0, 5.0
OFTEN = 0.5


@check(
    "A09",
    "spans",
    "invalid",
    "measured once and listed again",
    "Delete the copies, and measure these repeats.",
)
def copied(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find windows with exactly the same measured joules, or on a real host the same duration.

    Two repeats of a cell may share one of these numbers by chance, which is a warning, but never
    two of them. Nor do windows of any two cells share joules and duration.
    """
    groups: dict[tuple[float, ...], list[Span]] = {}
    for span in spans:
        if span.energy_j and all(energy_j > 0 for energy_j in span.energy_j):
            groups.setdefault(span.energy_j, []).append(span)
    shared: dict[tuple[str, int], list[tuple[Span, Span, dict]]] = {}
    for group in groups.values():
        group.sort(key=lambda span: (span.duration_s, span.key))
        for one, other in pairwise(group):
            evidence = {"energy_j": list(one.energy_j), "with": list(other.key)}
            if abs(one.duration_s - other.duration_s) < SAME_DURATION_S and not one.simulated:
                yield from _both(one, other, evidence | {"duration_s": one.duration_s}, None)
            elif (one.key.cell, one.key.workload) == (other.key.cell, other.key.workload):
                shared.setdefault(one.key.cell, []).append((one, other, evidence))
    for one, other in _same_durations(spans):
        evidence = {"duration_s": one.duration_s, "with": list(other.key)}
        shared.setdefault(one.key.cell, []).append((one, other, evidence))
    for pairs in shared.values():
        for one, other, evidence in pairs:
            yield from _both(one, other, evidence, None if len(pairs) > 1 else "warning")


@check(
    "A10",
    "spans",
    "invalid",
    "windows of the sweep overlap on one host",
    "Something measured beside the pipeline's lock: measure one thing at a time on a host.",
)
def overlapping(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find windows that were open at the same time on one host, those of other backends included.

    Where a host gives no boot id, the calendar tells, to a second.
    """
    booted = [span for span in spans if span.boot_id is not None]
    placed = [(span.boot_id, span.start_s, span.end_s, span) for span in booted]
    placed += [
        (span.hostname, span.utc_s + span.start_s, span.utc_s + span.end_s, span)
        for span in spans
        if span.boot_id is None and span.utc_s is not None and not span.simulated
    ]
    placed.sort(key=lambda place: place[:2])
    for _, group in groupby(placed, key=lambda place: place[0]):
        last: tuple | None = None
        for place in group:
            _, start_s, end_s, span = place
            if last is not None:
                allowed_s = 0.0 if span.boot_id is not None else CALENDAR_TOLERANCE_S
                if (overlap_s := min(last[2], end_s) - start_s) > allowed_s:
                    yield from _both(last[3], span, {"overlap_s": overlap_s}, None)
            if last is None or end_s > last[2]:
                last = place


@check(
    "A11",
    "spans",
    "warning",
    "not in the planned order",
    "Drift of the host no longer cancels between cells: let the pipeline measure in its own order.",
)
def other_order(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find workloads out of their spec's order, and repeats out of the order that the seed draws.

    A few repeats that came later, after a failure or a fetched model, are a note.
    """
    for span in spans:
        if span.order != span.planned_order:
            yield span, Finding({"order": span.order, "planned": span.planned_order})
    for group in _by_boot([span for span in spans if span.rank is not None]):
        runs = list(dict.fromkeys((span.rank, span.key.cell, span.key.repeat) for span in group))
        late = set(runs) - set(_longest_ascending(runs))
        severity = None if len(late) > OFTEN * len(runs) and len(runs) > 2 else "note"
        for span in group:
            if (span.rank, span.key.cell, span.key.repeat) in late:
                evidence = {"out_of_order": len(late), "of": len(runs)}
                yield span, Finding(evidence, severity)


@check(
    "A12",
    "spans",
    "warning",
    "engine configured otherwise in another repeat",
    "Measure the repeats of a cell with one engine in one configuration.",
)
def other_configuration(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find repeats of a cell whose engine reports another version, attention, graphs and so on."""
    cells: dict[str, list[Span]] = {}
    for span in spans:
        cells.setdefault(span.key.cell, []).append(span)
    for group in cells.values():
        if differing := differing_values(span.engine for span in group):
            for span in group:
                yield span, Finding(differing)


@check(
    "A13",
    "spans",
    "warning",
    "calendar and monotonic clock do not agree",
    "See whether the host's clock was set or the host suspended, or whether the record was edited.",
)
def other_calendar(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find repeats of one boot whose calendar time is over 5 s off that of the others."""
    for group in _by_boot([span for span in spans if span.utc_s is not None]):
        usual_s = statistics.median(span.utc_s for span in group)
        for span in group:
            if abs(off_s := span.utc_s - usual_s) > CALENDAR_STEP_S:
                yield span, Finding({"off_s": off_s})


def _both(
    one: Span, other: Span, evidence: dict, severity: str | None
) -> Iterator[tuple[Span, Finding]]:
    """Yield a finding about two windows for each of them, with the other's name."""
    for span, partner in ((one, other), (other, one)):
        yield span, Finding(evidence | {"with": list(partner.key)}, severity)


def _same_durations(spans: Sequence[Span]) -> Iterator[tuple[Span, Span]]:
    """Yield neighbours among the repeats of a cell and workload that lasted exactly as long."""

    def place(span: Span) -> tuple:
        return (span.key.cell, span.key.workload, span.duration_s, span.key)

    timed = sorted((span for span in spans if not span.simulated), key=place)
    for one, other in pairwise(timed):
        if place(one)[:3] == place(other)[:3] and one.energy_j != other.energy_j:
            yield one, other


def _by_boot(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield the windows of each boot of a host, by when they began."""
    placed = [span for span in spans if span.boot_id is not None]
    placed.sort(key=lambda span: (span.boot_id, span.start_s, span.key))
    for _, group in groupby(placed, key=lambda span: span.boot_id):
        yield list(group)


def _longest_ascending(items: Sequence[tuple]) -> list[tuple]:
    """Return the longest ascending part of a sequence without equals."""
    tails: list[int] = []
    before: list[int | None] = []
    for number, item in enumerate(items):
        place = bisect_left([items[tail] for tail in tails], item)
        before.append(tails[place - 1] if place else None)
        tails[place : place + 1] = [number]
    found, last = [], tails[-1] if tails else None
    while last is not None:
        found.append(items[last])
        last = before[last]
    return found[::-1]
