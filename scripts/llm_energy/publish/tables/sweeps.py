"""Two sweeps against each other, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from llm_energy.analysis.compare.sweeps import Changed
from llm_energy.analysis.statistics.format import change, interval
from llm_energy.publish.tables.writers import text
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Sheet
from llm_energy.records.registry.metrics import METRICS

COLUMNS = tuple(
    Column(head, None, brief=head)
    for head in ("Workload", "Quantity", "n", "Change", "95 % CI", "Beyond noise")
)


def to_text(rows: Sequence[Changed], earlier: str, later: str) -> str:
    """Return a table for the terminal, cell by cell, and one sentence that sums it up."""
    notes = Footnotes()
    blocks: dict[str, list[Line]] = {}
    rank = {cell: k for k, cell in enumerate(dict.fromkeys(row.cell for row in rows))}
    for row in sorted(rows, key=lambda row: rank[row.cell]):
        title = ", ".join(filter(None, (row.cell, row.energy_status)))
        blocks.setdefault(title, []).append(_line(row, notes))
    beyond = [row for row in rows if row.beyond_noise]
    told = [row for row in rows if row.beyond_noise is not None]
    summary = (
        f"{len(beyond)} of {len(told)} changed beyond noise (Holm's correction, each quantity by "
        f"itself); {len(rows) - len(told)} of {len(rows)} cannot be said."
    )
    sheet = Sheet(
        name="sweeps",
        title=f"Earlier: {earlier}\nLater:   {later}",
        label=summary,
        explanation="",
        columns=COLUMNS,
        blocks=tuple((title, tuple(lines)) for title, lines in blocks.items()),
        notes=notes.texts,
    )
    return text.to_text(sheet)


def _line(row: Changed, notes: Footnotes) -> Line:
    words = {True: "yes", False: "no", None: "-"}
    ends = "-"
    if row.ci_low is not None:
        ends = interval(row.ci_low, row.ci_high).removeprefix("95 % CI ")
    cells = (
        row.workload,
        METRICS[row.metric].head,
        f"{row.n[0]}, {row.n[1]}",
        "-" if row.ratio is None else change(row.ratio),
        ends,
        words[row.beyond_noise],
    )
    named = {column.name: cell for column, cell in zip(COLUMNS, cells, strict=True)}
    place = (row.cell, row.workload)
    return Line("/".join(place), named, (place,), notes.marks(row.remarks))
