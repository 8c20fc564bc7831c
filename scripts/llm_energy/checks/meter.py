"""Checks of the energy itself: is it a number, whose is it, and how well is it known."""

from __future__ import annotations

import math
from itertools import pairwise

from llm_energy.checks.accounting import STATUSES, loaded_idle_power_w, sums
from llm_energy.checks.catalogue import Case, Finding, check
from llm_energy.records import Protocol

# The NVML energy counter moves about every 100 ms (A. Jung et al., ML.ENERGY blog, 2026-03-09);
# a host's own tick is not known yet.
COUNTER_TICK_S = 0.1
RECOMMENDED_WINDOW_S = Protocol().window_min_duration_s
TIME_TOLERANCE_S = 1e-3


@check(
    "M03",
    "window",
    "note",
    "short window",
    "Raise protocol.window_min_duration_s; 30 s keeps the error of a GPU's counter below 0.4 %.",
)
def short_window(case: Case) -> Finding | None:
    """Find a window too short for the counter's tick: over 2 % is a warning, over 10 % invalid."""
    duration_s = case.window.interval.duration_s
    if not 0 < duration_s < RECOMMENDED_WINDOW_S:
        return None
    evidence = {"duration_s": duration_s, "recommended_s": RECOMMENDED_WINDOW_S}
    if all(e.component != "gpu" or e.status != "measured" for e in case.window.interval.energy):
        return Finding(evidence)
    error = COUNTER_TICK_S / duration_s
    evidence |= {"counter_tick_s": COUNTER_TICK_S, "worst_relative_error": error}
    return Finding(evidence, "invalid" if error > 0.1 else "warning" if error > 0.02 else "note")


@check(
    "M09",
    "window",
    "invalid",
    "energy that cannot be",
    "Look at the sensor and at what else the host did; measure this repeat again.",
)
def impossible_energy(case: Case) -> Finding | None:
    """Find joules that are missing, not finite, not positive, or fewer than idling would use.

    A negative net is invalid where both powers are measured. Where a model estimates them it says
    that the model does not see the load, which is a note.
    """
    interval = case.window.interval
    wrong = {}
    for part in (e for i in (*case.measurement.baselines, interval) for e in i.energy):
        if part.energy_j is not None and not 0 < part.energy_j < math.inf:
            wrong[f"{part.component} {part.device or ''}".strip()] = str(part.energy_j)
    if wrong:
        return Finding({"energy_j": wrong})
    totals = sums(interval)
    if not totals:
        return Finding({"reason": "no component of this host could be metered or estimated"})
    negative = {}
    for status, total in totals.items():
        power_w, _ = loaded_idle_power_w(case.measurement, status, total.parts)
        if power_w is not None and total.energy_j < power_w * interval.duration_s:
            negative[status] = {
                "gross_energy_j": total.energy_j,
                "loaded_idle_power_w": power_w,
                "net_energy_j": total.energy_j - power_w * interval.duration_s,
            }
    if negative:
        return Finding({"net": negative}, "invalid" if "measured" in negative else "note")
    return None


@check(
    "M11",
    "window",
    "note",
    "estimated energy",
    "Every table labels it. Make a sensor readable (NVML, or RAPL below /sys/class/powercap).",
)
def estimated_energy(case: Case) -> Finding | None:
    """Name the components whose joules come from a model and not from a sensor."""
    methods = _by_status(case, "estimated", "method")
    return Finding({"methods": methods}) if methods else None


@check(
    "M12",
    "window",
    "note",
    "component without energy",
    "The total leaves it out. The evidence says what the sensor lacks.",
)
def unavailable_component(case: Case) -> Finding | None:
    """Name the components that have neither a sensor nor an estimate."""
    reasons = _by_status(case, "unavailable", "reason")
    return Finding({"reasons": reasons}) if reasons else None


@check(
    "M15",
    "window",
    "warning",
    "component counted twice",
    "Turn one of the two off (meter.codecarbon), or use only the measured rows.",
)
def counted_twice(case: Case) -> Finding | None:
    """Find a component that is measured and estimated at once."""
    both = set.intersection(*(set(_by_status(case, status, "method")) for status in STATUSES))
    return Finding({"components": sorted(both)}) if both else None


@check(
    "M20",
    "window",
    "invalid",
    "times outside the window",
    "The engine's times must come from the monotonic clock that the meter uses.",
)
def times_outside(case: Case) -> Finding | None:
    """Find requests that were not served between the edges of their window, in that order."""
    interval, table = case.window.interval, case.window.requests
    if not 0 < interval.duration_s < math.inf:
        return Finding({"duration_s": str(interval.duration_s)})
    begin_s, end_s = interval.start_s - TIME_TOLERANCE_S, interval.end_s + TIME_TOLERANCE_S
    outside = []
    times = (table.arrival_s, table.first_token_s, table.last_token_s)
    for name, *times_s in zip(table.request_id, *times, strict=True):
        known = [begin_s, *(t for t in times_s if t is not None), end_s]
        if not all(a <= b for a, b in pairwise(known)):
            outside.append(name)
    if not outside:
        return None
    return Finding({"requests": outside[:5], "count": len(outside), "of": len(table.request_id)})


@check(
    "M22",
    "window",
    "note",
    "energy of the whole host",
    "CPU and memory joules include every process of the host: keep it otherwise idle.",
)
def whole_host(case: Case) -> Finding | None:
    """Say which components count every process of the host, since no sensor tells them apart."""
    energies = case.window.interval.energy
    shared = {e.component for e in energies if e.component != "gpu" and e.energy_j is not None}
    return Finding({"components": sorted(shared)}) if shared else None


def _by_status(case: Case, status: str, attribute: str) -> dict[str, str]:
    energies = case.window.interval.energy
    return {e.component: getattr(e, attribute) for e in energies if e.status == status}
