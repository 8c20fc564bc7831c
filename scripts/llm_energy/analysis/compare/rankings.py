"""Show the aggregates of a sweep in order: by several denominators, and energy against speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_energy.records import AggregateRow, Statistic
from llm_energy.records.comparison import ParetoFront, ParetoPoint, RankChange, RankedRow, Ranking
from llm_energy.records.registry.metrics import DENOMINATORS, GROSS, METRICS, SPEED, TTFT, ttft_of

AGAINST = ("e2e_latency_s", TTFT, "tpot_s", SPEED)
SHOWN = 10  # changes of places
NEAR = 20  # places by the headline, beyond which two rows are not looked at for a change


def rankings(rows: Iterable[AggregateRow]) -> list[Ranking]:
    """Order the cells and workloads of each backend and scope by every denominator."""
    groups: dict[tuple, list[AggregateRow]] = {}
    for row in rows:
        groups.setdefault((row.backend, row.energy_status, row.components), []).append(row)
    return [_ranking(*scope, group) for scope, group in groups.items() if len(group) > 1]


def _ranking(backend, status, components, rows: list[AggregateRow]) -> Ranking:
    metrics = [name for name in DENOMINATORS if any(_mean(row, name) is not None for row in rows)]
    rows = sorted(rows, key=lambda row: _mean(row, GROSS))
    ranks: list[dict[str, int]] = [{} for _ in rows]
    for name in metrics:
        known = [k for k, row in enumerate(rows) if _mean(row, name) is not None]
        for rank, k in enumerate(sorted(known, key=lambda k: _mean(rows[k], name)), 1):
            ranks[k][name] = rank
    changes = list(_changes(rows, metrics[1:]))
    changes.sort(key=lambda change: -change[0])
    return Ranking(
        backend=backend,
        energy_status=status,
        components=components,
        metrics=tuple(metrics),
        rows=tuple(
            RankedRow(
                row.cell,
                row.workload,
                {name: _mean(row, name) for name in metrics if name in rank},
                rank,
            )
            for row, rank in zip(rows, ranks, strict=True)
        ),
        changes=tuple(change for _, change in changes[:SHOWN]),
        changes_total=len(changes),
    )


def _changes(
    rows: Sequence[AggregateRow], metrics: Sequence[str]
) -> Iterator[tuple[float, RankChange]]:
    """Return the pairs that another metric puts in another order, with how far it sets them apart.

    Their intervals are apart by both metrics, so that noise alone changes no place.
    """
    for k, first in enumerate(rows):
        for second in rows[k + 1 : k + NEAR]:
            if not _apart(first, second, GROSS):
                continue
            for name in metrics:
                if _apart(second, first, name):
                    words = METRICS[name].label
                    statement = (
                        f"{first.cell} at {first.workload} uses less than {second.cell} at "
                        f"{second.workload} by {METRICS[GROSS].label}, and more by {words}"
                    )
                    places = (first.cell, first.workload), (second.cell, second.workload)
                    far = _mean(first, name) / _mean(second, name)
                    yield far, RankChange(name, *places, statement)


def _apart(less: AggregateRow, more: AggregateRow, name: str) -> bool:
    """Return whether one interval ends before another begins; False without intervals."""
    ends = (less.statistics.get(name), more.statistics.get(name))
    if any(end is None or end.ci_low is None for end in ends):
        return False
    return ends[0].ci_high < ends[1].ci_low


def fronts(groups: Iterable[tuple[str, Sequence[AggregateRow]]]) -> list[ParetoFront]:
    """Set joules per output token against each latency and the throughput.

    Each group is the work in words and the cells and workloads that do it, for one model on one
    backend, in one scope.
    """
    found = []
    for work, rows in groups:
        for name in AGAINST:
            against = ttft_of(rows[0].traffic) if name == TTFT else name
            known = [row for row in rows if _mean(row, against) is not None]
            if len(known) > 1:
                found.append(_front(work, known, against))
    return found


def _front(work: str, rows: Sequence[AggregateRow], against: str) -> ParetoFront:
    better = METRICS[against].better
    sign = 1 if better == "less" else -1
    order = sorted(rows, key=lambda row: (_mean(row, GROSS), sign * _mean(row, against)))
    by_row: dict[int, tuple[str, str] | None] = {}
    best: AggregateRow | None = None
    for row in order:  # by rising energy, so only what is faster than all before is on the front
        if best is None or sign * _mean(row, against) < sign * _mean(best, against):
            by_row[id(row)], best = None, row
        else:
            by_row[id(row)] = (best.cell, best.workload)
    first = rows[0]
    return ParetoFront(
        backend=first.backend,
        model=first.model,
        energy_status=first.energy_status,
        components=first.components,
        work=work,
        against=against,
        better=better,
        points=tuple(_point(row, against, by_row[id(row)]) for row in rows),
    )


def _point(row: AggregateRow, against: str, dominated_by: tuple[str, str] | None) -> ParetoPoint:
    energy, other = row.statistics[GROSS], row.statistics[against]
    return ParetoPoint(
        cell=row.cell,
        workload=row.workload,
        precision=row.precision,
        batch_size=row.batch_size or 0,
        energy_j=energy.mean,
        energy_ci_low_j=energy.ci_low,
        energy_ci_high_j=energy.ci_high,
        against=other.mean,
        against_ci_low=other.ci_low,
        against_ci_high=other.ci_high,
        dominated_by=dominated_by,
    )


def _mean(row: AggregateRow, name: str) -> float | None:
    statistic: Statistic | None = row.statistics.get(name)
    return statistic.mean if statistic else None
