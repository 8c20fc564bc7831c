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


class CounterReading(NamedTuple):
    """A counter's value, and the driver's own time of it where it gives one."""

    value: float
    stamp_s: float | None


def measure_tick(
    read: Callable[[], CounterReading | None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> float | None:
    """Return the seconds between two changes of a counter; None where it did not change thrice.

    Reads it every 10 ms until it has changed often enough, for 3 s at most. A counter that moves
    faster than it is read gives the period of reading, which is an upper bound. Keep away from
    metered intervals.
    """
    begin_s = clock()
    seen = read()
    changes: list[tuple[float, float | None]] = []
    # The count holds also where the clock stands still.
    for _ in range(round(LIMIT_S / READ_PERIOD_S)):
        if seen is None or len(changes) == CHANGES or clock() - begin_s > LIMIT_S:
            break
        sleep(READ_PERIOD_S)
        last, seen = seen, read()
        if seen is not None and seen.value != last.value:
            changes.append((clock(), seen.stamp_s))
    return _period_s(_times_s(changes))


def _times_s(changes: list[tuple[float, float | None]]) -> list[float]:
    """Take the driver's times if it has given one for each change, else those of the clock."""
    stamps_s = [stamp_s for _, stamp_s in changes if stamp_s is not None]
    if len(stamps_s) == len(changes) and all(a < b for a, b in pairwise(stamps_s)):
        return stamps_s
    return [time_s for time_s, _ in changes]


def _period_s(times_s: list[float]) -> float | None:
    """Divide the time between the first change and the last by the ticks in between.

    A gap of about twice the usual one is two ticks, one of them missed.
    """
    gaps_s = [b - a for a, b in pairwise(times_s)]
    if len(gaps_s) < 2:
        return None
    usual_s = statistics.median(gaps_s)
    if usual_s <= 0:
        return None
    return sum(gaps_s) / sum(max(1, round(gap_s / usual_s)) for gap_s in gaps_s)
