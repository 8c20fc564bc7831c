"""The headline table: joules per output token of every cell and workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_energy.analysis.grouping.rows import Place, hidden, visible
from llm_energy.analysis.statistics.format import absolute_quantity, mean_only
from llm_energy.publish.tables.cell_rows import (
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
from llm_energy.publish.tables.writers.table import (
    Column,
    Footnotes,
    Line,
    Results,
    Sheet,
    Table,
    row_id,
    title,
)
from llm_energy.records import AggregateRow
from llm_energy.records.registry.metrics import (
    ACCEPTED_DRAFTS,
    FACILITY,
    GROSS,
    NET,
    SERVICE_TTFT,
    SPEED,
    STEADY_STATE,
    TTFT,
)

MEASURES = (
    Measure("gross", GROSS, brief=True),
    Measure(
        "absolute",
        GROSS,
        absolute_quantity,
        optional=True,
        meaning="Absolute is the same mean with the error of the GPUs' own sensors in its "
        "interval: 5 % as a standard uncertainty (Yang, Adamek and Armour, SC'24, "
        "arXiv:2312.02741). It is the one to quote beyond one GPU.",
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
    Measure("service_ttft", SERVICE_TTFT, mean_only, brief="TTFT (s)", optional=True),
    Measure("ttft", TTFT, mean_only),
    Measure("queueing", "queueing_s", mean_only, optional=True),
    Measure("accepted_drafts", ACCEPTED_DRAFTS, mean_only, optional=True),
)
STATUS = Column("status", None, brief="Energy")
EXPLANATION = (
    "J/output token is the gross energy of the window over its output tokens: the mean over n "
    "repeats ± half its 95 % interval, for comparisons on one GPU. With one repeat the interval "
    "is the meter's alone, and an estimate has none; with two it is wide because two repeats say "
    "little. It allows for repeats that are correlated by up to 0.3, takes their scatter as "
    "normal, and speaks of the one session that they were measured in (one host, one boot, no "
    "pause of more than six hours), unless a note names several. "
    "Net is gross minus the power of the loaded, idle model times the window. CPU and "
    "memory joules include every process of the host. tok/s counts output tokens; service TTFT is "
    "the time from the begin of service to the first token; TTFT is from when a request was due, "
    "offline from the start of the pass, with its time in the queue. Digits follow the "
    "interval. Each backend stands by itself. ± is for the sweep's own prompts unless a note says "
    "that they were drawn anew."
)
BEYOND = (
    "± is for comparisons on one GPU, within one session; energy.md has the absolute intervals."
)


def table(results: Results) -> Table:
    """Return the table; its CSV has every statistic that there is."""
    rows = [row for aggregate in results.aggregates for row in aggregate.rows]
    names = tuple(dict.fromkeys(name for row in rows for name in row.statistics))
    return Table(sheet(results), to_csv(results.aggregates, names))


def sheet(results: Results) -> Sheet:
    """Return one row a cell and workload.

    A row with estimated joules is left out where the same workload has measured ones; the CSV has
    both.
    """
    aggregates, notes = results.aggregates, Footnotes()
    rows, unseen = visible(aggregates), hidden(aggregates)
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
                tuple(
                    _line(row, measures, notes.marks(_told(row, unseen, results)))
                    for row in visible([aggregate])
                ),
            )
            for aggregate in aggregates
        ),
        notes=notes.texts,
        in_terminal=True,
        remark=BEYOND if any(measure.name == "absolute" for measure in measures) else None,
    )


def _line(row: AggregateRow, measures: Sequence[Measure], marks: tuple[int, ...]) -> Line:
    cells = place(row) | {measure.name: measure.of(row) for measure in measures}
    cells["status"] = cells["energy"].partition(":")[0]
    if not row.n:
        cells["gross"] = row.outcome
    source = (row.cell, row.workload)
    return Line(row_id(source), cells, (source,), marks)


def _told(row: AggregateRow, unseen: Mapping[Place, AggregateRow], results: Results) -> list[str]:
    """Return the footnotes of a row: where it is lowest, its remarks, and what is not shown."""
    source = (row.cell, row.workload)
    told = [*_lowest(row, results), *remarks(row, results.titles)]
    if row.n and source in unseen:
        parts = ", ".join(unseen[source].components)
        told.append(f"Estimated joules of {parts} are in energy.csv and not added here.")
    return told


def _lowest(row: AggregateRow, results: Results) -> list[str]:
    """Say that a row has the lowest energy of its work, where others do the same work."""
    found = results.comparisons.lowest if results.comparisons else ()
    asked = (row.cell, row.workload, row.energy_status, row.components)
    return [
        f"{one.statement}."
        for one in found
        if one.rows > 1 and (one.cell, one.workload, one.energy_status, one.components) == asked
    ]
