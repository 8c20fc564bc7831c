"""Checks of the power trace, which is a second sensor of the GPUs: is it whole, does it agree."""

from __future__ import annotations

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.checks.energy.counters import RECOMMENDED_WINDOW_S, tick_s
from llm_energy.analysis.energy.accounting import baseline, powers_w
from llm_energy.analysis.evidence.windows import WindowEvidence
from llm_energy.records import Interval, TraceSummary

# A counter and a sampled power that agree do so within 1 or 2 %
# (https://github.com/ml-energy/zeus/issues/12), a disturbed counter is off by far more
# (https://github.com/ml-energy/zeus/issues/181).
SENSORS_DIFFER, SENSORS_CONTRADICT = 0.05, 0.2
# More than three periods without a sample: the sampler was kept waiting. The integral suffers
# little from that as long as no gap is long and half of the samples are there.
GAP_PERIODS, LONG_GAP_S, LEAST_COVERAGE = 3, 1.0, 0.5


@check(
    "M04",
    "window",
    "warning",
    "two sensors disagree",
    "Run scripts/doctor.py: its self-test tells whether sampling disturbs the counter. Bursts that "
    "repeat as often as the power sensor looks (every 0.1 s on an H200) are missed by the trace; "
    "then the counter is right.",
)
def sensors_disagree(case: WindowEvidence) -> Finding | None:
    """Hold each GPU's counter against the integral of its power trace.

    Over 5 % is a warning and over 20 % invalid; in a window below 30 s, beyond what a tick and a
    sample at its edges are worth, else a note. A trace with gaps is no second sensor.
    """
    interval = case.window.interval
    ratios = {
        device: ratio
        for device, ratio in _integral_over_counter(case, interval).items()
        if abs(ratio - 1) > SENSORS_DIFFER
    }
    if not ratios:
        return None
    evidence = {"integral_over_counter": ratios, "duration_s": interval.duration_s}
    beyond = max(abs(ratio - 1) for ratio in ratios.values())
    if interval.duration_s < RECOMMENDED_WINDOW_S:
        period_s = case.measurement.spec.meter.sampling_period_s or 0.0
        beyond -= (tick_s(case) + period_s) / interval.duration_s
    if not beyond > SENSORS_DIFFER:
        return Finding(evidence, "note")
    severity = "invalid" if beyond > SENSORS_CONTRADICT else "warning"
    return Finding(evidence, severity, 100 * max(abs(ratio - 1) for ratio in ratios.values()))


@check(
    "M05",
    "window",
    "warning",
    "counter falls short while power is sampled",
    "Compare with meter.sampling_period_s: null, or run the self-test of scripts/doctor.py.",
)
def disturbed_counter(case: WindowEvidence) -> Finding | None:
    """Find a counter that misses energy of the idle GPU, whose steady power sampling gets right.

    That is how a counter looks that is disturbed by the sampler's readings.
    """
    idle = baseline(case.measurement, "deep_idle")
    if idle is None or not idle.duration_s > 0:
        return None
    allowed = 1 + SENSORS_DIFFER + tick_s(case) / idle.duration_s
    metered = powers_w(case.window.interval, "gpu", "measured")
    short = {
        device: ratio
        for device, ratio in _integral_over_counter(case, idle).items()
        if ratio > allowed and device in metered
    }
    return Finding({"idle_integral_over_counter": short}) if short else None


@check(
    "M18",
    "window",
    "warning",
    "power trace missing or with gaps",
    "The sampler was kept from its work: leave it a processor, or see why it has ended.",
)
def starved_sampler(case: WindowEvidence) -> Finding | None:
    """Find GPUs without samples, and gaps of more than three periods between samples.

    A single gap below one second is a note.
    """
    report, period_s = case.measurement.meter, case.measurement.spec.meter.sampling_period_s
    if report is None or period_s is None:
        return None
    counted = [e for e in case.window.interval.energy if e.method.startswith("nvml")]
    sampled = {s.device: s for s in case.window.interval.trace if s.samples}
    if missing := sorted({str(e.device) for e in counted} - set(sampled)):
        return Finding({"boards": missing, "reason": report.trace_reason})
    gaps = {
        device: {"samples": s.samples, "longest_gap_s": s.longest_gap_s}
        for device, s in sampled.items()
        if s.longest_gap_s is not None and s.longest_gap_s > GAP_PERIODS * period_s
    }
    if not gaps:
        return None
    starved = any(_starved(case, case.window.interval, sampled[device]) for device in gaps)
    return Finding({"boards": gaps, "period_s": period_s}, "warning" if starved else "note")


def _integral_over_counter(case: WindowEvidence, interval: Interval) -> dict[str, float]:
    """Return the ratio of a GPU's two sensors, for GPUs that have both throughout.

    One whose counter is that of a whole module has not: what is sampled is the power of the GPU.
    """
    powers = powers_w(interval, "gpu", "measured")
    modules = {part.device for part in interval.energy if part.whole_module}
    return {
        s.device: s.energy_j / (powers[s.device] * interval.duration_s)
        for s in interval.trace
        if s.energy_j is not None
        and s.device in powers.keys() - modules
        and not _starved(case, interval, s)
    }


def _starved(case: WindowEvidence, interval: Interval, summary: TraceSummary) -> bool:
    """Return whether so many samples are missing that their integral says little."""
    period_s = case.measurement.spec.meter.sampling_period_s
    if period_s is None or summary.longest_gap_s is None:
        return True
    long_gap = summary.longest_gap_s > max(LONG_GAP_S, GAP_PERIODS * period_s)
    return long_gap or summary.samples * period_s < LEAST_COVERAGE * interval.duration_s
