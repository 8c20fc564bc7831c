"""Compare two cells by the ratios of their paired repeats, and many such pairs at once.

A block is one repeat of every cell, run in one random order on one host, so what makes a block
slower or hotter is in both members of a pair and cancels in their ratio. With the five blocks of a
usual sweep a pair knows its own noise badly, on four degrees of freedom. The other pairs of its
family know more: each pair's variance is drawn towards theirs, the more so the more alike they
are (empirical Bayes, as for gene expression: G. K. Smyth, Statistical Applications in Genetics and
Molecular Biology 3(1), 2004, article 3, doi:10.2202/1544-6115.1027). A pair that is noisier than
its family allows stays with its own noise. ``docs/statistics.md`` says how often all this finds
what is there, and what is not.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_energy.analysis.statistics.intervals import (
    CONFIDENCE,
    CORRELATED,
    Term,
    combined,
    effective_degrees_of_freedom,
    half_width,
    probability_correlated,
    serial_guard,
    serial_share,
    t_test,
)

ALPHA = 1 - CONFIDENCE
POWER = 0.8
OWN_NOISE = 0.95  # the share of a family's pairs whose noise passes for the family's
MOST_SEEN = math.log(1e6)  # a millionfold difference; with one degree of freedom it may be more
MOST_REPEATS = 100  # that anyone would measure
LEAST_PAIRS = 3  # independent ones, below which a family says nothing on how noise varies


@dataclass(frozen=True)
class Ratio:
    """The log-ratios of one comparison: their number, mean and sample variance.

    ``serial`` is their lag-1 autocorrelation, None where they are too few.
    """

    n: int
    mean: float
    variance: float
    serial: float | None = None

    @property
    def degrees(self) -> int:
        """Return the degrees of freedom of the variance."""
        return self.n - 1


@dataclass(frozen=True)
class Noise:
    """What a family knows of the variance of a log-ratio before a pair is looked at.

    ``degrees`` says how many degrees of freedom that knowledge is worth: 0 where there is none,
    infinite where all pairs are equally noisy. ``most`` are those of all pairs together.
    ``correlated`` is the probability that blocks are correlated with those before them.
    """

    variance: float
    degrees: float
    most: float
    correlated: float = CORRELATED

    def combined(self, ratio: Ratio) -> tuple[float, float]:
        """Return a pair's variance in the light of the family's, and its degrees of freedom."""
        if self.degrees == 0 or ratio.variance > self.variance * self._allowed(ratio.degrees):
            return ratio.variance, float(ratio.degrees)
        if math.isinf(self.degrees):
            return self.variance, self.most
        total = self.degrees + ratio.degrees
        variance = (self.degrees * self.variance + ratio.degrees * ratio.variance) / total
        return variance, min(total, max(self.most, ratio.degrees))

    def _allowed(self, degrees: int) -> float:
        """Return how many times the family's variance a pair of the family stays below (F test)."""
        from scipy.special import chdtri, fdtri

        if math.isinf(self.degrees):
            return float(chdtri(degrees, 1 - OWN_NOISE)) / degrees
        return float(fdtri(degrees, self.degrees, OWN_NOISE))


@dataclass(frozen=True)
class Shared:
    """What the repeats of a ratio have in common, so that it is in none of their scatter.

    ``standard`` is a standard uncertainty, by ``bias`` the ratio is expected to be off, one way or
    the other (both on the log scale).
    """

    standard: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True)
class Tested:
    """A ratio with its 95 % interval and the p-value of no difference (all on the log scale).

    ``guard`` is the factor against serial correlation, which is in the interval and not in the
    ``variance``.
    """

    half_width: float
    p: float
    variance: float
    degrees: float
    guard: float = 1.0
    shared: Shared = field(default_factory=Shared)


def ratio_of(logs: Sequence[float]) -> Ratio:
    """Summarise the log-ratios of one comparison.

    >>> ratio_of([0.1, 0.3]).mean
    0.2
    """
    mean = math.fsum(logs) / len(logs)
    squares = math.fsum((value - mean) ** 2 for value in logs)
    variance = squares / (len(logs) - 1) if len(logs) > 1 else 0.0
    return Ratio(len(logs), mean, variance, serial_share(logs))


def family_noise(ratios: Sequence[Ratio]) -> Noise:
    """Estimate how noise varies between the independent pairs of a family.

    Smyth's moment estimator: the logarithms of the sample variances scatter by the trigamma
    function of half their degrees of freedom; what they scatter more than that is real.
    """
    from scipy.special import digamma, polygamma

    known = [ratio for ratio in ratios if ratio.degrees > 0 and ratio.variance > 0]
    if len(known) < LEAST_PAIRS:
        return Noise(0.0, 0.0, 0.0)
    correlated = probability_correlated(
        [(ratio.n, ratio.serial) for ratio in known if ratio.serial is not None]
    )
    halves = [ratio.degrees / 2 for ratio in known]
    most = float(sum(ratio.degrees for ratio in known))
    expected = {half: float(digamma(half)) - math.log(half) for half in set(halves)}
    spread = {half: float(polygamma(1, half)) for half in set(halves)}
    logs = [
        math.log(ratio.variance) - expected[half] for ratio, half in zip(known, halves, strict=True)
    ]
    centre = math.fsum(logs) / len(logs)
    scatter = math.fsum((value - centre) ** 2 for value in logs) / (len(logs) - 1)
    excess = scatter - math.fsum(spread[half] for half in halves) / len(halves)
    if excess <= 0:
        pooled = math.fsum(ratio.degrees * ratio.variance for ratio in known) / most
        return Noise(pooled, math.inf, most, correlated)
    half = _inverse_trigamma(excess)
    variance = math.exp(centre + float(digamma(half)) - math.log(half))
    return Noise(variance, 2 * half, most, correlated)


def tested(ratio: Ratio, noise: Noise, shared: Shared) -> Tested | None:
    """Test a ratio against 1 with a t distribution; None for one pair, which has no noise.

    Pairs without any scatter, in a family that knows nothing either, have no interval. What the
    repeats share never makes one narrower.
    """
    if ratio.degrees < 1:
        return None
    variance, degrees = noise.combined(ratio)
    if variance <= 0:
        return None
    guard = serial_guard(ratio.n, noise.correlated)
    half, p = t_test_with(ratio.mean, [(guard * math.sqrt(variance / ratio.n), degrees)], shared)
    return Tested(half, p, variance, degrees, guard, shared)


def t_test_with(estimate: float, repeats: Sequence[Term], shared: Shared) -> tuple[float, float]:
    """Return half the interval of an estimate, and the p-value of its being 0 but for the bias.

    By the repeats alone and with what they share, whichever is more cautious: Welch and
    Satterthwaite take a well-known term as more degrees of freedom.
    """
    beyond = max(0.0, abs(estimate) - shared.bias)
    halves, p_values = [], []
    for terms in (repeats, [*repeats, (shared.standard, math.inf)]):
        degrees = effective_degrees_of_freedom(terms)
        halves.append(half_width(terms, shared.bias))
        p_values.append(t_test(beyond, combined(terms), degrees)[1])
    return max(halves), max(p_values)


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (S. Holm, Scandinavian Journal of Statistics 6, 1979).

    Not statsmodels' ``multipletests``, to which a test holds it equal: that collects garbage at
    each call, which takes a fifth of a second of every family.

    >>> holm([0.03, 0.01, 0.5])
    [0.06, 0.03, 0.5]
    """
    adjusted = [1.0] * len(values)
    least = 0.0
    for done, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = max(least, min(1.0, (len(values) - done) * values[place]))
        adjusted[place] = least
    return adjusted


def smallest_detectable_percent(found: Tested, n: int, comparisons: int) -> float:
    """Return the true difference that would be found in 4 of 5 such sweeps, in percent.

    It passes the hardest step of Holm's correction over so many ``comparisons``, by the noncentral
    t distribution. That is statsmodels' ``ttest_power`` turned around, as a test holds; its own
    inverse fails for few degrees of freedom.
    """
    effect = _detectable_effect(round(found.degrees, 1), comparisons)
    error = math.hypot(found.guard * math.sqrt(found.variance / n), found.shared.standard)
    return 100 * math.expm1(min(MOST_SEEN, effect * error + found.shared.bias))


def repeats_to_tell(log_ratio: float, log_sd: float, comparisons: int) -> int | None:
    """Return how many pairs would tell such a ratio from 1 in 4 of 5 sweeps, by their own noise.

    None where MOST_REPEATS are not enough.

    >>> repeats_to_tell(0.05, 0.02, 1), repeats_to_tell(0.0001, 0.02, 1)
    (4, None)
    """
    counts = range(2, MOST_REPEATS + 1)
    errors = ((n, log_sd / math.sqrt(n)) for n in counts)
    enough = (
        n for n, e in errors if _detectable_effect(n - 1.0, comparisons) * e <= abs(log_ratio)
    )
    return next(enough, None)


@functools.cache
def _detectable_effect(degrees: float, comparisons: int) -> float:
    """Return the difference that is found with the wanted power, in standard errors."""
    from scipy.special import nctdtrinc, stdtrit

    critical = stdtrit(degrees, 1 - ALPHA / comparisons / 2)
    return float(nctdtrinc(degrees, 1 - POWER, critical))


def _inverse_trigamma(value: float) -> float:
    """Return the number whose trigamma function is ``value`` > 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    # trigamma(x) lies between 1/x and 1/x + 1/x^2.
    low, high = 0.5 / value, 1 / value + 1 / math.sqrt(value) + 1
    low = min(low, 0.5 / math.sqrt(value))
    return float(brentq(lambda x: float(polygamma(1, x)) - value, low, high, rtol=1e-10))
