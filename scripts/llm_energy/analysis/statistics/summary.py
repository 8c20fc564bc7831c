"""Summarise repeats: mean, sample SD and 95 % t-interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

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


def over_groups(values: Sequence[float], groups: Sequence[Hashable]) -> Statistic:
    """Summarise values that come in groups, such as sessions, of which each counts once.

    The mean is that of the groups' means, and the interval comes from how far these lie apart, with
    as many degrees of freedom, since what a group has in common is in no scatter inside it. The
    standard deviation is that of the values. Of one group it is ``summarise``.

    >>> found = over_groups([1.0, 3.0, 4.0], ["a", "a", "b"])
    >>> found.n, found.mean, found.degrees_of_freedom
    (3, 3.0, 1.0)
    """
    sorted_in = _sort_in(values, groups)
    if len(sorted_in) < 2:
        return summarise(values)
    means = summarise([math.fsum(own) / len(own) for own in sorted_in])
    return replace(
        means,
        n=len(values),
        sd=summarise(values).sd,
        standard_uncertainty=serial_guard(means.n) * means.sd / math.sqrt(means.n),
        degrees_of_freedom=means.n - 1.0,
    )


def between_groups(values: Sequence[float], groups: Sequence[Hashable]) -> float | None:
    """Return the standard deviation between groups beyond what the scatter inside them explains.

    By the method of moments, as of one-way analysis of variance; None where no group has two
    values, or there is one group alone.

    >>> between_groups([1.0, 3.0, 1.0, 3.0], ["a", "a", "b", "b"])
    0.0
    """
    sorted_in = _sort_in(values, groups)
    degrees = len(values) - len(sorted_in)
    if len(sorted_in) < 2 or degrees < 1:
        return None
    means = [math.fsum(own) / len(own) for own in sorted_in]
    inside = math.fsum(
        (value - mean) ** 2 for own, mean in zip(sorted_in, means, strict=True) for value in own
    )
    of_means = inside / degrees * math.fsum(1 / len(own) for own in sorted_in) / len(sorted_in)
    return math.sqrt(max(0.0, summarise(means).sd ** 2 - of_means))


def _sort_in(values: Sequence[float], groups: Sequence[Hashable]) -> list[list[float]]:
    found: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        found.setdefault(group, []).append(value)
    return list(found.values())
