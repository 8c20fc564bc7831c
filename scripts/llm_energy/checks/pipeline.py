"""Checks of the pipeline itself: files, plan, order, and how many repeats are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from llm_energy.checks.catalogue import Case, FileState, Finding, Remaining, Trace, check


@check(
    "P01",
    "sweep",
    "invalid",
    "windows overlap on one host",
    "Something measured beside the pipeline's lock: measure one thing at a time on a host.",
)
def overlapping_windows(traces: Sequence[Trace]) -> Iterator[tuple[Trace, Finding]]:
    """Find windows that were open at the same time on one host since its start.

    Monotonic times of one boot are comparable; a host that gives no boot id is left out.
    """
    placed = [t for t in traces if t.boot_id is not None]
    placed.sort(key=lambda t: (t.hostname, t.boot_id, t.start_s, t.key))
    for _, group in groupby(placed, key=lambda t: (t.hostname, t.boot_id)):
        last: Trace | None = None
        for trace in group:
            if last is not None and trace.start_s < last.end_s:
                overlap_s = min(last.end_s, trace.end_s) - trace.start_s
                yield last, Finding({"with": list(trace.key), "overlap_s": overlap_s})
                yield trace, Finding({"with": list(last.key), "overlap_s": overlap_s})
            if last is None or trace.end_s > last.end_s:
                last = trace


@check(
    "P03",
    "repeats",
    "warning",
    "few or unequal repeats",
    "Run more repeats (protocol.repeats; five or more for a publication).",
)
def few_repeats(remaining: Remaining) -> Finding | None:
    """Find a cell with a single usable repeat, or with fewer than were planned."""
    usable, planned = remaining.usable, remaining.planned
    if not usable or (len(usable) > 1 and len(usable) == len(planned)):
        return None
    return Finding({"usable": list(usable), "planned": list(planned)})


@check(
    "P04",
    "file",
    "invalid",
    "planned but not measured",
    "Run the sweep again: it goes on with what is missing.",
)
def not_measured(state: FileState) -> Finding | None:
    """Find a measurement that the plan asks for and that does not exist."""
    return None if state.exists else Finding({"path": state.path})


@check(
    "P06",
    "window",
    "invalid",
    "measured under another spec, model or prompts",
    "Delete the measurement and run the sweep again.",
)
def stale(case: Case) -> Finding | None:
    """Find a measurement that was made from another spec, model or prompts than there are now."""
    measurement, current = case.measurement, case.current
    pairs = {
        "spec_sha256": (measurement.spec_sha256, current.spec_sha256),
        "weights_sha256": (measurement.weights_sha256, current.weights_sha256),
        "prompts_sha256": (
            measurement.prompts_sha256.get(case.window.workload),
            current.prompts_sha256,
        ),
    }
    changed = {
        name: {"measured": then, "now": now}
        for name, (then, now) in pairs.items()
        if now is not None and then != now
    }
    return Finding(changed) if changed else None


@check(
    "P07",
    "file",
    "invalid",
    "not a measurement record",
    "Delete the file and run the sweep again; a whole file is written or none.",
)
def broken_record(state: FileState) -> Finding | None:
    """Find a file that is no JSON, not of this schema version, or not consistent in itself."""
    return Finding({"problem": state.problem}) if state.exists and state.problem else None
