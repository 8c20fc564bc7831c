"""Apply the checks of a window's joules to its steady state, which tables print beside it."""

from __future__ import annotations

import math
from dataclasses import replace

from llm_energy.analysis.checks.catalogue import CATALOGUE
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.records import ComponentEnergy, Flag, Interval, RequestTable, Window

# Counters, powers and physical limits. The audit holds its joules against the power trace (A14).
OF_ENERGY = ("M02", "M09", "M10", "M21", "E25", "E26")


def steady_flags(case: WindowEvidence) -> tuple[Flag, ...]:
    """Return the flags of the steady state's joules, all passes together; none where there is none.

    Their evidence says that they are of the steady state.
    """
    window = _steady_window(case.window)
    if window is None:
        return ()
    case = replace(case, window=window)
    found = ((CATALOGUE[id], CATALOGUE[id].find(case)) for id in OF_ENERGY)
    return tuple(
        check.flag(replace(finding, evidence={"of": "steady_state"} | finding.evidence))
        for check, finding in found
        if finding is not None
    )


def _steady_window(window: Window) -> Window | None:
    """Return the steady state as a window: its joules and time, and requests with its tokens."""
    steady = window.steady_state
    if steady is None or not steady.intervals or not steady.output_tokens > 0:
        return None
    duration_s = math.fsum(part.duration_s for part in steady.intervals)
    if not duration_s > 0:
        return None
    joules: dict[tuple, list[float | None]] = {}
    for part in (one for interval in steady.intervals for one in interval.energy):
        key = (part.component, part.device, part.status, part.method, part.reason)
        joules.setdefault(key, []).append(part.energy_j)
    energy = tuple(
        ComponentEnergy(*key[:4], None if None in found else math.fsum(found), key[4])
        for key, found in joules.items()
    )
    start_s, whole = window.interval.start_s, window.interval
    interval = Interval("window", start_s, start_s + duration_s, energy, whole.boards)
    return replace(window, interval=interval, requests=_part(window.requests, steady.output_tokens))


def _part(table: RequestTable, output_tokens: int) -> RequestTable:
    """Return the first requests that together have so many output tokens, the last one cut."""
    rows, left = 0, output_tokens
    counts = []
    while left > 0 and rows < len(table.request_id):
        counts.append(min(left, table.output_tokens[rows]))
        left -= counts[-1]
        rows += 1
    columns = {name: column[:rows] for name, column in vars(table).items() if name[0] != "_"}
    return RequestTable(**columns | {"output_tokens": tuple(counts)})
