"""Return whether a window of timed traffic holds enough requests, at the rate asked for."""

from __future__ import annotations

import math

FEW = 10  # requests, over which no mean or quantile says much
OTHER_RATE = 0.2


def is_few(requests: int) -> bool:
    """Return whether so many requests are too few for what is computed over them."""
    return requests < FEW


def is_other_rate(requests: int, rate_per_s: float | None, duration_s: float) -> bool:
    """Return whether so many requests in a window came at another rate than the one asked for.

    They differ by over a fifth, and by more than two standard deviations of a Poisson count, since
    a short window of a trace holds more or less by chance.

    >>> is_other_rate(101, 1.0, 20.0), is_other_rate(27, 1.0, 20.0), is_other_rate(5, None, 20.0)
    (True, False, False)
    """
    if rate_per_s is None:
        return False
    expected = rate_per_s * duration_s
    return abs(requests - expected) > max(OTHER_RATE * expected, 2 * math.sqrt(expected))
