"""How energy depends on load: joules at each rate of arrivals, and a line through them.

A service that is on pays for being ready, and pays more for each token. Over a window of length T
with k output tokens, E = P_loaded T + e k; so its mean power is P_loaded + e k / T, a straight line
over the tokens per second. Its intercept is the power of an engine that waits, its slope the joules
that one more token costs, its share of a prompt included. As soon as requests overlap, the line
bends: its intercept then lies above what a waiting engine draws. So it is dropped where its
residuals exceed its interval or its intercept contradicts the measured idle power, and a curve that
begins there stands beside it: a window is busy for a share 1 - exp(-rate * e2e) of its time, as a
queue with a place for all is (M/G/infinity), so P = P_idle + P_awake * share + e k / T.

The windows of one repeat share a process and the state of its GPU, so they are not independent:
each repeat gives one line, and the intervals come from how far the lines of repeats lie apart. A
t-interval over groups holds its truth also where some know their lines worse than others, since
they have fewer windows (R. Ibragimov and U. K. Müller, Journal of Business & Economic Statistics
28(4), 2010, doi:10.1198/jbes.2009.08046).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from llm_energy.analysis.statistics.format import three_digits
from llm_energy.analysis.statistics.intervals import t_quantile
from llm_energy.analysis.statistics.summary import summarise
from llm_energy.records import (
    SCHEMA_VERSION,
    Aggregate,
    AggregateRow,
    Metrics,
    MetricsTable,
)
from llm_energy.records.load_curve import Estimate, LoadCurves, LoadFit, LoadPoint

LEAST_WINDOWS, LEAST_RATES = 3, 2
SIGMAS = 3.0
ROUNDING = 1e-9
RATES = ("requested_rate_per_s", "output_tokens_per_s")
BEHIND = "E28"  # the check of engines that fall behind their traffic


def load_curves(aggregates: Sequence[Aggregate], tables: Iterable[MetricsTable]) -> LoadCurves:
    """Return how energy depends on load, of all backends of a sweep.

    ``tables`` are read only where a row has timed traffic.
    """
    timed = any(row.traffic for aggregate in aggregates for row in aggregate.rows)
    lines = fits(tables) if timed else ()
    return LoadCurves(SCHEMA_VERSION, aggregates[0].sweep, tuple(points(aggregates)), tuple(lines))


def points(aggregates: Iterable[Aggregate]) -> Iterator[LoadPoint]:
    """Return every row of timed traffic, and the saturated ones of the same work."""
    for aggregate in aggregates:
        rows = [row for row in aggregate.rows if row.n]
        timed = {(row.cell, row.work) for row in rows if row.traffic}
        for row in rows:
            if (row.cell, row.work) in timed:
                place = (row.cell, row.workload, row.energy_status, row.components)
                yield LoadPoint(*place, _utilisation(row, rows))


def _utilisation(row: AggregateRow, rows: Sequence[AggregateRow]) -> float | None:
    """Return the rate of arrivals over that at which the same work is served when all is there."""
    if row.traffic is None:
        return None
    same = [r for r in rows if (r.cell, r.work, r.traffic) == (row.cell, row.work, None)]
    most = max((r.statistics["requests_per_s"].mean or 0.0 for r in same), default=0.0)
    rate = row.statistics["arrival_rate_per_s"].mean
    return rate / most if rate is not None and most else None


def fits(tables: Iterable[MetricsTable]) -> Iterator[LoadFit]:
    """Return the mean line of the repeats of each cell, traffic and set of components.

    Windows in which the engine fell behind its traffic are left out: their tokens are not those
    that were asked for.
    """
    groups: dict[tuple[Any, ...], list[Metrics]] = {}
    for row in (row for table in tables for row in table.rows):
        if row.traffic not in (None, "closed_loop"):  # there the engine sets its own rate
            key = (row.backend, row.cell, row.traffic, row.energy_status, row.components)
            groups.setdefault((*key, row.series), []).append(row)
    return (_fit(*key[:-1], rows) for key, rows in groups.items())


def _fit(
    backend: str,
    cell: str,
    traffic: str,
    status: str,
    components: tuple[str, ...],
    rows: Sequence[Metrics],
) -> LoadFit:
    by_repeat: dict[int, list[Metrics]] = {}
    for row in rows:
        if BEHIND not in row.flags:
            by_repeat.setdefault(row.repeat, []).append(row)
    lying = {n: own for n, own in by_repeat.items() if _rates(own) >= LEAST_RATES}
    enough = len(lying) > 1 or any(len(own) >= LEAST_WINDOWS for own in lying.values())
    used = [row for own in (lying if enough else by_repeat).values() for row in own]
    workloads = tuple(dict.fromkeys(row.workload for row in used))
    repeats = tuple(sorted({row.repeat for row in used}))
    common = (backend, cell, traffic, status, components, workloads, len(used), repeats)
    if not enough:
        reason = (
            f"a line needs {LEAST_RATES} rates in a repeat, and its interval {LEAST_WINDOWS} "
            f"windows there or a second such repeat; found windows: {len(used)}, "
            f"rates: {_rates(used)}, repeats: {len(repeats)}"
        )
        if behind := sum(BEHIND in row.flags for row in rows):
            reason += f", and fallen behind: {behind}"
        return LoadFit(*common, reason=reason)
    found = [(own, _line(own)) for own in lying.values()]
    power_w, per_token_j = _estimates(found)
    r_squared, worst = _straightness(found)
    idle_w = {r.repeat: w for r in used if (w := r.loaded_idle_power_w) is not None}
    reason = _misfit(found, power_w) or _contradiction(power_w, [*idle_w.values()], found)
    return LoadFit(
        *common,
        without_line=tuple(sorted(by_repeat.keys() - lying.keys())),
        loaded_power_w=None if reason else power_w,
        marginal_energy_per_output_token_j=None if reason else per_token_j,
        r_squared=r_squared,
        worst_residual=worst,
        loaded_idle_power_w=fmean(idle_w.values()) if idle_w else None,
        reason=reason,
        **_awake(lying.values()),
    )


def _misfit(found: Sequence[tuple[Sequence[Metrics], Any]], power_w: Estimate) -> str | None:
    """Say that windows lie off the lines further than the interval of P_loaded is wide, or None.

    Of one rate over all repeats: what scatters about a straight line averages out, a bend does not.
    """
    left_w: dict[str, list[float]] = {}
    for rows, line in found:
        for row in rows if len(rows) >= LEAST_WINDOWS else ():
            on_line_w = line.intercept + line.slope * row.output_tokens_per_s
            left_w.setdefault(row.workload, []).append(row.mean_power_w - on_line_w)
    worst_w = max((abs(fmean(values)) for values in left_w.values()), default=0.0)
    half_w = (power_w.high - power_w.low) / 2
    if not worst_w > half_w + ROUNDING * abs(power_w.value):
        return None
    return (
        f"the windows do not lie on a line: one rate is {three_digits(worst_w)} W off, the "
        f"interval of P_loaded would be ± {three_digits(half_w)} W"
    )


def _contradiction(
    power_w: Estimate, idle_w: Sequence[float], found: Sequence[tuple[Sequence[Metrics], Any]]
) -> str | None:
    """Say that an engine that waits draws less than the intercept, beyond what both leave open."""
    if not idle_w:
        return None
    degrees = len(found) - 1 if len(found) > 1 else len(found[0][0]) - 2
    standard_w = (power_w.high - power_w.low) / 2 / t_quantile(degrees)
    idle_standard_w = summarise(idle_w).sd or 0.0
    allowed_w = SIGMAS * math.hypot(standard_w, idle_standard_w / math.sqrt(len(idle_w)))
    above_w = power_w.value - fmean(idle_w)
    if not above_w > allowed_w + ROUNDING * abs(power_w.value):
        return None
    return (
        f"the line would begin at {three_digits(power_w.value)} W, which is no power of waiting: "
        f"the loaded engine was measured to wait at {three_digits(fmean(idle_w))} W, and "
        f"{SIGMAS:g} standard uncertainties are {three_digits(allowed_w)} W"
    )


def _awake(repeats: Iterable[Sequence[Metrics]]) -> dict[str, float]:
    """Return the curve from the measured idle power, as the mean of the repeats' curves.

    Least squares with no negative part (scipy's nnls). It takes three rates in a repeat, the
    baseline and the latency of requests.
    """
    from scipy.optimize import nnls

    curves, shares = [], []
    for rows in repeats:
        known = [
            row
            for row in rows
            if None not in (row.loaded_idle_power_w, row.arrival_rate_per_s, row.e2e_latency_s)
        ]
        if len(known) < LEAST_WINDOWS or _rates(known) < LEAST_WINDOWS:
            continue
        parts = [
            [-math.expm1(-row.arrival_rate_per_s * row.e2e_latency_s), row.output_tokens_per_s]
            for row in known
        ]
        curve, _ = nnls(parts, [row.mean_power_w - row.loaded_idle_power_w for row in known])
        curves.append(curve)
        for row, (share, tokens_per_s) in zip(known, parts, strict=True):
            on_curve_w = row.loaded_idle_power_w + curve[0] * share + curve[1] * tokens_per_s
            shares.append(abs(row.mean_power_w - on_curve_w) / row.mean_power_w)
    if not curves:
        return {}
    awake_w, per_token_j = (float(fmean(values)) for values in zip(*curves, strict=True))
    return {
        "awake_power_w": awake_w,
        "awake_marginal_energy_per_output_token_j": per_token_j,
        "awake_worst_residual": float(max(shares)),
    }


def _rates(rows: Sequence[Metrics]) -> int:
    """Return at how many rates windows lie, both as asked for and as served.

    Workloads of one rate may differ in the length of ramp and horizon.
    """
    asked, served = ({getattr(row, name) for row in rows} for name in RATES)
    return min(len(asked), len(served))


def _line(rows: Sequence[Metrics]) -> Any:
    """Fit the power of windows over their tokens per second by ordinary least squares."""
    from scipy.stats import linregress

    return linregress([row.output_tokens_per_s for row in rows], [row.mean_power_w for row in rows])


def _estimates(
    found: Sequence[tuple[Sequence[Metrics], Any]],
) -> tuple[Estimate, Estimate]:
    """Return intercept and slope with their t-intervals over repeats.

    Of a single repeat they are those of its line, and say nothing of what another would give.
    """
    if len(found) == 1:
        [(rows, line)] = found
        t = t_quantile(len(rows) - 2)
        errors = (line.intercept, line.intercept_stderr), (line.slope, line.stderr)
        ends = ((value, value - t * error, value + t * error) for value, error in errors)
    else:
        values = zip(*((line.intercept, line.slope) for _, line in found), strict=True)
        ends = ((one.mean, one.ci_low, one.ci_high) for one in map(summarise, values))
    intercept, slope = (Estimate(*map(float, one)) for one in ends)
    return intercept, slope


def _straightness(
    found: Sequence[tuple[Sequence[Metrics], Any]],
) -> tuple[float | None, float | None]:
    """Return what the lines explain of the variance inside repeats, and the worst residual.

    Repeats of two windows are left out, since a line goes through any two. Powers that do not
    differ at all, as some estimates are, leave nothing to explain.
    """
    left_w, around_mean_w, shares, differ = [], [], [], False
    for rows, line in found:
        if len(rows) < LEAST_WINDOWS:
            continue
        mean_w = fmean(row.mean_power_w for row in rows)
        differ = differ or len({row.mean_power_w for row in rows}) > 1
        for row in rows:
            left_w.append(row.mean_power_w - line.intercept - line.slope * row.output_tokens_per_s)
            around_mean_w.append(row.mean_power_w - mean_w)
            shares.append(abs(left_w[-1]) / row.mean_power_w)
    r_squared = None
    if differ:
        of_mean, of_line = (sum(w**2 for w in values) for values in (around_mean_w, left_w))
        r_squared = float(1 - of_line / of_mean)
    return r_squared, float(max(shares)) if shares else None
