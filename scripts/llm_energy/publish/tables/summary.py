"""One choice against another: energy, speed, latency, quality and memory side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm_energy.analysis.grouping.rows import Place
from llm_energy.publish import answers
from llm_energy.publish.tables.cell_rows import Frame, framed
from llm_energy.publish.tables.comparisons import NOT_COMPARED
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records import AggregateRow
from llm_energy.records.comparison import Answer, Figure

TEXTS, BRIEF = ("quantity", "told"), {"low": "95 %"}
COLUMNS = tuple(
    Column(name, head, "text" if name in TEXTS else "number", BRIEF.get(name, head))
    for name, head in answers.HEADS.items()
)
HEADS = (
    *("contrast", "reference_cell", "reference_workload", "other_cell", "other_workload"),
    *("energy_status", "components", "metric", "reference", "other", "n", "ratio", "ci_low"),
    *("ci_high", "outcome", "repeats_needed", "statement"),
)


def table(results: Results) -> Table:
    """Return a block for each pair, a row for each quantity, and the answer in words below."""
    found = results.comparisons.answers if results.comparisons else ()
    rows = answers.rows_by_place(results.aggregates)
    notes = Footnotes()
    blocks = [(_title(one), tuple(_lines(one, rows, notes))) for one in found]
    told = "The notes give each answer in a sentence."
    frame = Frame("summary", "A against B", told, answers.EXPLANATION, COLUMNS, NOT_COMPARED, True)
    values = (_values(one, figure) for one in found for figure in one.figures)
    return framed(results, frame, blocks, notes.texts, HEADS, values)


def _title(one: Answer) -> str:
    return f"A {row_id(one.reference)}, B {row_id(one.other)}"


def _lines(one: Answer, rows: Mapping[Place, AggregateRow], notes: Footnotes) -> Iterator[Line]:
    ends, marks = (one.reference, one.other), notes.marks([f"{one.statement}."])
    for metric, cells in answers.figures(one, rows):
        yield Line(f"{row_id(*ends)} {metric}", cells, ends, marks)
        marks = ()


def _values(one: Answer, figure: Figure) -> list[object]:
    return [
        *(one.contrast, *one.reference, *one.other, one.energy_status, " ".join(one.components)),
        *(figure.metric, figure.reference, figure.other, figure.n, figure.ratio, figure.ci_low),
        *(figure.ci_high, figure.outcome, one.repeats_needed, one.statement),
    ]
