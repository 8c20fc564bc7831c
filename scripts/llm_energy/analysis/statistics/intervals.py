"""Return the 95 % intervals of everything, by Student's t with a guard against serial correlation.

Cells run in random order inside a block, but what one block has of heat, neighbours and clocks the
next may still have. With a correlation of 0.3 between neighbours, Student's interval of five blocks
holds the truth in 88 % of cases, and five blocks cannot show such a correlation. So there are two
hypotheses, independent blocks and blocks correlated by 0.3, and the variance of a mean is its mean
over both. ``tests/benchmarks/coverage.py`` shows what that holds.

Uncertainties are combined as in the Guide to the expression of uncertainty in measurement, JCGM
100:2008. scipy is imported where it is called, since engines that measure need not bring it; what
they ask is answered without it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
CORRELATION = 0.3  # of a block with the one before, as far as the guard goes
# The probability of that, before anything is known of the blocks: as large as it may be for cells
# of five independent blocks to hold the truth in 97 % at most: exact, and fitted to no draws.
CORRELATED = 0.45
LEAST_IN_A_ROW = 3  # two values always lie on both sides of their mean

Term = tuple[float, float]  # (standard uncertainty, degrees of freedom)


@functools.lru_cache(maxsize=10_000)
def t_quantile(degrees_of_freedom: float) -> float:
    """Return the t value that leaves 2.5 % above it.

    From ``scipy.special``, which imports several times as fast as ``scipy.stats`` and is what that
    calls.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))


@functools.cache
def t_quantile_without_scipy(degrees_of_freedom: int) -> float:
    """Return the t value that leaves 2.5 % above it, for engines, which need not bring scipy.

    For whole degrees of freedom Student's distribution is a finite sum of powers of a cosine
    (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4), which is
    inverted by bisection.

    >>> round(t_quantile_without_scipy(4), 3)
    2.776
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        inside = _probability_within(angle, degrees_of_freedom)
        low, high = (angle, high) if inside < CONFIDENCE else (low, angle)
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def _probability_within(angle: float, degrees_of_freedom: int) -> float:
    """Return P(|t| < sqrt(degrees of freedom) * tan(angle))."""
    odd = degrees_of_freedom % 2
    cosine = math.cos(angle)
    term = total = (cosine if odd else 1.0) * (degrees_of_freedom > 1)
    for k in range(2 + odd, degrees_of_freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


@functools.cache
def serial_guard(n: int, correlated: float = CORRELATED) -> float:
    """Return by which factor the standard error of a mean over ``n`` consecutive blocks grows.

    ``correlated`` is the probability that neighbours are correlated by ``CORRELATION``: then the
    mean varies more than independent blocks', and the sample variance shows less than there is.

    >>> round(serial_guard(5), 3), serial_guard(5, 0.0), serial_guard(1)
    (1.186, 1.0, 1.0)
    """
    if n < 2:
        return 1.0
    pairs = math.fsum((1 - k / n) * CORRELATION**k for k in range(1, n))
    of_mean = 1 + 2 * pairs  # times variance / n, in which a mean of n values varies
    shown = (n - of_mean) / (n - 1)  # times the variance, which the sample variance is on average
    return math.sqrt(1 + correlated * (of_mean / shown - 1))


def serial_share(values: Sequence[float]) -> float | None:
    """Return the lag-1 autocorrelation of values in the order of their blocks.

    None where they are too few or do not differ.

    >>> serial_share([1.0, 2.0, 3.0])
    0.0
    """
    mean = math.fsum(values) / max(1, len(values))
    left = [value - mean for value in values]
    whole = math.fsum(value**2 for value in left)
    if len(values) < LEAST_IN_A_ROW or whole == 0:
        return None
    return math.fsum(a * b for a, b in itertools.pairwise(left)) / whole


def probability_correlated(found: Sequence[tuple[int, float]]) -> float:
    """Return how probable correlated blocks are, by (n, lag-1 autocorrelation) of many series.

    Their mean, weighted by degrees of freedom, is about normal under either hypothesis. One series
    says next to nothing, so that only many are asked.
    """
    weights = [n - 1.0 for n, _ in found]
    if not weights:
        return CORRELATED
    whole = math.fsum(weights)
    mean = math.fsum(w * r for w, (_, r) in zip(weights, found, strict=True)) / whole
    under = [_serial_moments(n) for n, _ in found]
    independent, correlated = (
        math.fsum(w * one[k] for w, one in zip(weights, under, strict=True)) / whole for k in (0, 1)
    )
    variance = math.fsum((w / whole) ** 2 * one[2] for w, one in zip(weights, under, strict=True))
    log_odds = ((mean - independent) ** 2 - (mean - correlated) ** 2) / (2 * variance)
    odds = CORRELATED / (1 - CORRELATED) * math.exp(max(-50.0, min(50.0, log_odds)))
    return odds / (1 + odds)


@functools.cache
def _serial_moments(n: int) -> tuple[float, float, float]:
    """Return the expected lag-1 autocorrelation under both hypotheses, and its variance.

    Ratios of quadratic forms of normal values, to first order; the variance is nearly the same
    under both.
    """
    import numpy

    centred = numpy.eye(n) - 1 / n
    lag = (numpy.eye(n, k=1) + numpy.eye(n, k=-1)) / 2
    means = []
    for correlation in (0.0, CORRELATION):
        steps = numpy.abs(numpy.subtract.outer(numpy.arange(n), numpy.arange(n)))
        seen = centred @ correlation**steps @ centred
        means.append(float(numpy.trace(lag @ seen) / numpy.trace(seen)))
    form = centred @ (lag - means[0] * numpy.eye(n)) @ centred
    return *means, float(2 * numpy.trace(form @ form)) / (n - 1) ** 2


def t_test(estimate: float, error: float, degrees_of_freedom: float) -> tuple[float, float]:
    """Return half the interval of an estimate, and the p-value of its being 0."""
    from scipy.special import stdtr

    p = 2 * float(stdtr(degrees_of_freedom, -abs(estimate) / error))
    return t_quantile(degrees_of_freedom) * error, p


def combined(terms: Sequence[Term]) -> float:
    """Return the combined standard uncertainty of independent terms (JCGM 100:2008, 5.1.2)."""
    return math.hypot(*(u for u, _ in terms))


def effective_degrees_of_freedom(terms: Sequence[Term]) -> float:
    """Combine degrees of freedom by Welch and Satterthwaite (JCGM 100:2008, G.4.1).

    A term that is known rather than estimated has infinitely many.

    >>> round(effective_degrees_of_freedom([(1.0, 4), (1.0, math.inf)]), 6)
    16.0
    """
    whole = combined(terms)
    # As shares of the whole, since the fourth power of a small uncertainty may be nothing at all.
    share = math.fsum((u / whole) ** 4 / degrees for u, degrees in terms) if whole else 0.0
    return 1 / share if share else math.inf


def widest(terms: Sequence[Term], lag: float = 0.0) -> float:
    """Return the half-width by the first term, by the first two and so on, whichever is widest.

    Welch and Satterthwaite take a well-known term as more degrees of freedom, so that with two or
    three repeats one uncertainty more would make an interval narrower.
    """
    return max(half_width(terms[:count], lag) for count in range(1, len(terms) + 1))


def half_width(terms: Sequence[Term], lag: float = 0.0) -> float:
    """Return the half-width of the interval about a mean that holds the truth in 95 of 100 cases.

    The truth lies about ``lag`` off the mean, which is reported uncorrected, with a t distribution.
    """
    u, degrees = combined(terms), effective_degrees_of_freedom(terms)
    if u == 0:
        return abs(lag)
    # In units of u, and to ten digits, most metrics of a window ask the same.
    return u * _standard_half_width(*(float(f"{x:.9e}") for x in (abs(lag) / u, degrees)))


@functools.lru_cache(maxsize=10_000)
def _standard_half_width(lag: float, degrees: float) -> float:
    """Return the half-width for a standard uncertainty of 1."""
    from scipy.special import stdtr

    without_lag = t_quantile(degrees)
    if lag == 0:
        return without_lag

    def excess(half: float) -> float:
        return float(stdtr(degrees, half - lag) - stdtr(degrees, -half - lag)) - CONFIDENCE

    return _root(excess, without_lag, lag + without_lag)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that rises from ``low`` to ``high`` is 0, by the Illinois method.

    False position, except that the value of an end that stays twice is halved (Dowell and Jarratt,
    BIT 11, 1971): a few evaluations where halving the interval takes thirty.
    """
    at_low, at_high, before = rising(low), rising(high), 0.0
    for _ in range(60):
        if high - low <= 1e-9 * high or at_high == at_low:
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = rising(middle)
        if abs(at_middle) < 1e-10:
            return middle
        if at_middle < 0:
            low, at_low = middle, at_middle
            at_high /= 2 if before < 0 else 1
        else:
            high, at_high = middle, at_middle
            at_low /= 2 if before > 0 else 1
        before = at_middle
    return high
