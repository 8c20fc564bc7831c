"""Decide when a workload is warm: its passes take the same time, and its GPUs the same heat."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from llm_energy.records import Protocol

WARMUP_SPAN = 5  # passes over which the durations are judged
THERMAL_SPAN_S = 10.0  # over less, a sensor that counts whole degrees shows no slope


def warmed_up(durations_s: Sequence[float], settings: Protocol) -> bool:
    """Return whether the warm-up may end: converged after the minimum, or at the maximum.

    >>> warmed_up([1.0, 1.0], Protocol(warmup_min_passes=2, warmup_max_passes=9))
    False
    >>> warmed_up([9.0, 1.0, 1.01, 1.0, 1.01, 1.0], Protocol(warmup_max_passes=9))
    True
    """
    if len(durations_s) >= settings.warmup_max_passes:
        return True
    if len(durations_s) < settings.warmup_min_passes:
        return False
    return bool(converged(durations_s, settings))


def converged(durations_s: Sequence[float], settings: Protocol) -> bool | None:
    """Return whether the last passes took the same time; None where there are too few to tell.

    Over the last five, the coefficient of variation (sample SD over mean) must be below
    ``settings.warmup_cv`` and the drift (``trend``) below ``settings.warmup_trend``. The first
    alone lets a slow, steady drift pass.
    """
    drift = trend(durations_s)
    if drift is None:
        return None
    last = durations_s[-WARMUP_SPAN:]
    variation = statistics.stdev(last) / statistics.fmean(last)
    return variation < settings.warmup_cv and abs(drift) < settings.warmup_trend


def trend(durations_s: Sequence[float]) -> float | None:
    """Return by which share of their mean the last five passes grew longer; None for fewer.

    That is their least-squares slope a pass, times five, over their mean.

    >>> round(trend([1.00, 1.01, 1.02, 1.03, 1.04]), 3)
    0.049
    """
    last = durations_s[-WARMUP_SPAN:]
    mean_s = statistics.fmean(last) if last else 0.0
    if len(last) < WARMUP_SPAN or not mean_s > 0:
        return None
    return statistics.linear_regression(range(WARMUP_SPAN), last).slope * WARMUP_SPAN / mean_s


class Thermometer:
    """Hold what the hottest GPU's temperature did over the last ten seconds."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []

    def read(self, time_s: float, temperatures_c: Sequence[float | None]) -> None:
        """Take one reading of all GPUs; without any temperature it is none."""
        known = [temperature for temperature in temperatures_c if temperature is not None]
        if not known:
            return
        self._readings.append((time_s, max(known)))
        # The newest reading that is ten seconds old stays, so that the span is never shorter.
        while len(self._readings) > 2 and time_s - self._readings[1][0] >= THERMAL_SPAN_S:
            del self._readings[0]

    @property
    def has_readings(self) -> bool:
        """Return whether any GPU gave a temperature."""
        return bool(self._readings)

    def slope_c_per_10s(self) -> float | None:
        """Return the least-squares slope in degrees per ten seconds; None over too short a span."""
        if len(self._readings) < 2:
            return None
        times_s, temperatures_c = zip(*self._readings, strict=True)
        if times_s[-1] - times_s[0] < THERMAL_SPAN_S:
            return None
        return 10.0 * statistics.linear_regression(times_s, temperatures_c).slope

    def settled(self, limit_c_per_10s: float) -> bool:
        """Return whether the temperature moves less than that; True where there is none."""
        slope = self.slope_c_per_10s()
        return not self.has_readings or (slope is not None and abs(slope) < limit_c_per_10s)
