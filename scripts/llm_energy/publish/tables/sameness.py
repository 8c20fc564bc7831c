"""Whether the backends did the same work, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from llm_energy.analysis.sameness import Sameness
from llm_energy.analysis.statistics.format import ABSENT
from llm_energy.publish.csv_text import csv_text
from llm_energy.publish.tables.writers.table import (
    Column,
    Footnotes,
    Line,
    Sheet,
    Table,
    row_id,
    title,
)
from llm_energy.records.plan import cell_id

COLUMNS = (
    Column("model", "Model", brief="Model"),
    Column("precision", "Precision", brief="Precision"),
    Column("workload", "Workload", brief="Workload"),
    Column("backends", "Backends", brief="Backends"),
    Column("same_prompts", "Same prompt ids", brief="Prompts"),
    Column("same_weights", "Same weights", brief="Weights"),
    Column("lengths_forced", "Lengths as forced", brief="Lengths"),
    Column("requests", "n", "number", "n"),
    Column("identical_requests", "identical outputs (%)", "number", "identical (%)"),
    Column("shortest_prefix", "shortest common prefix", "number"),
    Column("median_prefix", "median common prefix", "number"),
)
WORK = ("same_prompts", "same_weights", "lengths_forced")
HEADS = tuple(field.name for field in fields(Sameness))
EXPLANATION = (
    "n requests were answered by both backends in their first usable repeats. Prefixes are the "
    "leading token ids that two outputs share. Identical outputs are expected in float32 alone."
)
NOTHING = "Nothing to compare: fewer than two backends measured."


def table(sweep: str, rows: Sequence[Sameness]) -> Table:
    """Return one row for each pair of backends on each model, precision and workload."""
    notes = Footnotes()
    lines = tuple(_line(row, notes) for row in rows)
    unequal = sum(any(getattr(row, name) is False for name in WORK) for row in rows)
    told = f"{unequal} of {len(rows)} pairs did not do the same work; see where it says no."
    if not unequal:
        told = "Every pair had the same prompts, weights and lengths, as far as they are known."
    sheet = Sheet(
        name="sameness",
        title=title("Whether the backends did the same work", sweep, simulated=False),
        label=told if rows else NOTHING,
        explanation=EXPLANATION,
        columns=COLUMNS,
        blocks=(("Pairs of backends", lines),) if rows else (),
        notes=notes.texts,
        in_terminal=True,
    )
    values = (
        [sweep, *(" ".join(v) if isinstance(v := getattr(row, n), tuple) else v for n in HEADS)]
        for row in rows
    )
    return Table(sheet, csv_text(("sweep", *HEADS), values))


def _line(row: Sameness, notes: Footnotes) -> Line:
    cells = [cell_id(row.model, backend, row.precision) for backend in row.backends]
    sources = tuple((cell, row.workload) for cell in cells)
    written = {column.name: _written(getattr(row, column.name)) for column in COLUMNS}
    if row.identical_requests is not None:
        written["identical_requests"] = f"{100 * row.identical_requests:.1f}"
    told = [f"Not compared: {row.reason}."] if row.reason else []
    return Line(row_id(*sources), written, sources, notes.marks(told))


def _written(value: object) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
