"""Checks of the counters: did they count, often enough, and each joule once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from llm_energy.analysis.checks.catalogue import Finding, check, differing_pairs
from llm_energy.analysis.energy.accounting import baseline, powers_w
from llm_energy.analysis.energy.uncertainty import GPU_TICK_S
from llm_energy.analysis.evidence.windows import WindowEvidence, WindowSummary
from llm_energy.records import Protocol
from llm_energy.records.registry.metrics import COMPONENTS

RECOMMENDED_WINDOW_S = Protocol().window_min_duration_s
TIME_TOLERANCE_S = 1e-3
# A counter of 65 kJ, the smallest range of RAPL, needs longer than this to wrap at 1 kW.
WRAPS_AFTER_S = 60.0
BELOW_IDLE = 0.9
# Twin counters are read one after the other. Those of RAPL move every millisecond, and may do so in
# between; those of GPUs move more rarely.
SAME_COUNTER, TWIN_TICKS_S = 1e-5, {"gpu": 0.0, "cpu": 2e-3, "dram": 2e-3}
# A clock is stepped, and not slewed, from 128 ms on (RFC 5905, STEPT).
CLOCK_STEP_S = 0.128

EXPLAINED = {
    "M16": "CodeCarbon's lock file of a crashed run turns its tracker off: no tracker is ever "
    "started, only its power models are asked, and those take no lock.",
    "M17": "CodeCarbon reads no GPU that is chosen by UUID: GPUs are read through NVML by UUID "
    "and never through CodeCarbon; a GPU that the engine uses and nobody metered is M06.",
    "M19": "PUE applied twice: no joule of a measurement holds a PUE, as no tracker with one is "
    "started; meter.pue enters once, in the columns of the facility's energy.",
}


@check(
    "M01",
    "window",
    "invalid",
    "counter reset or lost",
    "The driver was reloaded or the GPU reset: see the kernel log, then measure again.",
)
def lost_counter(case: WindowEvidence) -> Finding | None:
    """Find a GPU whose counter went backwards, or could be read in this repeat but not here."""
    uncounted = [
        part
        for part in case.window.interval.energy
        if (part.component, part.status) == ("gpu", "unavailable") and part.device is not None
    ]
    if not uncounted:
        return None
    measurement = case.measurement
    others = [*measurement.baselines, *(w.interval for w in measurement.windows if w.interval)]
    counted = {device for interval in others for device in powers_w(interval, "gpu", "measured")}
    lost = {p.device: p.reason for p in uncounted if p.device in counted or "backwards" in p.reason}
    return Finding({"reasons": lost}) if lost else None


@check(
    "M02",
    "window",
    "invalid",
    "stuck counter",
    "This GPU's counter does not count; look for a newer driver, or measure on another GPU.",
)
def stuck_counter(case: WindowEvidence) -> Finding | None:
    """Find a GPU whose counter did not move in the window, or hardly ever moves."""
    interval, report = case.window.interval, case.measurement.meter
    ticks = report.counter_tick_s if report else {}
    stuck, slow = [], []
    for part in interval.energy:
        if (part.component, part.status) != ("gpu", "measured"):
            continue
        if part.energy_j == 0 and interval.duration_s > 2 * tick_s(case):
            stuck.append(part.device)
        elif part.device in ticks and ticks[part.device] is None:
            slow.append(part.device)
    if stuck:
        return Finding({"boards": stuck, "duration_s": interval.duration_s})
    return Finding({"boards_without_tick": slow}, "warning") if slow else None


@check(
    "M03",
    "window",
    "note",
    "short window",
    "Raise protocol.window_min_duration_s; 30 s keeps the error of a GPU's counter below 0.4 %.",
)
def short_window(case: WindowEvidence) -> Finding | None:
    """Find a window too short for the counter's tick: over 2 % is a warning, over 10 % invalid."""
    duration_s = case.window.interval.duration_s
    if not duration_s > 0:
        return None
    evidence = {"duration_s": duration_s, "recommended_s": RECOMMENDED_WINDOW_S}
    error = 0.0
    if any((e.component, e.status) == ("gpu", "measured") for e in case.window.interval.energy):
        error = tick_s(case) / duration_s
        evidence |= {"counter_tick_s": tick_s(case), "worst_relative_error": error}
    if error > 0.02:
        return Finding(evidence, "invalid" if error > 0.1 else "warning", 100 * error)
    return Finding(evidence) if duration_s < RECOMMENDED_WINDOW_S else None


@check(
    "M08",
    "window",
    "warning",
    "shared GPU",
    "Measure on a whole board: no sensor parts a board's energy among its instances.",
)
def shared_gpu(case: WindowEvidence) -> Finding | None:
    """Find a GPU under MIG, a virtual one, or a part of a card with one counter.

    Without its energy the window is invalid.
    """
    mig = {b.get("uuid") for b in case.measurement.host.gpus if b.get("mig_mode") is True}
    shared, counted = {}, True
    for part in case.window.interval.energy:
        if part.component != "gpu" or part.device is None:
            continue
        if part.device in mig or part.method.endswith("_mig"):
            shared[part.device] = "mig"
        elif part.method.endswith("_whole_card"):
            shared[part.device] = "card"
        elif part.method.endswith("_vgpu") or "is virtual" in (part.reason or ""):
            shared[part.device] = "vgpu"
        counted = counted and (part.device not in shared or part.energy_j is not None)
    return Finding({"boards": shared}, None if counted else "invalid") if shared else None


@check(
    "M25",
    "window",
    "note",
    "counter of a whole module",
    "Say so with the result: these joules hold CPU and memory too, those of other GPUs do not.",
)
def module_counter(case: WindowEvidence) -> Finding | None:
    """Find a GPU that is joined to its CPU in one module, as in GH200 and GB200: one counter."""
    modules = [str(part.device) for part in case.window.interval.energy if part.whole_module]
    return Finding({"boards": modules}) if modules else None


@check(
    "M13",
    "window",
    "invalid",
    "CPU counter wrapped unnoticed or given up",
    "The reason names the zone's own limit. The meter reads counters every few seconds from a "
    "process of its own: see why that has ended, or keep windows below the limit (a minute for a "
    "counter of 65 kJ, four for one of 262 kJ).",
)
def missed_wrap(case: WindowEvidence) -> Finding | None:
    """Find a zone below its own idle power in a window long enough for its counter to wrap.

    A zone that counted elsewhere in this repeat and not here is a warning: the sum lacks it, or an
    estimate stands in for it.
    """
    interval, measurement = case.window.interval, case.measurement
    others = [*measurement.baselines, *(w.interval for w in measurement.windows if w.interval)]
    for component in ("cpu", "dram"):
        powers = powers_w(interval, component, "measured")
        idle = powers_w(baseline(measurement, "loaded_idle_before"), component, "measured")
        low = {
            device: {"power_w": power_w, "idle_power_w": idle[device]}
            for device, power_w in powers.items()
            if power_w < BELOW_IDLE * idle.get(device, 0.0)
        }
        if low and interval.duration_s > WRAPS_AFTER_S:
            return Finding({"zones": low, "duration_s": interval.duration_s})
        counted = {device for i in others for device in powers_w(i, component, "measured")}
        here = {str(p.device) for p in interval.energy if p.status == "measured"}
        if lost := sorted(counted - here):
            told = [p.reason for p in interval.energy if p.component == component and p.reason]
            evidence = {"zones": lost, "reasons": told, "duration_s": interval.duration_s}
            return Finding(evidence, "warning")
    return None


@check(
    "M14",
    "window",
    "invalid",
    "energy counted twice",
    "Two devices show one counter: see the zones below /sys/class/powercap, or the GPUs that are "
    "parts of one card.",
)
def doubled_counter(case: WindowEvidence) -> Finding | None:
    """Find a device that is listed twice, a platform zone beside its package, and twin counters.

    Twins are zones or GPUs whose joules are equal in every interval of the repeat; those of zones
    may lie two ticks of 1 ms apart.
    """
    interval = case.window.interval
    counted = [p for p in interval.energy if p.status == "measured"]
    names = [f"{p.component} {p.device}" for p in counted]
    doubled = sorted({name for name in names if names.count(name) > 1})
    zones = {str(p.device) for p in counted if p.component == "cpu"}
    platform = sorted(zone for zone in zones if zone.startswith("psys"))
    if platform and len(zones) > len(platform):
        doubled += platform
    intervals = (*case.measurement.baselines, interval)
    for component in COMPONENTS:
        powers = [(powers_w(i, component, "measured"), i.duration_s) for i in intervals]
        powers = [(p, duration_s) for p, duration_s in powers if len(p) > 1]
        if len(powers) > 1:
            for a, b in combinations(sorted(set.intersection(*(set(p) for p, _ in powers))), 2):
                if all(
                    abs(p[a] - p[b]) <= (SAME_COUNTER + TWIN_TICKS_S[component] / duration_s) * p[a]
                    for p, duration_s in powers
                ):
                    doubled.append(f"{component} {a} = {b}")
    return Finding({"zones": doubled}) if doubled else None


@check(
    "M24",
    "sweep",
    "warning",
    "joules known by unequal means",
    "Rows of two kinds of joules are no comparison: measure with the same sensors in all repeats.",
)
def unequal_methods(summaries: Sequence[WindowSummary]) -> Iterator[tuple[WindowSummary, Finding]]:
    """Find a component that is measured in one window and estimated in another, or otherwise.

    The parameters of an estimate count too, such as the power that a model takes for this CPU.
    """
    if differing := differing_pairs(summaries, lambda summary: summary.methods):
        for summary in summaries:
            yield summary, Finding({"methods": differing})


@check(
    "M20",
    "window",
    "invalid",
    "times outside the window",
    "The engine's times must come from the monotonic clock that the meter uses.",
)
def times_outside(case: WindowEvidence) -> Finding | None:
    """Find requests that were not served between the edges of their window, in that order.

    A step of the wall clock in the window is a warning: no time here is taken from it, but a
    machine that was suspended shows in the same way.
    """
    interval, table = case.window.interval, case.window.requests
    if not 0 < interval.duration_s < float("inf"):
        return Finding({"duration_s": interval.duration_s})
    begin_s, end_s = interval.start_s - TIME_TOLERANCE_S, interval.end_s + TIME_TOLERANCE_S
    if case.window.traffic is not None:  # requests reach over its edges, each in its own order
        begin_s, end_s = -math.inf, math.inf
    outside = []
    times = (table.arrival_s, table.first_token_s, table.last_token_s)
    for name, arrival_s, first_s, last_s in zip(table.request_id, *times, strict=True):
        first_s = arrival_s if first_s is None else first_s
        last_s = first_s if last_s is None else last_s
        if not begin_s <= arrival_s <= first_s <= last_s <= end_s:
            outside.append(name)
    if outside:
        evidence = {"requests": outside[:5], "count": len(outside), "of": len(table.request_id)}
        return Finding(evidence)
    step_s = interval.host.wall_clock_step_s if interval.host else None
    if step_s is not None and abs(step_s) > CLOCK_STEP_S:
        return Finding({"wall_clock_step_s": step_s}, "warning")
    return None


def tick_s(case: WindowEvidence) -> float:
    """Return the slowest measured tick of the metered GPUs' counters, else the usual one."""
    report = case.measurement.meter
    ticks = report.counter_tick_s if report else {}
    devices = [e.device for e in case.window.interval.energy if e.component == "gpu"]
    return max((t for d in devices if (t := ticks.get(d))), default=GPU_TICK_S)
