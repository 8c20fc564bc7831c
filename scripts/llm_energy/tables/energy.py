"""The headline table: joules per output token of every cell and workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_energy.records import Aggregate, AggregateRow
from llm_energy.records.metrics import FACILITY, GROSS, NET, SPEED, STEADY_STATE
from llm_energy.statistics import absolute_quantity, mean_only
from llm_energy.tables.by_cell import (
    CELL,
    ENERGY,
    Measure,
    N,
    block_title,
    filled,
    is_simulated,
    label,
    place,
    remarks,
    to_csv,
)
from llm_energy.tables.sheet import Column, Footnotes, Line, Results, Sheet, Table, row_id, title

MEASURES = (
    Measure("gross", GROSS, brief=True),
    Measure(
        "absolute",
        GROSS,
        absolute_quantity,
        optional=True,
        meaning="Absolute is the same mean with the error of the boards' own sensors in its "
        "interval: 5 % as a standard uncertainty (Yang, Adamek and Armour, SC'24, "
        "arXiv:2312.02741). It is the one to quote beyond one board.",
        head="absolute",
    ),
    Measure("net", NET),
    Measure(
        "steady_state",
        STEADY_STATE,
        optional=True,
        meaning="Steady state is the joules over the output tokens of the time in which the batch "
        "was full; the prefill of requests that join it is inside.",
    ),
    Measure(
        "facility",
        FACILITY,
        optional=True,
        meaning="Facility is gross times the site's power usage effectiveness (PUE).",
    ),
    Measure("tokens_per_s", SPEED, mean_only, brief=True),
    Measure("ttft", "ttft_s", mean_only, brief=True),
)
STATUS = Column("status", None, brief="Energy")
EXPLANATION = (
    "J/output token is the gross energy of the window over its output tokens: the mean over n "
    "repeats ± half its 95 % interval, for comparisons on one board. With one repeat the interval "
    "is the meter's alone, and an estimate has none; with two it is wide because two repeats say "
    "little. Net is gross minus the power of the loaded, idle model times the window. CPU and "
    "memory joules include every process of the host. tok/s counts output tokens; TTFT is the time "
    "to first token, queueing included. Digits follow the interval. Each backend stands by itself."
)


def table(results: Results) -> Table:
    """Give the table; its CSV has every statistic that there is."""
    rows = [row for aggregate in results.aggregates for row in aggregate.rows]
    names = tuple(dict.fromkeys(name for row in rows for name in row.statistics))
    return Table(sheet(results), to_csv(results.aggregates, names))


def sheet(results: Results) -> Sheet:
    """Give one row a cell and workload.

    A row with estimated joules is left out where the same workload has measured ones; the CSV has
    both.
    """
    aggregates, notes = results.aggregates, Footnotes()
    chosen = [(aggregate, *_shown(aggregate)) for aggregate in aggregates]
    rows = [row for _, shown, _ in chosen for row in shown]
    measures = filled(MEASURES, rows)
    return Sheet(
        name="energy",
        title=title("Energy per output token", aggregates[0].sweep, is_simulated(aggregates)),
        label=label(rows),
        explanation=" ".join([EXPLANATION, *(m.meaning for m in measures if m.meaning)]),
        columns=(*CELL, *(measure.column for measure in measures), N, ENERGY, STATUS),
        blocks=tuple(
            (
                block_title(aggregate),
                tuple(_line(row, hidden, measures, notes, results.titles) for row in shown),
            )
            for aggregate, shown, hidden in chosen
        ),
        notes=notes.texts,
    )


def _shown(
    aggregate: Aggregate,
) -> tuple[list[AggregateRow], dict[tuple[str, str], AggregateRow]]:
    """Give the rows that are shown, and by cell and workload the estimates that are not."""
    measured = {(r.cell, r.workload) for r in aggregate.rows if r.energy_status == "measured"}
    shown, hidden = [], {}
    for row in aggregate.rows:
        if row.energy_status == "estimated" and (row.cell, row.workload) in measured:
            hidden[row.cell, row.workload] = row
        else:
            shown.append(row)
    return shown, hidden


def _line(
    row: AggregateRow,
    hidden: dict[tuple[str, str], AggregateRow],
    measures: Sequence[Measure],
    notes: Footnotes,
    titles: Mapping[str, str],
) -> Line:
    source = (row.cell, row.workload)
    cells = place(row) | {measure.name: measure.of(row) for measure in measures}
    cells["status"] = cells["energy"].partition(":")[0]
    if not row.n:
        cells["gross"] = row.outcome
    told = remarks(row, titles)
    if row.n and source in hidden:
        parts = ", ".join(hidden[source].components)
        told.append(f"Estimated joules of {parts} are in energy.csv and not added here.")
    return Line(row_id(source), cells, (source,), notes.marks(told))
