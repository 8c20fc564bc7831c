"""Checks of the joules: can they be, whose are they, and what do they leave out."""

from __future__ import annotations

import math

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.checks.energy.counters import tick_s
from llm_energy.analysis.energy.accounting import (
    LOADED_IDLE,
    STATUSES,
    baseline,
    nearest_idle_w,
    powers_w,
    sums,
)
from llm_energy.analysis.energy.warm_idle import IDLE_SLOPE_W_PER_C, temperatures_c
from llm_energy.analysis.evidence.windows import WindowEvidence, mapping, number

# No GPU, CPU package or memory draws less while it runs, or more (1.4 kW is the most that a GPU is
# built for so far; an estimate is of all sockets at once). A slip by a factor of a thousand, or
# one between J and kWh, leaves these bounds.
PLAUSIBLE_W = {"gpu": (1.0, 5e3), "cpu": (0.1, 1e4), "dram": (0.05, 1e3)}
# A GPU with work to do is not below what it draws without any, nor above its limit; sensors are
# good to 5 % (Yang, Adamek and Armour, SC'24, arXiv:2312.02741).
BELOW_IDLE, ABOVE_LIMIT = 0.9, 1.05
WORKING, NOT_WORKING, NOT_WORKING_PERCENT = 1.3, 1.05, 5.0
BASELINE_DRIFT = 0.05


@check(
    "M06",
    "window",
    "invalid",
    "not the engine's GPUs",
    "Let the meter see the GPUs that the engine uses (NVML, CUDA_VISIBLE_DEVICES).",
)
def other_gpu(case: WindowEvidence) -> Finding | None:
    """Find GPUs that the engine uses and nobody metered, and metered ones that hold no model.

    A GPU holds none if its memory did not grow while the model was loaded, or, where that is not
    known, if this process is not among those on it.
    """
    interval, load = case.window.interval, case.measurement.load
    metered = {e.device for e in interval.energy if e.component == "gpu" and e.energy_j is not None}
    if missing := sorted((_used_gpus(case) or frozenset()) - metered):
        return Finding({"not_metered": missing, "metered": sorted(map(str, metered))})
    grown = {b.device: _growth(b.memory_used_bytes) for b in load.boards} if load else {}
    empty = {}
    for gpu in interval.boards:
        growth = grown.get(gpu.device)
        unseen = gpu.own_process_seen is False if growth is None else growth <= 0
        if gpu.device in metered and unseen and gpu.own_process_seen is not True:
            empty[gpu.device] = {"memory_growth_bytes": growth, "process_seen": False}
    return Finding({"without_model": empty}) if empty else None


@check(
    "M07",
    "window",
    "invalid",
    "GPUs in the sum that did not work",
    "Sum the GPUs that the engine reports and no other; hide the rest from it.",
)
def idle_gpu(case: WindowEvidence) -> Finding | None:
    """Find metered GPUs beyond the engine's own, and one that idles while another works.

    A GPU idles with a utilisation below 5 %, or, without a trace, at its loaded-idle power.
    """
    interval, used = case.window.interval, _used_gpus(case)
    powers = powers_w(interval, "gpu", "measured")
    if used is not None and (strange := sorted(set(powers) - used)):
        return Finding({"not_used": strange, "used": sorted(used)})
    asked = number(mapping(case.workload.parameters, "sharding"), "num_devices")
    if used is None and powers and asked is not None and len(powers) != asked:
        return Finding({"metered": sorted(powers), "asked_for": asked})
    idle = powers_w(baseline(case.measurement, "loaded_idle_before"), "gpu", "measured")
    if not any(powers[d] > WORKING * idle[d] for d in powers if d in idle):
        return None
    busy = {s.device: s.utilization_percent for s in interval.trace}
    idling = {
        device: {
            "power_w": power_w,
            "idle_power_w": idle[device],
            "utilization_percent": busy.get(device),
        }
        for device, power_w in powers.items()
        if device in idle and _idles(power_w / idle[device], busy.get(device))
    }
    return Finding({"idle": idling}) if idling else None


@check(
    "M09",
    "window",
    "invalid",
    "energy that cannot be",
    "Look at the sensor and at what else the host did; measure this repeat again.",
)
def impossible_energy(case: WindowEvidence) -> Finding | None:
    """Find joules that are missing, not finite, not positive, or fewer than idling would use.

    Idling is what was metered nearest in time: the window's hot idle, or else the baseline before
    or after all windows, since idle power drifts. A negative net is invalid where both powers are
    measured. Where a model estimates them it says that the model does not see the load, which is a
    note. An engine that mostly waits for timed traffic draws hardly more than idling does, so there
    the two may differ by the idle power's own drift.
    """
    mostly_waits = case.window.traffic is not None
    interval = case.window.interval
    wrong = {}
    for part in (e for i in (*case.measurement.baselines, interval) for e in i.energy):
        if part.energy_j is not None and not 0 < part.energy_j < math.inf:
            wrong[f"{part.component} {part.device or ''}".strip()] = part.energy_j
    if wrong:
        return Finding({"energy_j": wrong})
    totals = sums(interval)
    if not totals:
        return Finding({"reason": "no component of this host could be metered or estimated"})
    negative = {}
    for status, total in totals.items():
        idle = nearest_idle_w(case.measurement, case.window, status)
        name, power_w = idle or (None, 0.0)
        share = 1 - BASELINE_DRIFT if mostly_waits else 1.0
        if total.energy_j < share * power_w * interval.duration_s:
            negative[status] = {
                "gross_energy_j": total.energy_j,
                "idle": name,
                "loaded_idle_power_w": power_w,
                "net_energy_j": total.energy_j - power_w * interval.duration_s,
            }
    if negative:
        return Finding({"net": negative}, "invalid" if "measured" in negative else "note")
    return None


@check(
    "M10",
    "window",
    "invalid",
    "power outside idle and limit",
    "Look which GPU the counter belongs to, and at its power limit.",
)
def impossible_power(case: WindowEvidence) -> Finding | None:
    """Find a GPU whose mean power is below 0.9 of its deep idle or above 1.05 of its limit."""
    interval = case.window.interval
    powers = powers_w(interval, "gpu", "measured")
    if not powers:
        return None
    idle = powers_w(baseline(case.measurement, "deep_idle"), "gpu", "measured")
    limits = {b.get("uuid"): number(b, "power_limit_w") for b in case.measurement.host.gpus}
    for gpu in interval.boards:
        known = [limit for limit in gpu.power_limit_w if limit is not None]
        limits[gpu.device] = max(known, default=limits.get(gpu.device))
    for part in interval.energy:
        if part.whole_module:
            limits.pop(part.device, None)  # the limit is the GPU's
    unsure = 1 + tick_s(case) / interval.duration_s
    found = {
        device: {
            "power_w": power_w,
            "deep_idle_power_w": idle.get(device),
            "power_limit_w": limits.get(device),
        }
        for device, power_w in powers.items()
        if power_w * unsure < BELOW_IDLE * idle.get(device, 0.0)
        or power_w / unsure > ABOVE_LIMIT * (limits.get(device) or math.inf)
    }
    return Finding({"boards": found}) if found else None


@check(
    "M11",
    "window",
    "note",
    "estimated energy",
    "Every table labels it. Make a sensor readable (NVML, or RAPL below /sys/class/powercap).",
)
def estimated_energy(case: WindowEvidence) -> Finding | None:
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
def unavailable_component(case: WindowEvidence) -> Finding | None:
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
def counted_twice(case: WindowEvidence) -> Finding | None:
    """Find a component that is measured and estimated at once."""
    both = set.intersection(*(set(_by_status(case, status, "method")) for status in STATUSES))
    return Finding({"components": sorted(both)}) if both else None


@check(
    "M21",
    "window",
    "invalid",
    "joules of another unit",
    "Look for mJ, uJ or kWh taken for J in the sensor of this component.",
)
def other_unit(case: WindowEvidence) -> Finding | None:
    """Find a mean power that no such device has, by orders of magnitude."""
    slipped = {}
    for component, (low, high) in PLAUSIBLE_W.items():
        for status in STATUSES:
            for device, power_w in powers_w(case.window.interval, component, status).items():
                if not low <= power_w <= high:
                    slipped[f"{component} {device}"] = power_w
    return Finding({"power_w": slipped, "plausible_w": PLAUSIBLE_W}) if slipped else None


@check(
    "M22",
    "window",
    "note",
    "energy of the whole host",
    "CPU and memory joules include every process of the host: keep it otherwise idle.",
)
def whole_host(case: WindowEvidence) -> Finding | None:
    """Say which components count every process of the host, since no sensor tells them apart."""
    energies = case.window.interval.energy
    shared = {e.component for e in energies if e.component != "gpu" and e.energy_j is not None}
    return Finding({"components": sorted(shared)}) if shared else None


@check(
    "M23",
    "window",
    "warning",
    "idle power drifted",
    "The net energy is as unsure: rest longer before each repeat, or look for other work.",
)
def drifting_baseline(case: WindowEvidence) -> Finding | None:
    """Find a measured loaded-idle power that changes over the windows beyond what heat explains.

    Over 5 % is too much. A warmer GPU draws up to ``IDLE_SLOPE_W_PER_C`` more.
    """
    before, after = (baseline(case.measurement, name) for name in LOADED_IDLE)
    if before is None or after is None:
        return None
    totals = [sums(interval).get("measured") for interval in (before, after)]
    if None in totals or totals[0].parts != totals[1].parts:
        return None
    durations_s = (before.duration_s, after.duration_s)
    if not all(d > 0 for d in durations_s) or not totals[0].energy_j > 0:
        return None
    first_w, last_w = (t.energy_j / d for t, d in zip(totals, durations_s, strict=True))
    cool_c, warm_c = temperatures_c(before), temperatures_c(after)
    rise_c = math.fsum(warm_c[gpu] - cool_c[gpu] for gpu in cool_c.keys() & warm_c.keys())
    low_w, high_w = sorted((0.0, IDLE_SLOPE_W_PER_C * rise_c))
    change_w = last_w - first_w
    left_w = change_w - min(max(change_w, low_w), high_w)
    if not abs(left_w) > BASELINE_DRIFT * first_w:
        return None
    evidence = {"before_power_w": first_w, "after_power_w": last_w, "rise_c": rise_c}
    return Finding(evidence, bias_bound_percent=0.0)  # of gross; the interval of net holds it


def _used_gpus(case: WindowEvidence) -> frozenset[str] | None:
    """Return the GPUs that the engine reports, None where their names say nothing here.

    That is where it reports none at all, or instances (MIG), or where its names are not those of
    the sensor (AMD); the meter has matched these when it was told which GPUs to meter.
    """
    uuids = case.measurement.effective.get("device_uuids")
    if not isinstance(uuids, (list, tuple)) or not all(isinstance(u, str) for u in uuids):
        return None
    if any(uuid.startswith("MIG-") for uuid in uuids):
        return None
    if any(part.method.startswith("amdsmi") for part in case.window.interval.energy):
        return None
    return frozenset(u if u.startswith("GPU-") else f"GPU-{u}" for u in uuids)


def _idles(power_over_idle: float, utilization_percent: float | None) -> bool:
    if utilization_percent is None:
        return power_over_idle < NOT_WORKING
    return power_over_idle < WORKING and utilization_percent < NOT_WORKING_PERCENT


def _growth(memory_bytes: tuple[int | None, int | None]) -> int | None:
    begin, end = memory_bytes
    return None if begin is None or end is None else end - begin


def _by_status(case: WindowEvidence, status: str, attribute: str) -> dict[str, str]:
    energies = case.window.interval.energy
    return {e.component: getattr(e, attribute) for e in energies if e.status == status}
