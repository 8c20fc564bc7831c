"""Say what happened when in one repeat and what power it drew, for figures and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llm_energy.core.files import sha256_file
from llm_energy.records import Interval, Measurement, Status
from llm_energy.records import power_trace as trace

Point = tuple[float, float]  # time in s from the start of the timeline, power in W


@dataclass(frozen=True)
class Stretch:
    """One metered stretch of a repeat; times in s from the start of its timeline.

    ``kind`` is ``idle``, ``load`` or ``window``. ``power_w`` has the mean power in W by component
    and status, summed over the component's devices.
    """

    name: str
    kind: str
    start_s: float
    end_s: float
    power_w: dict[tuple[str, Status], float]

    def total_w(self, status: Status) -> float | None:
        """Return the power of all components of one status; None where there is none."""
        found = [power for (_, known), power in self.power_w.items() if known == status]
        return math.fsum(found) if found else None


@dataclass(frozen=True)
class Timeline:
    """One repeat: its stretches in order, and the sampled power of all its GPUs together.

    ``trace`` is empty where there is none, and ``trace_reason`` then says why.
    """

    stretches: tuple[Stretch, ...]
    trace: tuple[Point, ...]
    trace_reason: str | None


def timeline(measurement: Measurement, folder: Path = Path()) -> Timeline:
    """Lay out one repeat; the path of its power trace is taken relative to ``folder``."""
    metered = [(interval, "idle") for interval in measurement.baselines]
    metered += [(measurement.load, "load")] if measurement.load else []
    names = {}
    for window in measurement.windows:
        if window.interval is not None:
            metered.append((window.interval, "window"))
            names[id(window.interval)] = window.workload
        if window.hot_idle is not None:
            metered.append((window.hot_idle, "idle"))
    metered.sort(key=lambda pair: pair[0].start_s)
    if not metered:
        return Timeline((), (), "nothing was metered")
    begin_s = metered[0][0].start_s
    stretches = tuple(
        _stretch(interval, kind, names.get(id(interval)), begin_s) for interval, kind in metered
    )
    points, reason = _trace(measurement, folder, begin_s, stretches[-1].end_s)
    return Timeline(stretches, points, reason)


def thinned(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """Return at most ``most`` points: each the mean of its neighbours, so that energy is kept.

    >>> thinned([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (3.0, 7.0)], 2)
    ((0.5, 2.0), (2.5, 6.0))
    """
    if len(points) <= most:
        return tuple(points)
    edges = [round(k * len(points) / most) for k in range(most + 1)]
    return tuple(
        (_mean(t for t, _ in points[a:b]), _mean(w for _, w in points[a:b]))
        for a, b in pairwise(edges)
    )


def _stretch(interval: Interval, kind: str, workload: str | None, begin_s: float) -> Stretch:
    power_w: dict[tuple[str, Status], float] = {}
    for part in interval.energy:
        if part.energy_j is not None and interval.duration_s > 0:
            key = (part.component, part.status)
            power_w[key] = power_w.get(key, 0.0) + part.energy_j / interval.duration_s
    name = workload or interval.name.replace("_", " ")
    return Stretch(name, kind, interval.start_s - begin_s, interval.end_s - begin_s, power_w)


def _trace(
    measurement: Measurement, folder: Path, begin_s: float, end_s: float
) -> tuple[tuple[Point, ...], str | None]:
    """Return the power of all GPUs over the timeline, or nothing and the reason.

    Each GPU is read a moment after the one before, so all are interpolated to the first's times.
    """
    import numpy

    report = measurement.meter
    if report is None or report.trace is None:
        return (), report.trace_reason if report else "this measurement has no power trace"
    path = folder / report.trace
    if not path.is_file():
        return (), f"{report.trace} is missing"
    if sha256_file(path) != report.trace_sha256:
        return (), f"{report.trace} is not the file that was written with the measurement"
    devices: dict[str, list[Point]] = {}
    for sample in trace.read(path):
        if sample.power_w is not None and 0 <= sample.time_s - begin_s <= end_s:
            devices.setdefault(sample.device, []).append((sample.time_s - begin_s, sample.power_w))
    if not devices:
        return (), f"{report.trace} has no power in these intervals"
    times_s = [time_s for time_s, _ in next(iter(devices.values()))]
    powers_w = sum(numpy.interp(times_s, *zip(*d, strict=True)) for d in devices.values())
    return tuple(zip(times_s, powers_w.tolist(), strict=True)), None


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known)
