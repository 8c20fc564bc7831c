"""How energy depends on load: joules at each rate of arrivals, and a line through them.

A service that is on pays for being ready, and pays more for each token. Over a window of length T
with k output tokens, E = P_loaded T + e k; so its mean power is P_loaded + e k / T, a straight line
over the tokens per second. Its intercept is the power of an engine that waits, its slope the joules
that one more token costs, its share of a prompt included. As soon as requests overlap, the line
bends: its intercept then lies above what a waiting engine draws. So it is dropped where its
residuals exceed its interval or its intercept contradicts the measured idle power, and a curve that
begins there stands beside it: a window is busy for a share 1 - exp(-rate * e2e) of its time, as a
queue with a place for all is (M/G/infinity), so P = P_idle + P_awake * share + e k / T.

Neither has an interval, since either assumes a shape: a bend that no residual shows puts intercept
and slope of the line outside of theirs, and tokens that cost less in larger batches those of the
curve. What has one is the cost of one more token between two neighbouring rates, which assumes no
shape. The windows of one repeat share a process and the state of its GPU, so that each repeat
counts once, however many rates it has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from llm_energy.analysis.grouping.scopes import Scopes
from llm_energy.analysis.statistics.format import three_digits
from llm_energy.analysis.statistics.intervals import t_quantile
from llm_energy.analysis.statistics.summary import over_groups, summarise
from llm_energy.records import (
    SCHEMA_VERSION,
    Aggregate,
    AggregateRow,
    Metrics,
    MetricsTable,
    Statistic,
)
from llm_energy.records.load_curve import Estimate, LoadCurves, LoadFit, LoadPoint

Place = tuple[str, str, str, tuple[str, ...]]  # cell, workload, energy status, components

LEAST_WINDOWS, LEAST_RATES = 3, 2
SIGMAS = 3.0
ROUNDING = 1e-9
RATES = ("requested_rate_per_s", "output_tokens_per_s")
POISSON = "poisson"  # the share in which such an engine is busy is known, of no other traffic
BEHIND = "E28"  # the check of engines that fall behind their traffic


def load_curves(aggregates: Sequence[Aggregate], tables: Iterable[MetricsTable]) -> LoadCurves:
    """Return how energy depends on load, of all backends of a sweep.

    ``tables`` are read only where a row has timed traffic.
    """
    timed = any(row.traffic for aggregate in aggregates for row in aggregate.rows)
    read = list(tables) if timed else []
    costs = marginals(read)
    found = (
        replace(p, marginal_energy_per_output_token_j=costs.get(_place(p)))
        for p in points(aggregates)
    )
    return LoadCurves(SCHEMA_VERSION, aggregates[0].sweep, tuple(found), tuple(fits(read)))


def _place(one: LoadPoint | Metrics) -> Place:
    return one.cell, one.workload, one.energy_status, one.components


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
    return (_fit(*key[:-1], rows) for key, rows in _alike(tables).items())


def _alike(tables: Iterable[MetricsTable]) -> dict[tuple[Any, ...], list[Metrics]]:
    """Return the windows of timed traffic that differ in their rate and repeat alone."""
    groups: dict[tuple[Any, ...], list[Metrics]] = {}
    for row in (row for table in tables for row in table.rows):
        if row.traffic not in (None, "closed_loop"):  # there the engine sets its own rate
            key = (row.backend, row.cell, row.traffic, row.energy_status, row.components)
            groups.setdefault((*key, row.series), []).append(row)
    return groups


def marginals(tables: Sequence[MetricsTable]) -> dict[Place, Statistic]:
    """Return what one more output token costs between the next lower rate and each one, in joules.

    It is how much more power there was over how many more tokens per second. This needs no shape of
    the curve. A repeat serves one pattern of arrivals at all rates, so each gives one difference;
    the ratio is that of their sums, and its scatter that of a ratio (Cochran, as for joules over
    tokens). Windows in which the engine fell behind are left out.
    """
    scopes = Scopes(tables, pool_machines=False)
    found: dict[Place, Statistic] = {}
    for rows in _alike(tables).values():
        by_rate: dict[float, dict[int, Metrics]] = {}
        for row in rows:
            if BEHIND not in row.flags and row.requested_rate_per_s is not None:
                by_rate.setdefault(row.requested_rate_per_s, {})[row.repeat] = row
        for lower, upper in itertools.pairwise(sorted(by_rate)):
            pairs = [
                (by_rate[lower][repeat], row)
                for repeat, row in by_rate[upper].items()
                if repeat in by_rate[lower]
            ]
            if one := _marginal(pairs, scopes):
                found[_place(pairs[0][1])] = one
    return found


def _marginal(pairs: Sequence[tuple[Metrics, Metrics]], scopes: Scopes) -> Statistic | None:
    more_w = [b.mean_power_w - a.mean_power_w for a, b in pairs]
    more_per_s = [b.output_tokens_per_s - a.output_tokens_per_s for a, b in pairs]
    mean_per_s = fmean(more_per_s) if pairs else 0.0
    if not mean_per_s > 0:
        return None
    ratio = fmean(more_w) / mean_per_s
    uppers = [upper for _, upper in pairs]
    scope = scopes.of(uppers)
    return scope.bare(
        over_groups(
            [ratio + (w - ratio * k) / mean_per_s for w, k in zip(more_w, more_per_s, strict=True)],
            [scope.groups.get(row.measurement) for row in uppers],
        )
    )


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
            f"a line needs {LEAST_RATES} rates in a repeat, and to be judged {LEAST_WINDOWS} "
            f"windows there or a second such repeat; found windows: {len(used)}, "
            f"rates: {_rates(used)}, repeats: {len(repeats)}"
        )
        if behind := sum(BEHIND in row.flags for row in rows):
            reason += f", and fallen behind: {behind}"
        return LoadFit(*common, reason=reason)
    found = [(own, _line(own)) for own in lying.values()]
    power_w, standard_w, t = _intercept(found)
    r_squared, worst = _straightness(found)
    idle_w = {r.repeat: w for r in used if (w := r.loaded_idle_power_w) is not None}
    reason = _misfit(found, power_w, t * standard_w)
    reason = reason or _contradiction(power_w, standard_w, [*idle_w.values()])
    per_token_j = float(fmean(line.slope for _, line in found))
    return LoadFit(
        *common,
        without_line=tuple(sorted(by_repeat.keys() - lying.keys())),
        loaded_power_w=None if reason else Estimate(power_w),
        marginal_energy_per_output_token_j=None if reason else Estimate(per_token_j),
        r_squared=r_squared,
        worst_residual=worst,
        loaded_idle_power_w=fmean(idle_w.values()) if idle_w else None,
        reason=reason,
        **(_awake(lying.values()) if traffic == POISSON else {}),
    )


def _misfit(
    found: Sequence[tuple[Sequence[Metrics], Any]], power_w: float, half_w: float
) -> str | None:
    """Say that windows lie off the lines further than P_loaded is uncertain, or None.

    Of one rate over all repeats: what scatters about a straight line averages out, a bend does not.
    """
    left_w: dict[str, list[float]] = {}
    for rows, line in found:
        for row in rows if len(rows) >= LEAST_WINDOWS else ():
            on_line_w = line.intercept + line.slope * row.output_tokens_per_s
            left_w.setdefault(row.workload, []).append(row.mean_power_w - on_line_w)
    worst_w = max((abs(fmean(values)) for values in left_w.values()), default=0.0)
    if not worst_w > half_w + ROUNDING * abs(power_w):
        return None
    return (
        f"the windows do not lie on a line: one rate is {three_digits(worst_w)} W off, and "
        f"P_loaded is uncertain by ± {three_digits(half_w)} W"
    )


def _contradiction(power_w: float, standard_w: float, idle_w: Sequence[float]) -> str | None:
    """Say that an engine that waits draws less than the intercept, beyond what both leave open."""
    if not idle_w:
        return None
    idle_standard_w = summarise(idle_w).sd or 0.0
    allowed_w = SIGMAS * math.hypot(standard_w, idle_standard_w / math.sqrt(len(idle_w)))
    above_w = power_w - fmean(idle_w)
    if not above_w > allowed_w + ROUNDING * abs(power_w):
        return None
    return (
        f"the line would begin at {three_digits(power_w)} W, which is no power of waiting: "
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


def _intercept(found: Sequence[tuple[Sequence[Metrics], Any]]) -> tuple[float, float, float]:
    """Return the intercept in W, its standard uncertainty and the t value of its 95 % interval.

    Over repeats; of a single repeat it is that of its line.
    """
    if len(found) == 1:
        [(rows, line)] = found
        return float(line.intercept), float(line.intercept_stderr), t_quantile(len(rows) - 2)
    one = summarise([float(line.intercept) for _, line in found])
    t = t_quantile(one.n - 1)
    return one.mean, (one.ci_high - one.mean) / t, t


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
