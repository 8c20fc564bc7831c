"""Say ratios, intervals and verdicts in words, with the digits that they support."""

from __future__ import annotations

import math

from llm_energy.comparison_records import Side

MANY_TIMES = 2.0


def number(value: float, digits: int = 2) -> str:
    """Write a number with so many significant digits, never with an exponent.

    >>> number(0.04567), number(18.31), number(123.4), number(0.0)
    ('0.046', '18', '123', '0')
    """
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def change(ratio: float) -> str:
    """Say by how much something is less or more.

    >>> change(0.82), change(1.041), change(3.14)
    ('18 % less', '4.1 % more', '3.1 times as much')
    """
    if ratio >= MANY_TIMES:
        return f"{number(ratio)} times as much"
    return f"{_percent(abs(ratio - 1))} % {'less' if ratio < 1 else 'more'}"


def interval(low: float, high: float) -> str:
    """Say in which interval a change lies.

    >>> interval(0.77, 0.88), interval(0.98, 1.03), interval(2.5, 3.5)
    ('95 % CI 12 to 23 %', '95 % CI 2.0 % less to 3.0 % more', '95 % CI 2.5 to 3.5 times')
    >>> interval(0.626, 0.628)
    '95 % CI 37.2 to 37.4 %'
    """
    if high < 1:
        return f"95 % CI {_ends(100 * (1 - high), 100 * (1 - low))} %"
    if low > 1 and high < MANY_TIMES:
        return f"95 % CI {_ends(100 * (low - 1), 100 * (high - 1))} %"
    if low > 1:
        return f"95 % CI {_ends(low, high)} times"
    return f"95 % CI {change(low)} to {change(high)}"


def _ends(low: float, high: float) -> str:
    """Write two ends with so many digits that they differ, four at most."""
    for digits in (2, 3, 4):
        first, last = number(low, digits), number(high, digits)
        if first != last:
            break
    return f"{first} to {last}"


def name_of(side: Side, contrast: str) -> str:
    """Name a side by that in which the two differ."""
    if contrast == "batch_size":
        return f"batch size {side.batch_size}"
    if contrast == "choice":
        return f"{side.precision} at {side.workload}"
    return str(getattr(side, contrast))


def plus_minus(mean: float, low: float | None, high: float | None) -> str:
    """Write a mean with half its interval, in the digits that the interval supports.

    >>> plus_minus(0.12345, 0.111, 0.136), plus_minus(0.12345, None, None)
    ('0.123 ± 0.013', '0.12')
    """
    if low is None or high is None or high <= low:
        return number(mean)
    half = (high - low) / 2
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"


def _percent(share: float) -> str:
    return number(100 * share)
