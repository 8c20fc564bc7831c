"""Read what a wall meter showed of a whole node, and say what of it fell into each window.

A wall meter sees what no counter of a component does: fans, disks, power supplies and their losses.
Its clock is its own, so each row says by how much its joules would change if that clock were one
second off. Gaps are never filled: a window with one has no energy, and a reason.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llm_energy.analysis.energy.accounting import baseline, sums, work
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import read_json
from llm_energy.records import Interval, Measurement, power_trace

COLUMNS = ("time", "power_w")
GAP_PERIODS = 3  # readings that came late are no gap; more missing ones are
NODE = "node"


@dataclass(frozen=True)
class Row:
    """The node's energy in one window; ``energy_j`` is None with its ``reason``.

    ``clock_error_j_per_s`` is by how much the energy changes with each second that the two clocks
    are apart, ``idle_power_w`` the node's power while the model was loaded and had no request.
    """

    cell: str
    repeat: int
    workload: str
    start: str
    duration_s: float
    energy_j: float | None
    power_w: float | None
    idle_power_w: float | None
    energy_per_output_token_j: float | None
    clock_error_j_per_s: float | None
    samples: int
    longest_gap_s: float
    reason: str


def read(path: Path, clock_offset_s: float = 0.0) -> tuple[power_trace.Sample, ...]:
    """Read an export, in order of time; ``clock_offset_s`` is how far its clock is ahead.

    Times are s since 1970-01-01 UTC, or ISO 8601 with a zone in a CSV file. Raises LlmEnergyError
    that names what is wrong and where.
    """
    pairs = sorted(_prometheus(path) if path.suffix == ".json" else _csv(path))
    if len(pairs) < 2:
        raise LlmEnergyError(f"{path}: found {len(pairs)} readings, needed at least 2")
    for (first, _), (second, _) in itertools.pairwise(pairs):
        if first == second:
            raise LlmEnergyError(f"{path}: two readings at {first:.3f} s; export one meter alone")
    nothing = (None,) * 5
    return tuple(power_trace.Sample(t - clock_offset_s, NODE, p, *nothing) for t, p in pairs)


def rows(readings: Sequence[power_trace.Sample], measurement: Measurement) -> Iterator[Row]:
    """Yield a row for each window of a measurement that was measured."""
    clock = measurement.clock
    begin_s = datetime.fromisoformat(clock.utc).timestamp() - clock.monotonic_s
    idle = baseline(measurement, "loaded_idle_before")
    idle_j = _energy(readings, idle, begin_s)[0] if idle else None
    for window in measurement.windows:
        interval = window.interval
        if interval is None or not interval.duration_s > 0:
            continue
        energy_j, reason, summary = _energy(readings, interval, begin_s)
        late_j = _energy(readings, interval, begin_s + 1)[0]
        tokens = work(window).output_tokens
        known = energy_j is not None
        start = datetime.fromtimestamp(begin_s + interval.start_s).astimezone()
        yield Row(
            cell=measurement.spec.cell,
            repeat=measurement.spec.repeat,
            workload=window.workload,
            start=start.isoformat(timespec="milliseconds"),
            duration_s=interval.duration_s,
            energy_j=energy_j,
            power_w=energy_j / interval.duration_s if known else None,
            idle_power_w=None if idle_j is None else idle_j / idle.duration_s,
            energy_per_output_token_j=energy_j / tokens if known and tokens else None,
            clock_error_j_per_s=abs(late_j - energy_j) if known and late_j is not None else None,
            samples=summary.samples,
            longest_gap_s=summary.longest_gap_s,
            reason=reason,
        )


def _energy(
    readings: Sequence[power_trace.Sample], interval: Interval, begin_s: float
) -> tuple[float | None, str, power_trace.TraceSummary]:
    """Return the node's joules in an interval or the reason why there are none, and its summary."""
    start_s, end_s = begin_s + interval.start_s, begin_s + interval.end_s
    (summary,) = power_trace.summarise(readings, start_s, end_s)
    period_s = statistics.median(b.time_s - a.time_s for a, b in itertools.pairwise(readings))
    if not readings[0].time_s <= start_s < end_s <= readings[-1].time_s:
        return None, "the readings do not reach over it: see the clock and its offset", summary
    if summary.energy_j is None or summary.longest_gap_s > GAP_PERIODS * period_s:
        return None, f"a gap of {summary.longest_gap_s:.1f} s in the readings", summary
    measured = sums(interval).get("measured")
    if measured is not None and summary.energy_j < measured.energy_j:
        reason = (
            f"{summary.energy_j:.0f} J, which is less than the {measured.energy_j:.0f} J of its "
            "components: another node's meter, another unit, or a clock that is off"
        )
        return None, reason, summary
    return summary.energy_j, "", summary


def _csv(path: Path) -> Iterator[tuple[float, float]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            if not set(COLUMNS) <= set(table.fieldnames or ()):
                found = ", ".join(table.fieldnames or ("none",))
                raise LlmEnergyError(
                    f"{path}: found the columns {found}, needed {' and '.join(COLUMNS)}"
                )
            for row in table:
                yield _pair(path, f"line {table.line_num}", row["time"], row["power_w"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LlmEnergyError(f"{path}: cannot be read: {error}") from None


def _prometheus(path: Path) -> Iterator[tuple[float, float]]:
    """Read an answer to query_range (https://prometheus.io/docs/prometheus/latest/querying/api/)."""
    answer = read_json(path)
    try:
        series = answer["data"]["result"]
        found = [json.dumps(one["metric"]) for one in series]
        values = [pair for one in series for pair in one["values"]]
    except (KeyError, TypeError):
        raise LlmEnergyError(f"{path}: not an answer of Prometheus to query_range") from None
    if len(series) != 1:
        raise LlmEnergyError(
            f"{path}: found {len(series)} series ({'; '.join(found)}), needed one; choose it "
            "in the query, or add up there those of one node"
        )
    for number, value in enumerate(values):
        time, power = value if isinstance(value, list) and len(value) == 2 else (None, None)
        yield _pair(path, f"value {number}", time, power)


def _pair(path: Path, place: str, time: object, power: object) -> tuple[float, float]:
    try:
        power_w = float(str(power))
        time_s = _seconds(str(time))
    except ValueError:
        time_s = power_w = math.nan
    if not (math.isfinite(time_s) and 0 <= power_w < math.inf):
        raise LlmEnergyError(
            f"{path}, {place}: found time {time!r} and power {power!r}, needed seconds since 1970 "
            "or ISO 8601 with a zone, and watts"
        )
    return time_s, power_w


def _seconds(time: str) -> float:
    """Return a time in s since 1970-01-01 UTC.

    >>> _seconds("1767225600.5"), _seconds("2026-01-01T01:00:00+01:00")
    (1767225600.5, 1767225600.0)
    """
    try:
        return float(time)
    except ValueError:
        moment = datetime.fromisoformat(time)
    if moment.tzinfo is None:
        raise ValueError(time)
    return moment.timestamp()
