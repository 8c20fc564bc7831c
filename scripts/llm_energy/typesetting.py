"""Set a sheet of tables for people as Markdown, LaTeX or plain text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

TEXT_WIDTH = 100
COLUMNS = (
    ("model", "Model"),
    ("precision", "Precision"),
    ("workload", "Workload (batch)"),
    ("gross", "J/output token"),
    ("absolute", "absolute"),
    ("net", "net J/output token"),
    ("steady_state", "steady-state J/output token"),
    ("facility", "facility J/output token"),
    ("tokens_per_s", "tok/s"),
    ("ttft", "TTFT (s)"),
    ("n", "n"),
    ("energy", "Energy"),
)
NUMERIC = {"gross", "absolute", "net", "steady_state", "facility", "tokens_per_s", "ttft", "n"}


@dataclass(frozen=True)
class Line:
    """One row of the tables for people; ``notes`` are the numbers of its footnotes."""

    model: str
    precision: str
    workload: str
    gross: str
    absolute: str
    net: str
    steady_state: str
    facility: str
    tokens_per_s: str
    ttft: str
    n: str
    energy: str
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """What the tables for people say, before it is set as Markdown, LaTeX or text."""

    title: str
    label: str
    explanation: str
    columns: tuple[tuple[str, str], ...]
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]


def to_markdown(content: Sheet) -> str:
    """Set the tables as Markdown, one per backend, with numbered notes."""
    lines = [f"# {_markdown(content.title)}", "", f"**{content.label}**", ""]
    lines += [content.explanation, ""]
    heads = [head for _, head in content.columns] + ["Notes"]
    rule = ["---:" if name in NUMERIC else "---" for name, _ in content.columns] + ["---"]
    for backend, rows in content.blocks:
        lines += [f"## {_markdown(backend)}", ""]
        for cells in (heads, rule, *(_cells(content, row, ", ") for row in rows)):
            lines.append(f"| {' | '.join(map(_markdown, cells))} |")
        lines.append("")
    if content.notes:
        lines += ["Notes:", ""]
        lines += [f"{k}. {_markdown(note)}" for k, note in enumerate(content.notes, 1)]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(content: Sheet) -> str:
    """Set the tables as one LaTeX table; it needs the package booktabs and nothing else."""
    width = len(content.columns)
    align = "".join("r" if name in NUMERIC else "l" for name, _ in content.columns)
    caption = f"{content.title}. {content.label} {content.explanation}"
    lines = [
        f"% {_latex(content.title)}; needs \\usepackage{{booktabs}}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_latex(caption)}}}",
        "\\label{tab:energy}",
        "\\footnotesize",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(_latex(head) for _, head in content.columns) + " \\\\",
    ]
    for backend, rows in content.blocks:
        lines.append("\\midrule")
        lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textbf{{{_latex(backend)}}}}} \\\\")
        for row in rows:
            cells = [_latex(cell) for cell in _cells(content, row, ",")]
            marks = f"\\textsuperscript{{{cells[-1]}}}" if row.notes else ""
            lines.append(f"{' & '.join(cells[:-1])}{marks} \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    for k, note in enumerate(content.notes, 1):
        lines += ["", f"\\raggedright \\textsuperscript{{{k}}} {_latex(note)}\\par"]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def to_text(content: Sheet) -> str:
    """Set a compact table for the terminal, with the label and the notes below it."""
    names = ["model", "precision", "workload", "gross", "tokens_per_s", "ttft", "n"]
    heads = [dict(COLUMNS)[name] for name in names] + ["Energy", "Notes"]
    heads[names.index("workload")] = "Workload"
    lines = [content.title]
    for backend, rows in content.blocks:
        table = [heads]
        for row in rows:
            cells = [getattr(row, name) for name in names]
            table.append([*cells, row.energy.partition(":")[0], ",".join(map(str, row.notes))])
        right = {k for k, name in enumerate(names) if name in NUMERIC}
        lines += ["", f"[{backend}]", *_columns(table, right, shrink=(0, 2, 1, 8))]
    lines += ["", content.label]
    if ("absolute", "absolute") in content.columns:
        lines.append("± is for comparisons on one board; energy.md has the absolute intervals.")
    for k, note in enumerate(content.notes, 1):
        note = " ".join(note.split())
        lines += textwrap.wrap(f"{k}. {note}", TEXT_WIDTH, subsequent_indent="   ")
    return "\n".join(lines) + "\n"


def _cells(content: Sheet, row: Line, comma: str) -> list[str]:
    return [getattr(row, name) for name, _ in content.columns] + [comma.join(map(str, row.notes))]


def _columns(table: list[list[str]], right: set[int], shrink: tuple[int, ...]) -> list[str]:
    """Align cells in columns two spaces apart, cutting the given columns where the page is full."""
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    for k in shrink:
        excess = sum(widths) + 2 * (len(widths) - 1) - TEXT_WIDTH
        widths[k] = max(min(widths[k], 8), widths[k] - max(0, excess))
    lines = []
    for row in table:
        cells = []
        for k, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cell = cell if len(cell) <= width else f"{cell[: width - 1]}…"
            cells.append(cell.rjust(width) if k in right else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _markdown(text: str) -> str:
    """Keep text from being read as markup or as the end of a cell."""
    for plain, safe in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(plain, safe)
    for mark in "`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "±": "$\\pm$",
    "\u2013": "--",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def _latex(text: str) -> str:
    """Keep text from being read as LaTeX commands."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))
