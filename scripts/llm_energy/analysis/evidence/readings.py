"""What the raw readings of a repeat's counters say: joules between any two, and from end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from llm_energy.core.files import sha256_json
from llm_energy.core.units import joules_from_microjoules, joules_from_millijoules
from llm_energy.records import CounterReadings, Interval, Measurement

WITH_READINGS = 3  # the version of the protocol from which on records keep them
JOULES = {"mJ": joules_from_millijoules, "uJ": joules_from_microjoules}
LEAST_STEPS = 3  # of a counter, that no two repeats share


@dataclass(frozen=True)
class Reach:
    """What one counter showed at the two ends of a repeat, in s and J.

    ``steps`` is a hash of all that it moved by in between, None where that is little.
    """

    device: str
    start_s: float
    start_j: float
    end_s: float
    end_j: float
    steps: str | None


def has_readings(measurement: Measurement) -> bool:
    """Return whether a measurement is of a version that keeps its readings."""
    return measurement.spec.protocol.version >= WITH_READINGS


def row_of(counter: CounterReadings, edge_s: float) -> int | None:
    """Return the number of the reading that was taken for an edge, None where there is none."""
    return next((row for row, known_s in enumerate(counter.edge_s) if known_s == edge_s), None)


def moved_j(counter: CounterReadings, first: int, last: int) -> float | None:
    """Return the joules between two rows, wraps counted; None where a value is missing.

    A counter that goes round is added up from row to row, as the meter does.
    """
    values = counter.value[first : last + 1]
    if len(values) < 2 or None in (values[0], values[-1]):
        return 0.0 if len(values) == 1 and values[0] is not None else None
    joules = JOULES[counter.unit]
    if counter.wraps_at is None:
        return joules(values[-1] - values[0])
    known = [value for value in values if value is not None]
    return math.fsum(joules(b - a + counter.wraps_at * (b < a)) for a, b in pairwise(known))


def between_j(counter: CounterReadings, interval: Interval) -> float | None:
    """Return the joules between an interval's edges, None where one of them was not read."""
    first, last = (row_of(counter, edge_s) for edge_s in (interval.start_s, interval.end_s))
    return None if first is None or last is None else moved_j(counter, first, last)


def pairs(counter: CounterReadings) -> Iterator[tuple[int, int]]:
    """Yield the rows of neighbouring readings that have a value."""
    yield from pairwise(row for row, value in enumerate(counter.value) if value is not None)


def reaches(measurement: Measurement) -> Iterator[Reach]:
    """Yield what each counter that never goes round showed at the two ends of a repeat."""
    for counter in measurement.readings:
        rows = [row for row, value in enumerate(counter.value) if value is not None]
        if counter.wraps_at is not None or len(rows) < 2:
            continue
        joules, values = JOULES[counter.unit], counter.value
        steps = [step for a, b in pairs(counter) if (step := values[b] - values[a])]
        yield Reach(
            device=counter.device,
            start_s=counter.start_s[rows[0]],
            start_j=joules(values[rows[0]]),
            end_s=counter.end_s[rows[-1]],
            end_j=joules(values[rows[-1]]),
            steps=sha256_json(steps) if len(steps) >= LEAST_STEPS else None,
        )
