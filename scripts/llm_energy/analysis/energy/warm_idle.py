"""What the loaded engine draws while it waits, at the temperature that its GPUs have in a window.

A warmer GPU leaks more. The loaded-idle baselines are taken on cooler GPUs than the window, its hot
idle right after it on warmer ones; the line through both tells the power at the window's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_energy.records import Interval

Part = tuple[str, str | None]  # (component, device), as in ComponentEnergy
Powers = Mapping[Part, float]  # in W

# By which the idle power of an H100 rises with its temperature, between the baselines of the sweeps
# in docs/measurements: 0.66 (vLLM), 0.80 (PyTorch, eager) and 1.33 W per degC (compiled). An H200
# that cooled down after loads had 0.71, and 0.54 with two engines of vLLM on it.
IDLE_SLOPE_W_PER_C = 0.7
LEAST_RISE_C = 5.0  # between two points, that a slope may be taken from them
SLOPE_ASSUMED = f"the idle power of a GPU rises by {IDLE_SLOPE_W_PER_C:g} W per degC (not measured)"


@dataclass(frozen=True)
class WarmIdle:
    """The power of the waiting engine at the window's temperature, by the window's hot idle.

    ``excess_w`` is what it is expected to be above ``power_w``, where no slope was measured.
    ``weights`` are those of the hot idle beside the mean of the baselines, by part.
    """

    power_w: float
    excess_w: float
    weights: Mapping[Part, float]
    assumptions: tuple[str, ...]


def temperatures_c(interval: Interval) -> dict[str, float]:
    """Return the mean of the temperatures of each GPU at the two edges."""
    return {
        gpu.device: math.fsum(gpu.temperature_c) / 2
        for gpu in interval.boards
        if None not in gpu.temperature_c
    }


def mean_w(idles_w: Sequence[Powers], part: Part) -> float:
    """Return the mean power of one part over the baselines."""
    return math.fsum(idle_w[part] for idle_w in idles_w) / len(idles_w)


def slopes_w_per_c(
    baselines: Sequence[Interval],
    idles_w: Sequence[Powers],
    hot_idle: Interval | None = None,
    hot_w: Powers | None = None,
) -> dict[str, float | None]:
    """Return by how much the idle power of each GPU rises with its temperature.

    It is that between the baselines and the hot idle, or else between the two baselines, where they
    are ``LEAST_RISE_C`` apart; None where neither are. GPUs without temperatures are left out.
    """
    idles_c = [temperatures_c(one) for one in baselines]
    hot_c = temperatures_c(hot_idle) if hot_idle else {}
    slopes: dict[str, float | None] = {}
    for part in idles_w[0]:
        component, device = part
        known_c = [idle_c.get(device) for idle_c in idles_c]
        if component != "gpu" or None in known_c:
            continue
        cold_c = math.fsum(known_c) / len(known_c)
        slopes[device] = None
        if hot_w and device in hot_c and hot_c[device] - cold_c >= LEAST_RISE_C:
            rise_w = hot_w[part] - mean_w(idles_w, part)
            slopes[device] = max(0.0, rise_w / (hot_c[device] - cold_c))
        elif (between_c := known_c[-1] - known_c[0]) >= LEAST_RISE_C:
            slopes[device] = max(0.0, (idles_w[-1][part] - idles_w[0][part]) / between_c)
    return slopes


def by_temperature_w(
    window: Interval, baselines: Sequence[Interval], slopes: Mapping[str, float | None]
) -> tuple[float, float, list[str]]:
    """Return what temperature alone changes in the power of the waiting engine, in W.

    The first is how much more it draws when it is as warm as in the window than it drew in the
    baselines, the second how much more in the last baseline than in the first. A slope of None is
    taken to be ``IDLE_SLOPE_W_PER_C``, which is then named as an assumption. Where no temperature
    was recorded both are 0.
    """
    inside_c, idles_c = temperatures_c(window), [temperatures_c(one) for one in baselines]
    excess_w, warmed_w, assumed = 0.0, 0.0, []
    for device, slope_w_per_c in slopes.items():
        if device not in inside_c:
            continue
        cold_c = [idle_c[device] for idle_c in idles_c]
        rise_c = inside_c[device] - math.fsum(cold_c) / len(cold_c)
        if slope_w_per_c is None:
            slope_w_per_c = IDLE_SLOPE_W_PER_C
            assumed = [SLOPE_ASSUMED] if rise_c else assumed
        excess_w += rise_c * slope_w_per_c
        warmed_w += (cold_c[-1] - cold_c[0]) * slope_w_per_c
    return excess_w, warmed_w, assumed


def warm_idle(
    window: Interval,
    baselines: Sequence[Interval],
    idles_w: Sequence[Powers],
    hot_idle: Interval,
    hot_w: Powers,
    slopes: Mapping[str, float | None],
) -> WarmIdle:
    """Return what the engine draws while it waits as warm as in the window, by its hot idle.

    Each GPU's power is that of its hot idle, and from there on along its slope; where no slope was
    measured it stays, and the rest is expected to be in excess. All that is no GPU, and GPUs
    without temperatures, have the mean power of the baselines.
    """
    inside_c, hot_c = temperatures_c(window), temperatures_c(hot_idle)
    idles_c = [temperatures_c(one) for one in baselines]
    power_w, excess_w, weights, assumed = 0.0, 0.0, {}, ()
    for part in hot_w:
        component, device = part
        if component != "gpu" or not {device} <= slopes.keys() & inside_c.keys() & hot_c.keys():
            power_w += mean_w(idles_w, part)
            weights[part] = 0.0
            continue
        left_c = inside_c[device] - hot_c[device]
        slope_w_per_c, weights[part] = slopes[device], 1.0
        power_w += hot_w[part]
        if slope_w_per_c is None:
            excess_w += IDLE_SLOPE_W_PER_C * left_c
            assumed = (SLOPE_ASSUMED,) if left_c else assumed
            continue
        power_w += slope_w_per_c * left_c
        rise_c = hot_c[device] - math.fsum(one[device] for one in idles_c) / len(idles_c)
        if rise_c >= LEAST_RISE_C:
            weights[part] = 1.0 + left_c / rise_c
    return WarmIdle(power_w, excess_w, weights, assumed)
