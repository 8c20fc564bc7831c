"""Checks of the GPUs: were they ours alone, cool, and set up as they come."""

from __future__ import annotations

from collections.abc import Container, Iterator

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.energy.accounting import baseline, powers_w
from llm_energy.analysis.evidence.windows import WindowEvidence, number
from llm_energy.records import Interval

IDLE_UTILIZATION_PERCENT = 5.0
# The driver's causes for low clocks (nvmlPerfPolicyType_t): heat and a weak supply are faults; the
# power limit, GPU limits and the like are how a GPU works at full load.
FAULTY_CAUSES = ("thermal", "sw_thermal", "hw_thermal", "power_brake")
NORMAL_CAUSES = ("power", "board_limit", "reliability", "sync_boost")
THROTTLED, MUCH_THROTTLED = 0.01, 0.05
# The same as bits of nvmlClocksEventReasons, where the driver does not count their time.
FAULTY_REASONS = {
    0x8: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "power_brake",
}
CLOCKS_SET_REASON = 0x2
LIMIT_TOLERANCE_W = 0.5
TEMPERATURE_RISE_C = 10.0
STEEPEST_W_PER_C = 1.33  # of the idle power of an H100, in the sweeps of docs/measurements


@check(
    "H01",
    "window",
    "invalid",
    "other processes on the GPU",
    "End them, or measure on a GPU of your own: no sensor tells whose joules they are.",
)
def other_processes(case: WindowEvidence) -> Finding | None:
    """Find foreign processes on a metered GPU, or work on it before anything was loaded.

    Processes that were there while idling alone are a warning: they bear on the net energy only.
    So is a display that was there from the beginning, as its power is in the idle power too.
    """
    metered = powers_w(case.window.interval, "gpu", "measured")
    if found := _foreign(metered, case.window.interval):
        return Finding({"processes": found})
    deep = baseline(case.measurement, "deep_idle")
    drawing = _drawing(metered, case.window.interval)
    before = _drawing(metered, deep) if deep else {}
    if any(set(ids) - set(before.get(device, ())) for device, ids in drawing.items()):
        return Finding({"graphics_processes": drawing, "before_load": before})
    busy = {
        s.device: s.utilization_percent
        for s in (deep.trace if deep else ())
        if s.device in metered and (s.utilization_percent or 0) > IDLE_UTILIZATION_PERCENT
    }
    if busy:
        return Finding({"utilization_percent_before_load": busy})
    hot = (case.window.hot_idle,) if case.window.hot_idle else ()
    idles = (*case.measurement.baselines, *hot)
    idling = {i.name: found for i in idles if (found := _foreign(metered, i))}
    if idling:
        return Finding({"processes_while_idle": idling}, "warning")
    return Finding({"graphics_processes": drawing}, "warning") if drawing else None


@check(
    "H02",
    "window",
    "warning",
    "throttled by heat or power brake",
    "Cool the GPU or see its power supply; nvidia-smi -q -d PERFORMANCE names the cause.",
)
def throttled(case: WindowEvidence) -> Finding | None:
    """Find a GPU held down by a fault for over 1 % of the window; over 5 % is invalid."""
    shares = {
        device: {cause: shares[cause] for cause in FAULTY_CAUSES if cause in shares}
        for device, shares in _throttled_shares(case)
    }
    worst = max((share for causes in shares.values() for share in causes.values()), default=0.0)
    if worst > THROTTLED:
        return Finding({"share_of_window": shares}, "invalid" if worst > MUCH_THROTTLED else None)
    seen = {
        s.device: [name for bit, name in FAULTY_REASONS.items() if s.clock_event_reasons & bit]
        for s in case.window.interval.trace
        if s.clock_event_reasons is not None and not shares.get(s.device)
    }
    seen = {device: names for device, names in seen.items() if names}
    return Finding({"seen_in_samples": seen}) if seen else None


@check(
    "H03",
    "window",
    "warning",
    "power limit is not the default",
    "Set it back (nvidia-smi -pl), or say so: joules at another limit are another condition.",
)
def other_power_limit(case: WindowEvidence) -> Finding | None:
    """Find a power limit other than the default; one that changed in the repeat is invalid."""
    intervals = (*case.measurement.baselines, case.window.interval)
    metered = powers_w(case.window.interval, "gpu", "measured")
    capped = {}
    for gpu in case.measurement.host.gpus:
        device, default = gpu.get("uuid"), number(gpu, "default_power_limit_w")
        if device not in metered:
            continue
        gpus = [b for i in intervals for b in i.boards if b.device == device]
        limits = [limit for b in gpus for limit in b.power_limit_w if limit is not None]
        if limits and max(limits) - min(limits) > LIMIT_TOLERANCE_W:
            return Finding({"board": device, "limits_w": sorted(set(limits))}, "invalid")
        limit = limits[-1] if limits else number(gpu, "power_limit_w")
        if None not in (limit, default) and abs(limit - default) > LIMIT_TOLERANCE_W:
            capped[device] = {"limit_w": limit, "default_w": default}
    return Finding({"boards": capped}) if capped else None


@check(
    "H04",
    "window",
    "note",
    "clocks set by hand or held by a limit",
    "This is how the GPU is set up: give its clocks and power limit with the result.",
)
def held_clocks(case: WindowEvidence) -> Finding | None:
    """Find clocks that an operator has set, and the share of time at the power limit."""
    found = {}
    for device, shares in _throttled_shares(case):
        held = {c: shares[c] for c in NORMAL_CAUSES if shares.get(c, 0.0) > THROTTLED}
        if held:
            found[device] = held
    by_hand = [
        s.device
        for s in case.window.interval.trace
        if (s.clock_event_reasons or 0) & CLOCKS_SET_REASON
    ]
    if not found and not by_hand:
        return None
    return Finding({"share_of_window": found, "set_by_hand": by_hand})


@check(
    "H05",
    "window",
    "warning",
    "temperature rose in the window",
    "Use protocol.thermal_policy: sustained, which begins once the temperature has settled.",
)
def warming_gpu(case: WindowEvidence) -> Finding | None:
    """Find a GPU over 10 degrees warmer at the end; under a cool-down policy it is a note."""
    risen = {}
    for gpu in case.window.interval.boards:
        begin, end = gpu.temperature_c
        if None not in (begin, end) and end - begin > TEMPERATURE_RISE_C:
            risen[gpu.device] = {"begin_c": begin, "end_c": end}
    cool = case.measurement.spec.protocol.thermal_policy == "cooldown"
    if not risen:
        return None
    rise_c = max(gpu["end_c"] - gpu["begin_c"] for gpu in risen.values())
    bound_percent = _bias_of_rise_percent(case, rise_c)
    return Finding({"boards": risen}, "note" if cool else None, bound_percent)


@check(
    "H12",
    "window",
    "note",
    "processes of the GPU are hidden",
    "Other users of it cannot be seen: give the container the host's process ids (--pid=host).",
)
def hidden_processes(case: WindowEvidence) -> Finding | None:
    """Find a metered GPU whose list of processes this process may not see."""
    metered = powers_w(case.window.interval, "gpu", "measured")
    blind = [
        b.device
        for b in case.window.interval.boards
        if b.device in metered and b.foreign_processes is None
    ]
    return Finding({"boards": blind}) if blind else None


@check(
    "H14",
    "window",
    "warning",
    "temperature had not settled",
    "Raise protocol.thermal_max_wait_s, or choose another protocol.thermal_policy.",
)
def not_settled(case: WindowEvidence) -> Finding | None:
    """Find a window that began though its GPUs still warmed up or cooled down."""
    protocol, window = case.measurement.spec.protocol, case.window
    if protocol.thermal_policy != "sustained" or window.thermal_wait_s is None:
        return None
    slope = window.temperature_slope_c_per_10s
    if slope is None:
        # Without a slope there was no sensor, or no pass short enough to feel one in the time.
        gave_up = window.thermal_wait_s >= protocol.thermal_max_wait_s > 0
    else:
        gave_up = abs(slope) >= protocol.thermal_slope_c_per_10s
    if not gave_up:
        return None
    evidence = {"wait_s": window.thermal_wait_s, "slope_c_per_10s": slope}
    rise_c = None if slope is None else abs(slope) / 10 * window.interval.duration_s
    return Finding(evidence, bias_bound_percent=_bias_of_rise_percent(case, rise_c))


def _bias_of_rise_percent(case: WindowEvidence, rise_c: float | None) -> float | None:
    """Return by how much a GPU that gets so much warmer draws less than a settled one, in percent.

    A rise only slows down, so that the slope at the begin of a window bounds it.
    """
    powers_of_gpus_w = powers_w(case.window.interval, "gpu", "measured").values()
    if rise_c is None or not powers_of_gpus_w:
        return None
    return 100 * STEEPEST_W_PER_C * rise_c / min(powers_of_gpus_w)


def _foreign(metered: Container[str], interval: Interval) -> dict[str, list[int]]:
    """Return the foreign processes on the metered GPUs in an interval."""
    return {
        b.device: list(b.foreign_processes)
        for b in interval.boards
        if b.device in metered and b.foreign_processes
    }


def _drawing(metered: Container[str], interval: Interval) -> dict[str, list[int]]:
    """Return the foreign processes that only draw on the metered GPUs in an interval."""
    return {
        b.device: list(b.graphics_processes)
        for b in interval.boards
        if b.device in metered and b.graphics_processes
    }


def _throttled_shares(case: WindowEvidence) -> Iterator[tuple[str, dict[str, float]]]:
    """Return, by GPU and cause, the share of the window for which its clocks were held down.

    The counters move in steps, of which a window can hold one more than it is long.
    """
    interval = case.window.interval
    if interval.duration_s > 0:
        for gpu in interval.boards:
            shares = {c: min(s / interval.duration_s, 1.0) for c, s in gpu.throttled_s.items()}
            yield gpu.device, shares
