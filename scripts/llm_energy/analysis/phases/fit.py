"""Fit the joules of requests as a sum of terms of their lengths.

A request of n prompt tokens and m output tokens takes

    E = request + input_token n + output_token k + context (n k + m k / 2) + input_squared n^2

joules, with k = m - 1: the prefill gives the first output token, and each later one reads the keys
and values of all tokens before it. (With m in place of k the constant would be what a request costs
less one output token, which is often negative.) So no term is negative, and no sensor has to see a
phase: the lengths tell the terms apart.

The fit minimises relative residuals. Its terms are those that a non-negative fit to the mean of the
repeats keeps. The intervals come from how far fits of single repeats lie apart that have all terms
and no bound: at a bound there is too little scatter, and intervals from it would hold a term of
zero in less than half of the sweeps. They allow for what the counters are expected to show too
little, and for windows that lie off the form, as if each lay off by chance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_energy.analysis.grouping.scopes import bare
from llm_energy.analysis.phases.windows import LAG, TERMS, Lengths, Weights, Windows
from llm_energy.analysis.statistics.intervals import t_quantile
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.records import Statistic
from llm_energy.records.phases import PhaseCost, PhaseSplit, Price

LEAST_LENGTHS = 3  # of prompts and of outputs: two show no bend
ROUNDING = 1e-9  # of a window's joules
ALIKE = 0.98  # the correlation of two estimates from which on they are called one
FALSE_ALARMS = 0.05  # the share of sweeps that follow the form and are said not to
# Prompt and output tokens of the price list: a question, a long answer, a document, a book chapter.
PRICES = ((128, 128), (128, 512), (512, 128), (1024, 256), (2048, 512), (4096, 128), (4096, 512))


def lack(windows: Windows) -> str | None:
    """Say what a fit of these windows lacks, or None."""
    import numpy

    lengths = [*windows.found]
    prompts, outputs = ({getattr(one, name) for one in lengths} for name in Lengths._fields)
    found = f"found {len(prompts)} prompt and {len(outputs)} output lengths in {len(lengths)}"
    least = len(TERMS) + 1
    if min(len(prompts), len(outputs)) < LEAST_LENGTHS or len(lengths) < least:
        return (
            f"a fit needs {LEAST_LENGTHS} prompt and {LEAST_LENGTHS} output lengths in {least} "
            f"workloads; {found}"
        )
    if numpy.linalg.matrix_rank(_scaled([one.row for one in lengths])[0]) < len(TERMS):
        return f"no lengths tell all terms apart: vary prompts and outputs each by itself; {found}"
    if not windows.complete:
        return "no repeat has a usable window of every length"
    return None


def _scaled(rows: Any) -> tuple[Any, Any]:
    """Return columns scaled to length 1, and what they were divided by."""
    import numpy

    matrix = numpy.asarray(rows, dtype=float)
    norms = numpy.linalg.norm(matrix, axis=0)
    return matrix / norms, norms


def fitted(split: PhaseSplit, windows: Windows, wanted: Mapping[str, Weights]) -> PhaseSplit:
    """Add the fit, which all repeats have in common but for the values of its terms."""
    import numpy
    from scipy.optimize import nnls

    lengths, repeats = sorted(windows.found), split.repeats
    energies = numpy.array(
        [
            [windows.found[one][n].gross_energy_j / windows.found[one][n].requests for n in repeats]
            for one in lengths
        ]
    )
    mean_j = energies.mean(axis=1, keepdims=True)
    matrix, norms = _scaled(numpy.array([one.row for one in lengths]) / mean_j)
    relative = energies / mean_j
    kept = nnls(matrix, relative.mean(axis=1))[0] > 0
    # Either fit is linear in the joules: terms are these rows times the windows' relative joules.
    free = numpy.linalg.pinv(matrix)
    bounded = numpy.zeros_like(free)
    bounded[kept] = numpy.linalg.pinv(matrix[:, kept])
    off = numpy.eye(len(lengths)) - matrix @ bounded
    residuals = off @ relative
    lags_j = [windows.mean(one, LAG, repeats) or 0.0 for one in lengths]
    misfit = _misfit(lengths, residuals, numpy.abs(off @ (lags_j / mean_j[:, 0])))

    form = _form_standard(relative, matrix @ free)

    def cost(weights: Sequence[float]) -> Statistic:
        own, whole = (
            windows.weighted(
                dict(zip(lengths, (shares / mean_j[:, 0]).tolist(), strict=True)), repeats
            )
            for shares in (weights / norms @ fit for fit in (bounded, free))
        )
        if misfit or whole.ci_low is None:
            return bare(own)
        form_j = form * float(numpy.linalg.norm(weights / norms @ free))
        half_j = math.hypot(whole.ci_half, t_quantile(len(lengths) - len(TERMS)) * form_j)
        return _around(own.mean, whole, half_j)

    by_fit = tuple(
        PhaseCost("fit", quantity, tuple(sorted(contrast)), cost(term_weights(contrast)))
        for quantity, contrast in wanted.items()
    )
    return replace(
        split,
        points=tuple(
            replace(point, fitted_j=cost(one.row).mean)
            for point, one in zip(split.points, lengths, strict=True)
        ),
        costs=(*by_fit, *split.costs),
        terms={
            name: cost([float(name == other) for other in TERMS])
            for name, used in zip(TERMS, kept, strict=True)
            if used
        },
        unused=tuple(name for name, used in zip(TERMS, kept, strict=True) if not used),
        alike=_indistinct(matrix),
        condition_number=float(numpy.linalg.cond(matrix)),
        worst_residual=float(numpy.abs(residuals.mean(axis=1)).max()),
        prices=tuple(_prices(lengths, cost)),
        misfit=misfit,
        disagreements=tuple(_disagreements(by_fit, split.costs)),
    )


def _form_standard(relative: Any, fitted: Any) -> float:
    """Return how far windows lie off the form beyond what their repeats explain, as a share.

    This is the standard deviation by window of the residuals of the fit without bounds, less what
    the scatter of the repeats makes of it. ``fitted`` times the windows is what that fit gives.
    """
    residuals = relative - fitted @ relative
    lengths, repeats = residuals.shape
    of_mean = (residuals.mean(axis=1) ** 2).sum()
    by_chance = residuals.var(axis=1, ddof=1).sum() / repeats if repeats > 1 else 0.0
    return math.sqrt(max(0.0, of_mean - by_chance) / (lengths - len(TERMS)))


def _around(mean_j: float, free: Statistic, half_j: float) -> Statistic:
    """Return a mean with the interval about that of the fit without bounds, which reaches it."""
    low_j, high_j = min(free.mean - half_j, mean_j), max(free.mean + half_j, mean_j)
    return replace(free, mean=mean_j, ci_low=low_j, ci_high=high_j)


def term_weights(contrast: Weights) -> list[float]:
    """Return what the terms are multiplied by in a contrast."""
    parts = ([per * term for term in lengths.row] for lengths, per in contrast.items())
    return [math.fsum(column) for column in zip(*parts, strict=True)]


def _misfit(lengths: Sequence[Lengths], residuals: Any, lags: Any) -> str | None:
    """Say which length lies off the fit in all repeats, further than their scatter explains.

    By ``lags`` its counters are expected to put it off. Of as many lengths one will seem to by
    chance, so the level of the test is divided by them (Bonferroni). A single repeat cannot tell.
    """
    from scipy.special import stdtrit

    level = 1 - FALSE_ALARMS / 2 / len(lengths)

    def quantile(degrees: int) -> float:
        return float(stdtrit(degrees, level))

    off = [
        (abs(one.mean), lengths[k])
        for k, row in enumerate(residuals.tolist())
        if (one := summarise(row, quantile)).ci_low is not None
        and abs(one.mean) > one.ci_half + lags[k] + ROUNDING
    ]
    if not off:
        return None
    share, where = max(off)
    return (
        f"the form does not describe the windows: requests of {where.prompt} prompt and "
        f"{where.output} output tokens lie {share:.1%} off it, beyond the scatter of the repeats"
    )


def _indistinct(matrix: Any) -> tuple[tuple[str, str], ...]:
    """Return the pairs of terms whose estimates would be correlated nearly in full."""
    import numpy

    covariance = numpy.linalg.inv(matrix.T @ matrix)
    sd = numpy.sqrt(numpy.diag(covariance))
    correlation = numpy.abs(covariance / numpy.outer(sd, sd))
    pairs = itertools.combinations(range(len(TERMS)), 2)
    return tuple((TERMS[a], TERMS[b]) for a, b in pairs if correlation[a, b] > ALIKE)


def _prices(
    lengths: Sequence[Lengths], cost: Callable[[Sequence[float]], Statistic]
) -> Iterator[Price]:
    """Yield the prices of the list's lengths that lie inside those measured."""
    spans = [sorted({one[k] for one in lengths}) for k in (0, 1)]
    for one in itertools.starmap(Lengths, PRICES):
        if all(span[0] <= own <= span[-1] for own, span in zip(one, spans, strict=True)):
            yield Price(*one, cost(one.row))


def _disagreements(by_fit: Sequence[PhaseCost], measured: Sequence[PhaseCost]) -> Iterator[str]:
    """Yield the quantities whose two intervals do not overlap."""
    other = {one.quantity: one.cost_j for one in measured}
    for one in by_fit:
        a, b = one.cost_j, other.get(one.quantity)
        if b is None or None in (a.ci_low, b.ci_low):
            continue
        if a.ci_low > b.ci_high or b.ci_low > a.ci_high:
            yield one.quantity
