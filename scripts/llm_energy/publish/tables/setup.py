"""The set-up of a sweep for a paper's appendix: the conditions, the windows and the repeats."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy.analysis.grouping.rows import place, visible
from llm_energy.analysis.statistics.format import significant
from llm_energy.publish.tables.cell_rows import Frame, framed, label
from llm_energy.publish.tables.writers.table import Column, Line, Results, Table
from llm_energy.records import AggregateRow

MOST_SHOWN = 8  # values of one condition; the CSV has all
COLUMNS = (Column("condition", "Condition"), Column("values", "Value", "prose"))
EXPLANATION = (
    "Each repeat is a fresh process inside the engine's own environment. The window of a workload "
    "opens once warm-up passes take the same time, or after the last one that is allowed, and "
    "holds whole passes. Intervals are 95 % t-intervals over repeats, widened by what the meter "
    "leaves open. A condition with several values is the same within a cell and workload. Hashes "
    "are the first digits of a SHA-256."
)
HEADS = ("condition", "title", "value")


def table(results: Results) -> Table:
    """Return one row a condition, in the order of the comparisons; its CSV has one row a value."""
    rows = [row for row in visible(results.aggregates) if row.n]
    found = [*_conditions(results), *_measuring(rows)] if rows else []
    sources = tuple(dict.fromkeys(place(row) for row in rows))
    lines = tuple(
        Line(name, {"condition": title, "values": _shown(values)}, sources)
        for name, title, values in found
    )
    frame = Frame("setup", "Set-up", label(rows), EXPLANATION, COLUMNS)
    values = [(name, title, value) for name, title, values in found for value in values]
    return framed(results, frame, [("conditions", lines)], (), HEADS, values)


def _conditions(results: Results) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    held = results.comparisons.held_fixed if results.comparisons else ()
    yield from ((one.field, one.title, one.values) for one in held)


def _measuring(rows: list[AggregateRow]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    repeats = sorted({row.n for row in rows})
    yield "n", "repeats that entered", tuple(map(str, repeats))
    lengths_s = [
        row.statistics["duration_s"].mean for row in rows if "duration_s" in row.statistics
    ]
    if lengths_s:
        ends = dict.fromkeys(significant(end(lengths_s), 3) for end in (min, max))
        yield "duration_s", "length of a window (s), mean over repeats", (" to ".join(ends),)


def _shown(values: tuple[str, ...]) -> str:
    """Return the values in one line.

    >>> _shown(("1", "32"))
    '1; 32'
    """
    more = len(values) - MOST_SHOWN
    return "; ".join([*values[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])])
