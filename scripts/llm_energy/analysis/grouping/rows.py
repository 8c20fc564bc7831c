"""Choose which rows of the aggregates are shown, and which one stands for a cell and workload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_energy.records import Aggregate, AggregateRow, Status
from llm_energy.records.registry.metrics import GROSS

Place = tuple[str, str]  # cell, workload


def place(row: AggregateRow) -> Place:
    """Name what a row is about."""
    return row.cell, row.workload


def key(row: AggregateRow) -> tuple[str, str, Status, tuple[str, ...]]:
    """Name a row among those of one sweep: what it is about, and what its joules are."""
    return row.cell, row.workload, row.energy_status, row.components


def visible(aggregates: Iterable[Aggregate]) -> list[AggregateRow]:
    """Return the rows that are shown, those without joules included.

    Estimated joules are hidden where the same cell and workload has measured ones.
    """
    rows = [row for aggregate in aggregates for row in aggregate.rows]
    measured = {place(row) for row in rows if row.energy_status == "measured"}
    return [r for r in rows if r.energy_status != "estimated" or place(r) not in measured]


def hidden(aggregates: Iterable[Aggregate]) -> dict[Place, AggregateRow]:
    """Return, by cell and workload, the rows of estimated joules that are not shown."""
    aggregates = list(aggregates)
    shown = {id(row) for row in visible(aggregates)}
    rows = (row for aggregate in aggregates for row in aggregate.rows)
    return {place(row): row for row in rows if id(row) not in shown}


def with_energy(aggregates: Iterable[Aggregate]) -> list[AggregateRow]:
    """Return the visible rows that have joules per output token."""
    return [r for r in visible(aggregates) if r.n and r.statistics[GROSS].mean is not None]


def one_per_place(rows: Iterable[AggregateRow]) -> list[AggregateRow]:
    """Return one row for each cell and workload: the sum of components with the most repeats."""
    chosen: dict[Place, AggregateRow] = {}
    for row in rows:
        if place(row) not in chosen or row.n > chosen[place(row)].n:
            chosen[place(row)] = row
    return list(chosen.values())


def representatives(rows: Sequence[AggregateRow]) -> dict[str, str]:
    """Return for each cell the measurement of the first repeat that entered its rows."""
    found: dict[str, str] = {}
    for row in rows:
        found.setdefault(row.cell, min(row.measurements))
    return found
