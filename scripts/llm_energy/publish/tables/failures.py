"""What gave no result, with the reason: cells that could not run, repeats that were left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from llm_energy.publish.tables.cell_rows import CELL, Frame, block_title, framed, place
from llm_energy.publish.tables.writers.table import Column, Line, Results, Table, row_id
from llm_energy.records import AggregateRow

COLUMNS = (
    *CELL,
    Column("outcome", "Outcome"),
    Column("repeats", "Repeats"),
    Column("reason", "Reason", "prose"),
)
EXPLANATION = (
    "oom: out of memory. unsupported: the engine or the host cannot do it. failed: the engine "
    "broke off. missing: there is no measurement. invalid: measured, but a check found a fault "
    "that makes the number worthless. No such repeat enters any mean."
)
ALL_WELL = "Nothing failed: every planned repeat of every cell gave a usable window."
HEADS = ("backend", "cell", "model", "precision", "workload", "outcome", "repeats", "reason")


class Failure(NamedTuple):
    """One kind of failure of one cell and workload; ``repeats`` is empty where none could run."""

    row: AggregateRow
    outcome: str
    repeats: tuple[int, ...]
    reason: str

    @property
    def names(self) -> str:
        """Return the names of the repeats, or say that it is the whole cell."""
        return " ".join(f"r{number:02d}" for number in self.repeats)


def table(results: Results) -> Table:
    """Return one row a cell, workload and reason."""
    found = [(block_title(one), list(_failures(one.rows))) for one in results.aggregates]
    values = [
        [*(getattr(one.row, name) for name in HEADS[:5]), one.outcome, one.names, one.reason]
        for _, failures in found
        for one in failures
    ]
    label = f"{len(values)} kinds of failure, by cell and workload."
    frame = Frame("failures", "What gave no result", label, EXPLANATION, COLUMNS, ALL_WELL)
    blocks = [(title, tuple(map(_line, failures))) for title, failures in found]
    return framed(results, frame, blocks, (), HEADS, values)


def _failures(rows: tuple[AggregateRow, ...]) -> Iterator[Failure]:
    """Collect the repeats of a cell and workload that share a reason; joules of both kinds do."""
    found: dict[tuple[str, str, str], tuple[AggregateRow, set[int]]] = {}
    for row in rows:
        reasons = list(row.excluded) or ([] if row.n else [(0, row.reason or row.outcome)])
        for repeat, reason in reasons:
            _, repeats = found.setdefault((row.cell, row.workload, reason), (row, set()))
            repeats.add(repeat)
    for (_, _, reason), (row, repeats) in found.items():
        outcome, colon, why = reason.partition(": ")
        if not colon:
            outcome, why = (row.outcome, reason) if not row.n else ("left out", reason)
        yield Failure(row, outcome, tuple(sorted(repeats - {0})), why)


def _line(failure: Failure) -> Line:
    source = (failure.row.cell, failure.row.workload)
    cells = place(failure.row) | {
        "outcome": failure.outcome,
        "repeats": failure.names or "all",
        "reason": failure.reason,
    }
    return Line(row_id(source), cells, (source,))
