"""Summarise repeats: mean, sample SD, 95 % t-interval, and the digits that these support."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from llm_energy.records import Statistic

CONFIDENCE = 0.95
ABSENT = "\u2013"


def summarise(values: Sequence[float]) -> Statistic:
    """Summarise the values of independent repeats.

    The interval is mean +- t(n - 1) sd / sqrt(n); with fewer than two values there is neither a
    standard deviation nor an interval (Student, The probable error of a mean, Biometrika 6, 1908).

    >>> summarise([1.0, 2.0, 3.0]).mean
    2.0
    >>> summarise([1.0]).sd is None
    True
    """
    return _summary(tuple(values))


@functools.lru_cache(maxsize=1000)
def _summary(values: tuple[float, ...]) -> Statistic:
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
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Statistic(n, mean, sd, mean - half, mean + half)


@functools.cache
def t_quantile(degrees_of_freedom: int) -> float:
    """Give the t value that leaves 2.5 % above it.

    From ``scipy.special``, which imports several times as fast as ``scipy.stats`` and is what that
    calls.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))


def quantity(statistic: Statistic) -> str:
    """Write a mean with half its 95 % interval, in the digits that the interval supports.

    The half-width gets two significant digits and the mean as many decimals. With one repeat there
    is no interval and the mean gets two significant digits.

    >>> quantity(Statistic(5, 0.123456, 0.01, 0.111, 0.1358))
    '0.123 ± 0.012'
    >>> quantity(Statistic(1, 0.123456, None, None, None))
    '0.12'
    """
    if statistic.mean is None:
        return ABSENT
    if statistic.ci_low is None:
        return _fixed(statistic.mean, _decimals(statistic.mean, 2))
    return _with_half(statistic.mean, (statistic.ci_high - statistic.ci_low) / 2)


def absolute_quantity(statistic: Statistic) -> str:
    """Write a mean with half its absolute 95 % interval, in the digits that this one supports.

    >>> absolute_quantity(Statistic(5, 0.123456, 0.01, 0.111, 0.1358, 0.004, 4.0, 0.107, 0.14))
    '0.123 ± 0.017'
    """
    if statistic.mean is None or statistic.absolute_ci_low is None:
        return ABSENT
    half = (statistic.absolute_ci_high - statistic.absolute_ci_low) / 2
    return _with_half(statistic.mean, half)


def mean_only(statistic: Statistic) -> str:
    """Write a mean without its interval: the digits that are certain, at least two, at most three.

    >>> mean_only(Statistic(5, 83.456, 3.0, 80.0, 86.9))
    '83'
    """
    if statistic.mean is None:
        return ABSENT
    most, least = _decimals(statistic.mean, 3), _decimals(statistic.mean, 2)
    if statistic.ci_low is None:
        return _fixed(statistic.mean, _decimals(statistic.mean, 2))
    half = (statistic.ci_high - statistic.ci_low) / 2
    return _fixed(statistic.mean, max(least, min(most, _decimals(half, 1) if half else most)))


def with_ends(value: float | None, low: float | None, high: float | None) -> tuple[str, str, str]:
    """Write a value and the ends of its interval, in the digits that the interval supports.

    >>> with_ends(0.81999, 0.7701, 0.8802)
    ('0.820', '0.770', '0.880')
    >>> with_ends(0.81999, None, None)
    ('0.82', '\u2013', '\u2013')
    """
    if value is None:
        return (ABSENT,) * 3
    known = [end for end in (low, high) if end is not None]
    half = max((abs(end - value) for end in known), default=0.0)
    decimals = _decimals(half, 2) if half else _decimals(value, 2)
    ends = (ABSENT if end is None else _fixed(end, decimals) for end in (low, high))
    return (_fixed(value, decimals), *ends)


def three_digits(value: float | None) -> str:
    """Write a value that has no interval.

    >>> three_digits(0.0123456), three_digits(1234.5), three_digits(None)
    ('0.0123', '1230', '\u2013')
    """
    return ABSENT if value is None else _fixed(value, _decimals(value, 3))


def _with_half(mean: float, half: float) -> str:
    if half == 0:
        return f"{_fixed(mean, _decimals(mean, 3))} ± 0"
    decimals = _decimals(half, 2)
    return f"{_fixed(mean, decimals)} ± {_fixed(half, decimals)}"


def _decimals(value: float, digits: int) -> int:
    """Give the decimals that show ``value`` with so many significant digits; may be negative."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 0


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{max(0, decimals)}f}"  # + 0.0 turns -0.0 into 0.0
