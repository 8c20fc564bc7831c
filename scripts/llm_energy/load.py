"""How energy depends on load: joules at each rate of arrivals, and a line through them.

A service that is on pays for being ready, and pays more for each token. Over a window of length T
with n output tokens, E = P_loaded T + e n; so its mean power is P_loaded + e n / T, a straight line
over the tokens per second. Its intercept is the power of an engine that waits, its slope the joules
that one more token costs, its share of a prompt included. As far as larger batches make tokens
cheaper the line bends, which the largest residual tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llm_energy.load_records import Estimate, LoadCurves, LoadFit, LoadPoint
from llm_energy.records import SCHEMA_VERSION, Aggregate, AggregateRow, Metrics, MetricsTable

LEAST_WINDOWS, LEAST_RATES = 3, 2
BEHIND = "E28"  # the check of engines that fall behind their traffic


def load_curves(aggregates: Sequence[Aggregate], tables: Iterable[MetricsTable]) -> LoadCurves:
    """Give how energy depends on load, of all backends of a sweep.

    ``tables`` are read only where a row has timed traffic.
    """
    timed = any(row.traffic for aggregate in aggregates for row in aggregate.rows)
    lines = fits(tables) if timed else ()
    return LoadCurves(SCHEMA_VERSION, aggregates[0].sweep, tuple(points(aggregates)), tuple(lines))


def points(aggregates: Iterable[Aggregate]) -> Iterator[LoadPoint]:
    """Give every row of timed traffic, and the saturated ones of the same work."""
    for aggregate in aggregates:
        rows = [row for row in aggregate.rows if row.n]
        timed = {(row.cell, row.work) for row in rows if row.traffic}
        for row in rows:
            if (row.cell, row.work) in timed:
                place = (row.cell, row.workload, row.energy_status, row.components)
                yield LoadPoint(*place, _utilisation(row, rows))


def _utilisation(row: AggregateRow, rows: Sequence[AggregateRow]) -> float | None:
    """Give the rate of arrivals over that at which the same work is served when all is there."""
    if row.traffic is None:
        return None
    same = [r for r in rows if (r.cell, r.work, r.traffic) == (row.cell, row.work, None)]
    most = max((r.statistics["requests_per_s"].mean or 0.0 for r in same), default=0.0)
    rate = row.statistics["arrival_rate_per_s"].mean
    return rate / most if rate is not None and most else None


def fits(tables: Iterable[MetricsTable]) -> Iterator[LoadFit]:
    """Give one line for each cell, traffic and set of components.

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
    used = [row for row in rows if BEHIND not in row.flags]
    workloads = tuple(dict.fromkeys(row.workload for row in used))
    common = (backend, cell, traffic, status, components, workloads, len(used))
    if len(used) < LEAST_WINDOWS or len(workloads) < LEAST_RATES:
        reason = (
            f"a line needs {LEAST_WINDOWS} windows at {LEAST_RATES} rates or more; there are "
            f"{len(used)} at {len(workloads)}"
        )
        if behind := len(rows) - len(used):
            reason += f", and {behind} that fell behind"
        return LoadFit(*common, reason=reason)
    power_w, per_token_j, r_squared, residuals_w = _line(
        [row.output_tokens_per_s for row in used], [row.mean_power_w for row in used]
    )
    idle_w = [row.loaded_idle_power_w for row in used if row.loaded_idle_power_w is not None]
    shares = [abs(r) / row.mean_power_w for r, row in zip(residuals_w, used, strict=True)]
    return LoadFit(
        *common,
        loaded_power_w=power_w,
        marginal_energy_per_output_token_j=per_token_j,
        r_squared=r_squared,
        worst_residual=max(shares),
        loaded_idle_power_w=sum(idle_w) / len(idle_w) if idle_w else None,
    )


def _line(
    tokens_per_s: Sequence[float], power_w: Sequence[float]
) -> tuple[Estimate, Estimate, float | None, list[float]]:
    """Fit power over tokens per second by ordinary least squares, with t-intervals."""
    import numpy
    from statsmodels.api import OLS, add_constant

    found = OLS(numpy.asarray(power_w), add_constant(numpy.asarray(tokens_per_s))).fit()
    pairs = zip(found.params, found.conf_int(alpha=0.05), strict=True)
    intercept, slope = (Estimate(float(v), float(low), float(high)) for v, (low, high) in pairs)
    # Powers that do not differ at all, as some estimates are, leave nothing to explain.
    r_squared = float(found.rsquared) if max(power_w) > min(power_w) else None
    return intercept, slope, r_squared, found.resid.tolist()
