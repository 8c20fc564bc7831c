"""Summarise repeats: mean, sample SD and 95 % t-interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from llm_energy.analysis.statistics.intervals import serial_guard, t_quantile
from llm_energy.records import Statistic


def summarise(values: Sequence[float], quantile: Callable[[int], float] = t_quantile) -> Statistic:
    """Summarise the values of repeats.

    The interval is mean +- t(n - 1) g sd / sqrt(n), Student's (The probable error of a mean,
    Biometrika 6, 1908) with the guard ``g`` against serial correlation; with fewer than two values
    there is neither a standard deviation nor an interval.

    >>> summarise([1.0, 2.0, 3.0]).mean
    2.0
    >>> summarise([1.0]).sd is None
    True
    """
    return _summary(tuple(values), quantile)


@functools.lru_cache(maxsize=1000)
def _summary(values: tuple[float, ...], quantile: Callable[[int], float]) -> Statistic:
    """Summarise them, once where measured and estimated rows share their times and rates."""
    n = len(values)
    if n == 0:
        return Statistic(0, None, None, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Statistic(1, mean, None, None, None)
    # Not statistics.stdev, whose exact fractions take most of the time of a large sweep. Equal
    # values are asked for by name, since the mean that they are compared with may be rounded.
    squares = math.fsum((value - mean) ** 2 for value in values)
    sd = 0.0 if min(values) == max(values) else math.sqrt(squares / (n - 1))
    half = quantile(n - 1) * serial_guard(n) * sd / math.sqrt(n)
    return Statistic(n, mean, sd, mean - half, mean + half)
