"""Set a table as Markdown."""

from __future__ import annotations

from llm_energy.publish.tables.writers.table import Sheet


def to_markdown(sheet: Sheet) -> str:
    """Set a table as a page of Markdown, one table a block, with numbered notes."""
    columns = [column for column in sheet.columns if column.head is not None]
    lines = [f"# {_escape(sheet.title)}", "", f"**{_escape(sheet.label)}**", ""]
    lines += [_escape(sheet.explanation), ""]
    heads = [_escape(column.head) for column in columns] + ["Notes"]
    rule = ["---:" if column.kind == "number" else "---" for column in columns] + ["---"]
    for title, rows in sheet.blocks:
        lines += [f"## {_escape(title)}", "", _row(heads), _row(rule)]
        for row in rows:
            cells = [_escape(row.cells[column.name]) for column in columns]
            lines.append(_row([*cells, ", ".join(map(str, row.notes))]))
        lines.append("")
    if sheet.notes:
        lines += ["Notes:", ""]
        lines += [f"{k}. {_escape(note)}" for k, note in enumerate(sheet.notes, 1)]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Keep text from being read as markup or as the end of a cell."""
    return " ".join(text.translate(_ESCAPED).split())


_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", **{mark: f"\\{mark}" for mark in "\\|`*_[]"}})
