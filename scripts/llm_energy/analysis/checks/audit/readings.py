"""Audit of the raw readings: does every joule come from them, and do they go on without a gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from llm_energy.analysis.checks.audit.conservation import EDIT, TIME_TOLERANCE_S
from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.checks.energy.power_trace import LONG_GAP_S, SENSORS_CONTRADICT
from llm_energy.analysis.energy.accounting import powers_w
from llm_energy.analysis.energy.uncertainty import GPU_TICK_S
from llm_energy.analysis.evidence.files import Repeat, Span, gaps, intervals
from llm_energy.analysis.evidence.readings import (
    between_j,
    has_readings,
    moved_j,
    pairs,
    row_of,
)
from llm_energy.analysis.evidence.windows import number
from llm_energy.records import CounterReadings, Interval, Measurement

ROUNDING, TINY_J = 1e-9, 1e-6
SLOW_READ_S = 1.0  # 3 ms are usual on an H200, and 16 at times
# More than any one device draws for long: a GPU's whole module, a socket, the memory behind it.
MOST_W = {"gpu": 4000.0, "cpu": 1000.0, "dram": 250.0}
ABOVE_LIMIT = 1.5  # a GPU may be above its limit for a moment, and marks may be near each other
BELOW_IDLE = 0.5
LEAST_GAP_S = 5.0  # a shorter one says too little of power
SHOWN = 5


@check("A16", "files", "invalid", "joules are not those of the readings", EDIT)
def other_joules(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Work out each interval's joules from the readings at its edges, wraps counted.

    From protocol version 3 on, each measured joule is their difference, and each counter that was
    read at both edges of an interval is in its sum or said to be unavailable. An edge that was
    moved, or a pass that was cut off, has no reading.
    """
    if not has_readings(repeat.measurement):
        return
    found: dict[str | None, dict] = {}
    for place, workload, interval in intervals(repeat.measurement):
        for name, wrong in _otherwise(repeat.measurement, interval):
            found.setdefault(workload, {})[f"{place}, {name}"] = wrong
    for workload, wrong in found.items():
        yield workload, Finding({"intervals": dict(list(wrong.items())[:SHOWN])})


@check("A17", "files", "invalid", "readings that no counter gives", EDIT)
def impossible_readings(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find readings out of order, a counter that falls without a wrap, and impossible power.

    Between neighbouring readings a GPU draws no more than 1.5 times its limit, and over 5 s or more
    between intervals no less than half of its lowest idle power. A reading that took over a second
    is a warning.
    """
    measurement = repeat.measurement
    for counter in measurement.readings:
        name = f"{counter.component} {counter.device}"
        if wrong := _disordered(counter, measurement):
            yield None, Finding({"counter": name} | wrong)
            continue
        slow_s = max(
            (b - a for a, b in zip(counter.start_s, counter.end_s, strict=True)), default=0
        )
        if slow_s > SLOW_READ_S:
            yield None, Finding({"counter": name, "slowest_read_s": slow_s}, "warning")
        for row, wrong in _jumps(counter, measurement):
            at_s = counter.start_s[row]
            yield _workload_at(measurement, at_s), Finding({"counter": name, "at_s": at_s} | wrong)


@check("A18", "files", "invalid", "readings and power trace disagree between intervals", EDIT)
def other_gap(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Hold the joules between two intervals against the integral of the power trace's file there.

    So what was taken from a window cannot be left in the rest around it. Over 20 % is invalid, in
    gaps of 5 s or more, beyond what a counter's tick and a sample at the edges are worth.
    """
    measurement = repeat.measurement
    period_s = measurement.spec.meter.sampling_period_s or 0.0
    counters = {c.device: c for c in measurement.readings if c.component == "gpu"}
    modules = {p.device for _, _, i in intervals(measurement) for p in i.energy if p.whole_module}
    for place, gap in gaps(measurement):
        for one in repeat.trace.summaries.get(place, ()):
            counter = counters.get(one.device)
            if counter is None or one.device in modules or gap.duration_s < LEAST_GAP_S:
                continue
            counted_j, gap_s = between_j(counter, gap), one.longest_gap_s
            if counted_j is None or one.energy_j is None or gap_s is None or gap_s > LONG_GAP_S:
                continue
            ratio = one.energy_j / max(counted_j, TINY_J)
            edges = (_tick_s(measurement, one.device) + period_s) / gap.duration_s
            if abs(ratio - 1) - edges > SENSORS_CONTRADICT:
                evidence = {"integral_over_counter": {one.device: ratio}, "gap": place}
                yield None, Finding(evidence)


@check(
    "A19",
    "spans",
    "invalid",
    "readings do not go on from repeat to repeat",
    "Delete copies, take edited files from where they were measured, and measure the rest again.",
)
def discontinuous(spans: Sequence[Span]) -> Iterator[tuple[Span, Finding]]:
    """Find a GPU's counter that moved by the same steps in two repeats, or impossibly in between.

    From one repeat of a boot to the next it grows by no more than a GPU can draw; where the driver
    was loaded anew it begins at 0 and has grown by no more than that since.
    """
    steps: dict[str, list[Span]] = {}
    for span in spans:
        for reach in span.reaches:
            if reach.steps is not None:
                steps.setdefault(reach.steps, []).append(span)
    for group in steps.values():
        names = {(span.key.cell, span.key.repeat) for span in group}
        if len(names) > 1:
            evidence = {"same_steps": sorted(f"{cell} r{number:02d}" for cell, number in names)}
            for span in group:
                yield span, Finding(evidence)
    ends = [
        ((span.boot_id, reach.device), reach, span)
        for span in spans
        for reach in span.reaches
        if span.boot_id is not None
    ]
    ends.sort(key=lambda end: (end[0], end[1].start_s, end[2].key))
    for _, group in groupby(ends, key=lambda end: end[0]):
        for (_, before, earlier), (_, after, later) in pairwise(group):
            if before == after or after.start_s < before.end_s:
                continue  # of one repeat, or told by overlapping windows
            most_j = MOST_W["gpu"] * (after.start_s - before.end_s + GPU_TICK_S)
            grown_j = after.start_j - (before.end_j if after.start_j >= before.end_j else 0.0)
            if grown_j > most_j:
                evidence = {"gpu": after.device, "grown_j": grown_j, "at_most_j": most_j}
                for span, other in ((earlier, later), (later, earlier)):
                    yield span, Finding(evidence | {"with": list(other.key)})


def _otherwise(measurement: Measurement, interval: Interval) -> Iterator[tuple[str, dict]]:
    """Yield what of an interval's joules the readings do not give."""
    counters = {(c.component, c.device): c for c in measurement.readings}
    listed = {(p.component, p.device) for p in interval.energy}
    measured = {p.component for p in interval.energy if p.status == "measured"}
    for part in interval.energy:
        counter = counters.get((part.component, part.device))
        if part.status != "measured":
            continue
        again_j = between_j(counter, interval) if counter else None
        name = f"{part.component} {part.device}"
        if again_j is None:
            yield name, {"energy_j": part.energy_j, "reason": "no reading at its edges"}
        elif not math.isclose(again_j, part.energy_j, rel_tol=ROUNDING, abs_tol=TINY_J):
            yield name, {"energy_j": part.energy_j, "by_readings_j": again_j}
    for (component, device), counter in counters.items():
        left_out = component in measured and (component, device) not in listed
        if left_out and (again_j := between_j(counter, interval)) is not None:
            yield f"{component} {device}", {"by_readings_j": again_j, "reason": "not in the sum"}


def _disordered(counter: CounterReadings, measurement: Measurement) -> dict | None:
    """Say what is wrong with the order of a counter's readings, or return None."""
    begin_s = measurement.clock.monotonic_s - TIME_TOLERANCE_S
    last_s = begin_s
    rows = zip(counter.edge_s, counter.start_s, counter.end_s, strict=True)
    for row, (edge_s, start_s, end_s) in enumerate(rows):
        known_s = start_s if edge_s is None else edge_s
        if not last_s <= known_s + TIME_TOLERANCE_S or not known_s <= start_s <= end_s:
            return {"reading": row, "edge_s": edge_s, "start_s": start_s, "end_s": end_s}
        last_s = end_s
    if last_s > measurement.end_s + TIME_TOLERANCE_S:
        return {"last_reading_s": last_s, "end_of_repeat_s": measurement.end_s}
    return None


def _jumps(counter: CounterReadings, measurement: Measurement) -> Iterator[tuple[int, dict]]:
    """Yield the rows up to which a counter moved in a way that no device can."""
    most_w = _limit_w(counter, measurement)
    idle_w = _idle_w(counter, measurement)
    tick_s = _tick_s(measurement, counter.device)
    rests = [(gap.start_s, gap.end_s) for _, gap in gaps(measurement)]
    for first, last in pairs(counter):
        if counter.value[last] < counter.value[first] and counter.wraps_at is None:
            yield last, {"from": counter.value[first], "to": counter.value[last]}
            continue
        energy_j = moved_j(counter, first, last)
        lasted_s = counter.end_s[last] - counter.start_s[first]
        if energy_j > most_w * (lasted_s + tick_s):
            yield last, {"energy_j": energy_j, "lasted_s": lasted_s, "most_w": most_w}
    for start_s, end_s in rests:
        first, last = row_of(counter, start_s), row_of(counter, end_s)
        if first is None or last is None or end_s - start_s < LEAST_GAP_S:
            continue
        energy_j = moved_j(counter, first, last)
        if energy_j is not None and energy_j < BELOW_IDLE * idle_w * (end_s - start_s):
            yield last, {"energy_j": energy_j, "lasted_s": end_s - start_s, "idle_w": idle_w}


def _limit_w(counter: CounterReadings, measurement: Measurement) -> float:
    most_w = MOST_W[counter.component]
    if counter.component != "gpu":
        return most_w
    parts = [p for _, _, i in intervals(measurement) for p in i.energy]
    if any(p.whole_module for p in parts if p.device == counter.device):
        return most_w
    known = [number(g, "power_limit_w") for g in _of(measurement.host.gpus, counter.device)]
    return min([most_w, *(ABOVE_LIMIT * limit_w for limit_w in known if limit_w)])


def _of(gpus: Sequence[Mapping], device: str) -> Iterator[Mapping]:
    return (gpu for gpu in gpus if gpu.get("uuid") == device)


def _idle_w(counter: CounterReadings, measurement: Measurement) -> float:
    """Return the lowest idle power of a device, 0 where no baseline tells."""
    known = [powers_w(one, counter.component, "measured") for one in measurement.baselines]
    return min(
        (idle_w[counter.device] for idle_w in known if counter.device in idle_w), default=0.0
    )


def _tick_s(measurement: Measurement, device: str) -> float:
    ticks_s = measurement.meter.counter_tick_s if measurement.meter else {}
    return ticks_s.get(device) or GPU_TICK_S


def _workload_at(measurement: Measurement, time_s: float) -> str | None:
    """Return the workload of whose window or hot idle a reading is, None where it is of none."""
    for _, workload, one in intervals(measurement):
        if workload is not None and one.start_s < time_s <= one.end_s + SLOW_READ_S:
            return workload
    return None
