"""Tell which repeats were measured in one session: on one host, in one boot, without a long pause.

Another session is another day: other air, other neighbours in the rack, a GPU that was reset. What
that changes is in no scatter of one session's repeats.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from llm_energy.records import Metrics

LONGEST_PAUSE_S = 6 * 3600.0


def sessions(rows: Iterable[Metrics]) -> dict[str, str]:
    """Return by the path of each measurement in which session it was made, named by its begin.

    Measurements that do not say when they were made have none.
    """
    known = {
        r.measurement: (r.hostname, r.boot_id or "", *r.span_utc_s)
        for r in rows
        if r.span_utc_s is not None
    }
    found: dict[str, str] = {}
    machine, end_s, name = None, 0.0, ""
    for measurement, (*place, began_s, ended_s) in sorted(known.items(), key=lambda one: one[1]):
        before, machine = machine, place
        if machine != before or began_s - end_s > LONGEST_PAUSE_S:
            name, end_s = f"begun {utc(began_s)}", 0.0
        found[measurement] = name
        end_s = max(end_s, ended_s)
    return found


def utc(time_s: float) -> str:
    """Write a time in seconds since 1970 as one reads it.

    >>> utc(1767225600.0)
    '2026-01-01 00:00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
