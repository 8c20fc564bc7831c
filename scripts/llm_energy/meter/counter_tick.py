"""Measure how often an energy counter moves, which bounds how well it can know an interval."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

READ_PERIOD_S = 0.01
LIMIT_S = 3.0
# Ten periods are enough; reading on would only load the counter (see ``energy_counter.py``).
CHANGES = 11


class Change(NamedTuple):
    """When a counter was seen changed, and how long it had not been looked at."""

    time_s: float
    unseen_s: float


def measure_tick(
    read: Callable[[], float | None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> float | None:
    """Return the seconds between two changes of a counter; None where it did not change thrice.

    Reads it every 10 ms until it has changed often enough, for 3 s at most. A counter that moves
    faster than it is read gives the period of reading, which is an upper bound. Keep away from
    metered intervals.
    """
    begin_s = read_s = clock()
    seen = read()
    changes: list[Change] = []
    # The count holds also where the clock stands still.
    for _ in range(round(LIMIT_S / READ_PERIOD_S)):
        if seen is None or len(changes) == CHANGES or clock() - begin_s > LIMIT_S:
            break
        sleep(READ_PERIOD_S)
        last, seen = seen, read()
        last_s, read_s = read_s, clock()
        if seen is not None and seen != last:
            changes.append(Change(read_s, read_s - last_s))
    return _period_s(changes)


def _period_s(changes: list[Change]) -> float | None:
    """Divide the time between the first change and the last by the ticks in between.

    A gap of about twice the usual one is two ticks, one of them missed. A change that a slow
    reading may have shown half a tick late, or later, tells no time.
    """
    gaps_s = [b.time_s - a.time_s for a, b in pairwise(changes)]
    usual_s = statistics.median(gaps_s) if len(gaps_s) > 1 else 0.0
    if usual_s <= 0:
        return None
    late_s = max(usual_s / 2, 2 * READ_PERIOD_S)
    sharp = [change for change in changes if change.unseen_s <= late_s]
    gaps_s = [b.time_s - a.time_s for a, b in pairwise(sharp)] or gaps_s
    return sum(gaps_s) / sum(max(1, round(gap_s / usual_s)) for gap_s in gaps_s)
