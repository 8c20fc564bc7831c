"""Write numbers with the digits that they support, and ratios and their intervals in words.

With two or three repeats an interval may be wider than its number. Such a number is only roughly
known, so it stands behind ``NOISY`` without an interval; who shows one says ``NOISY_MEANING`` once.
"""

from __future__ import annotations

import math

from llm_energy.records import Statistic

ABSENT = "\u2013"
NOISY = "\u2248 "
NOISY_MEANING = (
    "\u2248 stands before what is too noisy for its repeats: the 95 % interval is as wide as the "
    "number itself, or wider."
)
MANY_TIMES, FEW_TIMES = 2.0, 0.01
AS_MUCH, UNCHANGED = " as much", "the same"
ALIKE = 1e-9  # a relative interval that is the rounding of a sum, not scatter
WIDEST = 100.0  # the ends of a ratio's interval, one over the other, beyond which it says nothing


def quantity(statistic: Statistic) -> str:
    """Write a mean with half its 95 % interval.

    >>> quantity(Statistic(5, 0.123456, 0.01, 0.111, 0.1358))
    '0.123 ± 0.012'
    """
    return with_interval(statistic.mean, statistic.ci_low, statistic.ci_high)


def absolute_quantity(statistic: Statistic) -> str:
    """Write a mean with half its absolute 95 % interval; without one there is nothing to write.

    >>> absolute_quantity(Statistic(5, 0.123456, 0.01, 0.111, 0.1358, 0.004, 4.0, 0.107, 0.14))
    '0.123 ± 0.017'
    """
    low, high = statistic.absolute_ci_low, statistic.absolute_ci_high
    return ABSENT if low is None else with_interval(statistic.mean, low, high)


def with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    """Write a mean with half its interval, in the digits that the interval supports.

    The half-width gets two significant digits, so that it is never rounded to 0, and the mean as
    many decimals. Without an interval the mean gets two significant digits, and four where all
    repeats are alike.

    >>> with_interval(0.123456, 0.111, 0.1358), with_interval(0.123456, None, None)
    ('0.123 ± 0.012', '0.12')
    >>> with_interval(14.2426, 14.2426, 14.2426), with_interval(0.4, -1.7, 2.5)
    ('14.24', '\u2248 0.40')
    """
    if mean is None:
        return ABSENT
    if low is None or high is None:
        return _fixed(mean, _decimals(mean, 2))
    half = (high - low) / 2
    if half <= ALIKE * abs(mean):
        return _fixed(mean, _decimals(mean, 4))
    if half >= abs(mean):
        return f"{NOISY}{_fixed(mean, _decimals(mean, 2))}"
    decimals = _decimals(half, 2)
    return f"{_fixed(mean, decimals)} ± {_fixed(half, decimals)}"


def mean_only(statistic: Statistic) -> str:
    """Write a mean without its interval: the digits that are certain, at least two, at most three.

    >>> mean_only(Statistic(5, 83.456, 3.0, 80.0, 86.9))
    '83'
    >>> mean_only(Statistic(2, 83.456, 30.0, -180.0, 346.9))
    '\u2248 83'
    """
    if statistic.mean is None:
        return ABSENT
    most, least = _decimals(statistic.mean, 3), _decimals(statistic.mean, 2)
    if statistic.ci_low is None:
        return _fixed(statistic.mean, _decimals(statistic.mean, 2))
    half = statistic.ci_half
    if half >= abs(statistic.mean) > 0:
        return f"{NOISY}{_fixed(statistic.mean, least)}"
    return _fixed(statistic.mean, max(least, min(most, _decimals(half, 1) if half else most)))


def too_wide(low: float | None, high: float | None) -> bool:
    """Return whether the interval of a positive number is so wide that it says nothing.

    >>> too_wide(0.0094, 82.0), too_wide(0.77, 0.88), too_wide(None, 0.88)
    (True, False, False)
    """
    return low is not None and high is not None and high > WIDEST * low


def with_ends(value: float | None, low: float | None, high: float | None) -> tuple[str, str, str]:
    """Write a positive value and the ends of its interval, in the digits that this supports.

    Of an interval that is too wide the ends are left out.

    >>> with_ends(0.81999, 0.7701, 0.8802), with_ends(0.9, 0.1, 8.1)
    (('0.820', '0.770', '0.880'), ('0.90', '0.10', '8.10'))
    >>> with_ends(0.81999, None, None), with_ends(0.9, 0.0094, 82.0)
    (('0.82', '\u2013', '\u2013'), ('\u2248 0.90', '\u2013', '\u2013'))
    """
    if value is None:
        return (ABSENT,) * 3
    if too_wide(low, high):
        return f"{NOISY}{_fixed(value, _decimals(value, 2))}", ABSENT, ABSENT
    known = [abs(end - value) for end in (low, high) if end is not None]
    halves = [half for half in known if half > ALIKE * value]
    decimals = _decimals(min(halves), 2) if halves else _decimals(value, 4 if known else 2)
    ends = (ABSENT if end is None else _fixed(end, decimals) for end in (low, high))
    return (_fixed(value, decimals), *ends)


def three_digits(value: float | None) -> str:
    """Write a value that has no interval.

    >>> three_digits(0.0123456), three_digits(1234.5), three_digits(None)
    ('0.0123', '1230', '\u2013')
    """
    return ABSENT if value is None else _fixed(value, _decimals(value, 3))


def significant(value: float, digits: int = 2) -> str:
    """Write a number with so many significant digits and all before the point; no exponent.

    >>> significant(0.04567), significant(18.31), significant(123.4), significant(0.0)
    ('0.046', '18', '123', '0')
    """
    return f"{value:.{max(0, _decimals(value, digits))}f}"


def change(ratio: float, low: float | None = None, high: float | None = None) -> str:
    """Say by how much something is less or more, in the digits of its interval's ends.

    >>> change(0.82), change(1.041), change(3.14), change(0.00123), change(1.0)
    ('18 % less', '4.1 % more', '3.1 times as much', '0.0012 times as much', 'the same')
    >>> change(0.1444, 0.14393, 0.14486)
    '85.56 % less'
    """
    if ratio >= MANY_TIMES or ratio <= FEW_TIMES:
        return f"{significant(ratio, _digits(low, high))} times{AS_MUCH}"
    if abs(ratio - 1) <= ALIKE:
        return UNCHANGED
    ends = (None, None) if low is None or high is None else (100 * (low - 1), 100 * (high - 1))
    percent = significant(100 * abs(ratio - 1), _digits(*ends))
    return f"{percent} % {'less' if ratio < 1 else 'more'}"


def used(quantity: str, of: str, ratio: float, low: float | None, high: float | None) -> str:
    """Say how much of a quantity one thing took beside another, as the object of a sentence.

    Of an interval that is too wide only the end that lies nearer to 1 is told.

    >>> used("joules", "a", 0.82, 0.8, 0.84), used("joules", "a", 3.14, 3.0, 3.3)
    ('18 % less joules than a', '3.1 times the joules of a')
    >>> used("joules", "a", 1.0, None, None), used("joules", "a", 0.01, 0.0001, 0.5)
    ('the same joules as a', 'at most 0.50 times the joules of a (95 % confidence)')
    """
    if too_wide(low, high):
        bound = f"at most {significant(high)}" if ratio < 1 else f"at least {significant(low)}"
        return f"{bound} times the {quantity} of {of} (95 % confidence)"
    moved = change(ratio, low, high)
    if moved.endswith(AS_MUCH):
        return f"{moved.removesuffix(AS_MUCH)} the {quantity} of {of}"
    return f"{moved} {quantity} {'as' if moved == UNCHANGED else 'than'} {of}"


def interval(low: float, high: float) -> str:
    """Say in which interval a change lies.

    >>> interval(0.77, 0.88), interval(0.98, 1.03), interval(2.5, 3.5)
    ('95 % CI 12 to 23 %', '95 % CI 2.0 % less to 3.0 % more', '95 % CI 2.5 to 3.5 times')
    >>> interval(0.626, 0.628), interval(0.002, 0.1), interval(0.01, 80.0)
    ('95 % CI 37.2 to 37.4 %', '95 % CI 90.0 to 99.8 %', '95 % CI too wide to say')
    """
    if too_wide(low, high):
        return "95 % CI too wide to say"
    if high < 1 and low * high > FEW_TIMES**2:
        return f"95 % CI {_ends(100 * (1 - high), 100 * (1 - low))} %"
    if low > 1 and high < MANY_TIMES:
        return f"95 % CI {_ends(100 * (low - 1), 100 * (high - 1))} %"
    if low > 1 or high < 1:
        return f"95 % CI {_ends(low, high)} times"
    return f"95 % CI {change(low)} to {change(high)}"


def visible(percent: float) -> str:
    """Say which true difference would have been found.

    >>> visible(5.13), visible(69294221.0)
    ('5.1 % would have been found', 'not even a doubling would have been found')
    """
    if percent >= 100:
        return "not even a doubling would have been found"
    return f"{significant(percent)} % would have been found"


def percent_or_more(percent: float | None) -> str:
    """Write a difference in percent; one beyond a doubling is no number to go by.

    >>> percent_or_more(5.13), percent_or_more(69294221.0)
    ('5.13', '>100')
    """
    return ">100" if percent is not None and percent > 100 else three_digits(percent)


def _ends(low: float, high: float) -> str:
    """Write two ends with so many digits that they differ."""
    digits = _digits(low, high)
    return f"{significant(low, digits)} to {significant(high, digits)}"


def _digits(low: float | None, high: float | None) -> int:
    """Return how many digits two ends need to differ by more than one in the last, four at most."""
    if low is None or high is None:
        return 2
    for digits in (2, 3):
        step = 10.0 ** -_decimals(max(abs(low), abs(high)), digits)
        first, last = significant(low, digits), significant(high, digits)
        if abs(high - low) > step and first != last and "100" not in (first, last):
            return digits
    return 4


def _decimals(value: float, digits: int) -> int:
    """Return the decimals that show ``value`` with so many significant digits; may be negative."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 0


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:.{max(0, decimals)}f}"  # + 0.0 turns -0.0 into 0.0


def bias(bound_percent: float | None) -> str:
    """Say how far warnings may have moved the gross energy of a row.

    >>> bias(1.26), bias(0.0)
    ('Bias of a repeat at most 1.3 %; see verdicts.json.', 'No warning biases its gross energy.')
    """
    if bound_percent is None:
        return "Degraded: a repeat carries a warning of unknown effect; see verdicts.json."
    if bound_percent == 0:
        return "No warning biases its gross energy."
    return f"Bias of a repeat at most {significant(bound_percent)} %; see verdicts.json."
