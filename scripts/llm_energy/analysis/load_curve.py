"""How energy depends on load: joules at each rate of arrivals, and a line through them.

A service that is on pays for being ready, and pays more for each token. Over a window of length T
with k output tokens, E = P_loaded T + e k; so its mean power is P_loaded + e k / T, a straight line
over the tokens per second. Its intercept is the power of an engine that waits, its slope the joules
that one more token costs, its share of a prompt included. As far as tokens of larger batches take
less energy, the line bends, which the largest residual tells.

The windows of one repeat share a process and the state of its GPU, so they are not independent:
each repeat gives one line, and the intervals come from how far the lines of repeats lie apart. A
t-interval over groups holds its truth also where some know their lines worse than others, since
they have fewer windows (R. Ibragimov and U. K. Müller, Journal of Business & Economic Statistics
28(4), 2010, doi:10.1198/jbes.2009.08046).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

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
    return LoadFit(
        *common,
        without_line=tuple(sorted(by_repeat.keys() - lying.keys())),
        loaded_power_w=power_w,
        marginal_energy_per_output_token_j=per_token_j,
        r_squared=r_squared,
        worst_residual=worst,
        loaded_idle_power_w=fmean(idle_w.values()) if idle_w else None,
    )


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
