"""Say how well an energy is known: from one window's counters, and over the repeats of a cell.

The terms are those of the Guide to the expression of uncertainty in measurement, JCGM 100:2008
(https://www.bipm.org/documents/20126/2071204/JCGM_100_2008_E.pdf). ``docs/uncertainty.md`` has the
formulae, and ``tests/benchmarks/coverage.py`` shows how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_energy.analysis.energy.warm_idle import (
    Part,
    by_temperature_w,
    mean_w,
    slopes_w_per_c,
    warm_idle,
)
from llm_energy.analysis.statistics.intervals import (
    combined,
    effective_degrees_of_freedom,
    serial_guard,
    widest,
)
from llm_energy.records import Interval, Statistic

# Where the meter could not measure it: the period that Yang, Adamek and Armour (SC'24,
# arXiv:2312.02741) find for the power sensor of A100 and H100, and A. Jung et al. (ML.ENERGY blog,
# 2026-03-09) for the energy counter.
GPU_TICK_S = 0.1
# Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, on RAPL's interfaces.
RAPL_TICK_S = 0.001
# The GPU's own sensor is off by a factor that differs from GPU to GPU, by about 5 % (the same
# paper). Taken as a standard uncertainty, which is the cautious reading of a plain "5 %".
SENSOR_RELATIVE = 0.05
SENSOR_ASSUMED = "the sensors of CPU and memory were taken to be as true as a GPU's, to 5 %"


@dataclass(frozen=True)
class Budget:
    """What its counters leave open about the energy of one window, in J.

    ``gross_j`` and ``net_j`` are standard uncertainties, ``lag_j`` is by how much the counters are
    expected to show too little. ``drift_w`` is the loaded-idle power after minus before, less
    what temperature explains, ``excess_w`` what the loaded engine is expected to draw more when it
    waits at the window's temperature than what is subtracted. That is ``idle_w`` where the window
    has a hot idle, else the mean of the baselines, and ``idle_w`` is None.
    """

    gross_j: float
    net_j: float | None
    lag_j: float
    drift_w: float | None
    excess_w: float | None
    assumptions: tuple[str, ...]
    idle_w: float | None = None


def window_budget(
    window: Interval,
    baselines: Sequence[Interval],
    parts: Iterable[Part],
    measured_ticks_s: Mapping[str, float | None],
    hot_idle: Interval | None = None,
) -> Budget:
    """Return the uncertainty of the measured ``parts`` of a window.

    ``baselines`` are the loaded-idle intervals before and after, as far as there are any, and
    ``hot_idle`` is the one right after the window; ``measured_ticks_s`` is by device. The GPUs idle
    for a tick or longer before each interval.
    """
    parts = sorted(parts, key=str)
    ticks_s, assumptions = _ticks(parts, measured_ticks_s)
    inside_w = _powers_w(window, parts)
    idles_w = [_powers_w(baseline, parts) for baseline in baselines]
    if not baselines:
        assumptions.append("without a loaded-idle baseline, nothing was drawn before the window")
    before_w = {part: mean_w(idles_w, part) if idles_w else 0.0 for part in parts}
    variance_j2 = tick_variance_j2(before_w, inside_w, ticks_s)
    lag_j = math.fsum((inside_w[p] - before_w[p]) * ticks_s[p] / 2 for p in parts)
    net_j = drift_w = excess_w = idle_w = None
    if baselines:
        weights = dict.fromkeys(parts, 0.0)  # of the hot idle
        hot_w = _powers_w(hot_idle, parts) if hot_idle else {}
        slopes = slopes_w_per_c(baselines, idles_w, hot_idle, hot_w)
        excess_w, warmed_w, assumed = by_temperature_w(window, baselines, slopes)
        if hot_idle:
            warm = warm_idle(window, baselines, idles_w, hot_idle, hot_w, slopes)
            idle_w, excess_w, weights = warm.power_w, warm.excess_w, warm.weights
            assumed = warm.assumptions
        assumptions += assumed
        points = [
            (baseline, idle, [(1 - weights[p]) / len(baselines) for p in parts])
            for baseline, idle in zip(baselines, idles_w, strict=True)
        ]
        points += [(hot_idle, hot_w, [weights[p] for p in parts])] if hot_idle else []
        idle_w2 = math.fsum(
            share**2 * tick_variance_j2(idle, idle, {part: ticks_s[part]}) / one.duration_s**2
            for one, idle, shares in points
            for part, share in zip(parts, shares, strict=True)
        )
        if len(baselines) == 2:
            first_w, last_w = (math.fsum(idle.values()) for idle in idles_w)
            drift_w = last_w - first_w - warmed_w
            idle_w2 += drift_standard(drift_w) ** 2
        else:
            assumptions.append("with one loaded-idle baseline, the idle power did not drift")
        net_j = math.sqrt(variance_j2 + window.duration_s**2 * idle_w2)
    gross_j = math.sqrt(variance_j2)
    return Budget(gross_j, net_j, lag_j, drift_w, excess_w, tuple(assumptions), idle_w)


def tick_variance_j2(
    before_w: Mapping[Part, float], inside_w: Mapping[Part, float], ticks_s: Mapping[Part, float]
) -> float:
    """Return the variance of a difference of two readings of ticking counters, in J^2.

    A reading shows the energy at the last tick, which lies anywhere in the tick before it: the
    reading at the start lacks up to a tick at the power before the interval, the one at the end up
    to a tick at the power inside, each with a uniform distribution, whose variance is a twelfth of
    its squared width (JCGM 100:2008, 4.3.7). At one power this is (P tick)^2 / 6.
    """
    return math.fsum(
        (before_w[part] ** 2 + inside_w[part] ** 2) * tick_s**2 / 12
        for part, tick_s in ticks_s.items()
    )


def drift_standard(drift: float) -> float:
    """Return the standard uncertainty from a drift between two baselines whose mean is subtracted.

    What held during the window lies anywhere between the two, half the drift from their mean at
    most (uniform: JCGM 100:2008, 4.3.7).
    """
    return abs(drift) / 2 / math.sqrt(3)


def without_drift(standard: float, drift: float) -> float:
    """Take the part of a drift out of a combined standard uncertainty that it is in."""
    return math.sqrt(max(0.0, standard**2 - drift_standard(drift) ** 2))


def with_intervals(
    statistic: Statistic,
    *,
    window: float | None = None,
    drift: float = 0.0,
    bias: float = 0.0,
    sensor_relative: float | None = None,
) -> Statistic:
    """Put the intervals of a mean of energies over repeats, all in the unit of the mean.

    ``window`` is the standard uncertainty of one repeat's value, its drift aside. It stands for a
    single repeat. The ticks of several scatter with all else that differs between them, so they are
    in the standard deviation and not added to it. What the repeats share does not average out:
    ``drift`` is a standard uncertainty, ``bias`` by how much the mean is expected to be off.
    With ``sensor_relative`` there is an absolute interval as well.
    """
    n, mean = statistic.n, statistic.mean
    if statistic.standard_uncertainty is not None:  # of several sessions or machines
        own = (statistic.standard_uncertainty, statistic.degrees_of_freedom)
    elif n >= 2 and (window is None or not _scatter_too_little(statistic, window)):
        own = (serial_guard(n) * statistic.sd / math.sqrt(n), n - 1.0)
    elif n >= 1 and window is not None:
        own = (window / math.sqrt(n), math.inf)
    else:
        return statistic
    terms = [own, (drift, math.inf)] if drift else [own]
    half = widest(terms, bias)
    degrees = effective_degrees_of_freedom(terms)
    found = {
        "ci_low": mean - half,
        "ci_high": mean + half,
        "standard_uncertainty": combined(terms),
        "degrees_of_freedom": degrees if math.isfinite(degrees) else None,
    }
    if sensor_relative is not None:
        half = widest([*terms, (sensor_relative * mean, math.inf)], bias)
        found |= {"absolute_ci_low": mean - half, "absolute_ci_high": mean + half}
    return replace(statistic, **found)


def _scatter_too_little(statistic: Statistic, window: float) -> bool:
    """Tell repeats whose ticks are locked to their windows, so that they hide in no scatter.

    They scatter less than the ticks of independent repeats would in 39 of 40 cases (one-sided
    chi-square test of the variance).
    """
    from scipy.special import chdtr

    degrees = statistic.n - 1
    return window > 0 and chdtr(degrees, degrees * (statistic.sd / window) ** 2) < 0.025


def _powers_w(interval: Interval, parts: Iterable[Part]) -> dict[Part, float]:
    joules = {(c.component, c.device): c.energy_j for c in interval.energy}
    return {part: joules[part] / interval.duration_s for part in parts}


def _ticks(
    parts: Iterable[Part], measured_s: Mapping[str, float | None]
) -> tuple[dict[Part, float], list[str]]:
    ticks_s, assumptions = {}, []
    for component, device in parts:
        tick_s = measured_s.get(device or "")
        if tick_s is None:
            tick_s = GPU_TICK_S if component == "gpu" else RAPL_TICK_S
            assumptions.append(
                f"the {component} counter ticks every {tick_s * 1e3:g} ms (not measured)"
            )
        ticks_s[component, device] = tick_s
    if any(component != "gpu" for component, _ in ticks_s):
        assumptions.append(SENSOR_ASSUMED)
    return ticks_s, list(dict.fromkeys(assumptions))
