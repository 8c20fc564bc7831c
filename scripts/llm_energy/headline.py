"""Choose the one row that stands for a cell and workload where only one can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_energy.records import Aggregate, AggregateRow
from llm_energy.records.metrics import GROSS


def headline_rows(aggregates: Iterable[Aggregate]) -> list[AggregateRow]:
    """Give one row with joules per output token for each cell and workload that has any.

    Measured joules go before estimated ones, then the sum of components with the most repeats.
    """
    chosen: dict[tuple[str, str], AggregateRow] = {}
    for row in (row for aggregate in aggregates for row in aggregate.rows):
        if row.n and row.statistics[GROSS].mean is not None:
            key = (row.cell, row.workload)
            if key not in chosen or _rank(row) > _rank(chosen[key]):
                chosen[key] = row
    return list(chosen.values())


def representatives(rows: Sequence[AggregateRow]) -> dict[str, str]:
    """Give for each cell the measurement of the first repeat that entered its rows."""
    found: dict[str, str] = {}
    for row in rows:
        found.setdefault(row.cell, min(row.measurements))
    return found


def _rank(row: AggregateRow) -> tuple[bool, int]:
    return row.energy_status == "measured", row.n
