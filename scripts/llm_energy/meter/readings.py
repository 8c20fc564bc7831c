"""Keep what the counters showed, as it was read: what every joule of a repeat comes from."""

from __future__ import annotations

from collections.abc import Iterable

from llm_energy.meter.sensors import Count, Counter
from llm_energy.records import CounterReadings


class Readings:
    """Collect the readings of each counter; those of an interval are put in once it has ended."""

    def __init__(self) -> None:
        self._rows: dict[Counter, list[tuple[float | None, Count]]] = {}

    def keep(self, counts: Iterable[tuple[Counter, float | None, Count]]) -> None:
        """Add the readings of one interval, each with the time of the edge that it was read for."""
        for counter, edge_s, count in counts:
            self._rows.setdefault(counter, []).append((edge_s, count))

    def columns(self) -> tuple[CounterReadings, ...]:
        """Return what was kept, each counter as columns in their order in time."""
        return tuple(
            CounterReadings(
                component=counter.component,
                device=counter.device,
                unit=counter.unit,
                wraps_at=counter.wraps_at,
                edge_s=tuple(edge_s for edge_s, _ in rows),
                start_s=tuple(count.start_s for _, count in rows),
                end_s=tuple(count.end_s for _, count in rows),
                value=tuple(None if isinstance(c.value, str) else c.value for _, c in rows),
            )
            for counter, rows in self._rows.items()
        )
