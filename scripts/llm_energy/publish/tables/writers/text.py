"""Set a table as plain text for a terminal."""

from __future__ import annotations

import textwrap

from llm_energy.publish.tables.writers.table import Sheet

TEXT_WIDTH = 100
NARROWEST = 8


def to_text(sheet: Sheet) -> str:
    """Set the columns that have a brief head, with the label, the remark and the notes below.

    A note that every row has is told once and marked on none, the others are counted from 1, and no
    column is kept for no marks.
    """
    columns = [column for column in sheet.columns if column.brief is not None]
    numbers = {k for k, column in enumerate(columns) if column.kind == "number"}
    heads = [column.brief for column in columns] + ["Notes"]
    everywhere = _on_every_row(sheet)
    own = [k for k in range(1, len(sheet.notes) + 1) if k not in everywhere]
    marks = {k: str(mark) for mark, k in enumerate(own, 1)}
    lines = [sheet.title]
    for title, rows in sheet.blocks:
        table = [heads]
        for row in rows:
            cells = [row.cells[column.name] for column in columns]
            table.append([*cells, ",".join(marks[k] for k in row.notes if k in marks)])
        if not any(row[-1] for row in table[1:]):
            table = [row[:-1] for row in table]
        lines += ["", f"[{title}]", *_aligned(table, numbers)]
    lines += ["", *textwrap.wrap(sheet.label, TEXT_WIDTH)]
    lines += [sheet.remark] if sheet.remark else []
    notes = {k: " ".join(note.split()) for k, note in enumerate(sheet.notes, 1)}
    for mark, k in [("Every row:", k) for k in everywhere] + [(f"{marks[k]}.", k) for k in own]:
        lines += textwrap.wrap(f"{mark} {notes[k]}", TEXT_WIDTH, subsequent_indent="   ")
    return "\n".join(lines) + "\n"


def _on_every_row(sheet: Sheet) -> list[int]:
    """Return the notes that all rows have, where there are two rows or more."""
    marks = [set(row.notes) for _, rows in sheet.blocks for row in rows]
    return sorted(set.intersection(*marks)) if len(marks) > 1 else []


def _aligned(table: list[list[str]], right: set[int]) -> list[str]:
    """Align cells in columns two spaces apart; where the page is full, cut the widest texts."""
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    texts = [k for k in range(len(widths)) if k not in right]
    while sum(widths) + 2 * (len(widths) - 1) > TEXT_WIDTH:
        widest = max(texts, key=lambda k: widths[k])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = []
        for k, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cell = cell if len(cell) <= width else f"{cell[: width - 1]}…"
            cells.append(cell.rjust(width) if k in right else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
