"""One metered stretch: readings at its edges and at marks inside, and the joules between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from llm_energy.meter.sensors import Count, Counter, CountingSensor, Sensor, unavailable
from llm_energy.records import ComponentEnergy, Interval
from llm_energy.records.registry.metrics import COMPONENTS


@dataclasses.dataclass(frozen=True)
class _Instant:
    time_s: float
    readings: tuple[Any, ...]


class MeteredInterval:
    """Meter one stretch; ``record`` is there from the moment it has ended.

    ``counters`` are read at the edges and at marks. ``estimates`` give a mean power over the whole
    stretch, which an inner part of it is then given too.
    """

    record: Interval | None = None

    def __init__(
        self,
        counters: Sequence[CountingSensor],
        estimates: Sequence[Sensor],
        clock: Callable[[], float],
    ):
        self._counters = tuple(counters)
        self._estimates = tuple(estimates)
        self._clock = clock
        self._marks: dict[str, _Instant] = {}
        self._edges: list[_Instant] = []
        self._estimated: list[tuple[Any, ...]] = []

    def mark(self, label: str) -> None:
        """Read the clock and then the counters, so that ``between`` can tell a part apart.

        One driver call a GPU, which took 3 ms on an H200 and 16 at times: mark what is needed, and
        not more often than about once a second, since reading a counter often may disturb it.
        """
        if label in self._marks:
            raise ValueError(f"two marks with the label {label!r} in one interval")
        self._marks[label] = self._read_counters()

    def between(self, label_a: str, label_b: str, name: str) -> Interval:
        """Return the part between two marks as an interval of its own, once this one has ended."""
        first, last = self._marks[label_a], self._marks[label_b]
        if last.time_s < first.time_s:
            raise ValueError(f"mark {label_b!r} is before mark {label_a!r}")
        return self._interval(name, first, last)

    def read_estimates(self) -> None:
        """Read the estimating sensors, which may be slow: once before and once after the edges."""
        self._estimated.append(tuple(sensor.read() for sensor in self._estimates))

    def read_edge(self) -> None:
        """Read the clock and then the counters: once where the stretch begins, once at its end."""
        self._edges.append(self._read_counters())

    def finish(self, name: str) -> Interval:
        """Return the whole stretch, once both edges and the estimates are read."""
        return self._interval(name, *self._edges)

    def counts(self) -> Iterator[tuple[Counter, float | None, Count]]:
        """Yield all that was read of the counters, with the edge or mark that it was read for."""
        first, last = self._edges
        marks = sorted(self._marks.values(), key=lambda instant: instant.time_s)
        instants = (first, *marks, last)
        for i, sensor in enumerate(self._counters):
            for counter, counts in sensor.counts([instant.readings[i] for instant in instants]):
                edges_s = iter(instants)
                for count in counts:
                    yield counter, None if count.between else next(edges_s).time_s, count

    def _read_counters(self) -> _Instant:
        # The clock comes first, at both edges, so what the reading itself takes does not stretch
        # the interval: it is one and the same delay at its two ends.
        return _Instant(self._clock(), tuple(sensor.read() for sensor in self._counters))

    def _interval(self, name: str, first: _Instant, last: _Instant) -> Interval:
        duration_s = last.time_s - first.time_s
        counted = _energy(self._counters, first.readings, last.readings, duration_s)
        estimated = _energy(self._estimates, *self._estimated, duration_s)
        return Interval(name, first.time_s, last.time_s, combine(counted, estimated))


def _energy(
    sensors: Iterable[Sensor], first: Iterable[Any], last: Iterable[Any], duration_s: float
) -> list[ComponentEnergy]:
    return [
        component
        for sensor, a, b in zip(sensors, first, last, strict=True)
        for component in sensor.energy(a, b, duration_s)
    ]


def combine(
    counted: Iterable[ComponentEnergy], estimated: Iterable[ComponentEnergy]
) -> tuple[ComponentEnergy, ...]:
    """Let an estimate stand for a component that no counter measured, with the reason for it.

    A component that is measured in part keeps its unavailable parts and gets no estimate, since an
    estimate is of the whole. Nor does one that is in the counter of a GPU's whole module.
    """
    counted, estimated = list(counted), list(estimated)
    if any(c.whole_module for c in counted):
        reason = "its energy is in that of the GPU's module"
        estimated = [
            unavailable(component, reason) for component in COMPONENTS if component != "gpu"
        ]
    result: list[ComponentEnergy] = []
    for component in COMPONENTS:
        ours = [c for c in counted if c.component == component]
        theirs = [c for c in estimated if c.component == component]
        if any(c.status == "measured" for c in ours) or not theirs:
            result += ours
        elif any(c.status == "estimated" for c in theirs):
            reason = "not measured: " + _reasons(ours)
            result += [
                dataclasses.replace(c, reason=reason) for c in theirs if c.status == "estimated"
            ]
        else:
            # Zones and GPUs that have a name keep it; else one component says why there is none.
            reason = _reasons(ours + theirs)
            absent = [c for c in ours if c.device] or theirs[:1]
            result += [dataclasses.replace(c, reason=reason) for c in absent]
    return tuple(result)


def _reasons(components: Iterable[ComponentEnergy]) -> str:
    return "; ".join(dict.fromkeys(c.reason for c in components if c.reason))
