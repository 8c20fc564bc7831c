"""Show aggregates as tables: CSV with every value; Markdown, LaTeX and plain text for people."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from llm_energy.checks import CATALOGUE
from llm_energy.errors import LlmEnergyError
from llm_energy.records import Aggregate, AggregateRow
from llm_energy.statistics import ABSENT, mean_only, quantity

TEXT_WIDTH = 100
TOLD_ELSEWHERE = {"M11", "M12", "M22"}  # by the label of the row, its components and the caption
GROSS, NET = "energy_per_output_token_j", "net_energy_per_output_token_j"
PLACE = ("backend", "cell", "model", "precision", "workload", "batch_size", "outcome", "reason")
MEANINGS = {
    "M03": "Short window: under 30 s, where the errors at its edges weigh more.",
    "mixed_backends": "Pools several backends against advice: the mean of unlike systems.",
}


# what is shown


@dataclass(frozen=True)
class Line:
    """One row of the tables for people; ``notes`` are the numbers of its footnotes."""

    model: str
    precision: str
    workload: str
    gross: str
    net: str
    tokens_per_s: str
    ttft: str
    n: str
    energy: str
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Sheet:
    """What the tables for people say, before it is set as Markdown, LaTeX or text."""

    sweep: str
    label: str
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...]


COLUMNS = (
    ("model", "Model"),
    ("precision", "Precision"),
    ("workload", "Workload (batch)"),
    ("gross", "J/output token"),
    ("net", "net J/output token"),
    ("tokens_per_s", "tok/s"),
    ("ttft", "TTFT (s)"),
    ("n", "n"),
    ("energy", "Energy"),
)
NUMERIC = {"gross", "net", "tokens_per_s", "ttft", "n"}
EXPLANATION = (
    "J/output token is the gross energy of the window over its output tokens: the mean over n "
    "repeats ± half its 95 % t-interval. One repeat has no interval; with two it is wide because "
    "two repeats say little. Net is gross minus the power of the loaded, idle model times the "
    "window. CPU and memory joules include every process of the host. tok/s counts output tokens; "
    "TTFT is the time to first token, queueing included. Digits follow the interval. Each backend "
    "stands by itself."
)


def sheet(aggregates: Sequence[Aggregate]) -> Sheet:
    """Collect what the tables for people show, and number its footnotes.

    A row with estimated joules is left out where the same workload has measured ones; the CSV has
    both. Raises LlmEnergyError for aggregates of several sweeps, or two of one backend.
    """
    aggregates = ordered(aggregates)
    notes: dict[str, int] = {}
    blocks = []
    shown: list[AggregateRow] = []
    for aggregate in aggregates:
        measured = {(r.cell, r.workload) for r in aggregate.rows if r.energy_status == "measured"}
        hidden = {
            (row.cell, row.workload): row
            for row in aggregate.rows
            if row.energy_status == "estimated" and (row.cell, row.workload) in measured
        }
        rows = [
            row
            for row in aggregate.rows
            if row.energy_status != "estimated" or (row.cell, row.workload) not in hidden
        ]
        lines = [_line(row, hidden.get((row.cell, row.workload)), notes) for row in rows]
        title = aggregate.backend + (" (pooled)" if aggregate.mixed_backends else "")
        blocks.append((title, tuple(lines)))
        shown += rows
    return Sheet(aggregates[0].sweep, label(shown), tuple(blocks), tuple(notes))


def ordered(aggregates: Sequence[Aggregate]) -> list[Aggregate]:
    """Put aggregates in the order of their backends' names, so that tables never depend on it."""
    sweeps, backends = {a.sweep for a in aggregates}, [a.backend for a in aggregates]
    if len(sweeps) > 1 or len(set(backends)) < len(backends):
        raise LlmEnergyError(
            f"one table takes one sweep and each backend once; found sweeps "
            f"{', '.join(sorted(sweeps))} and backends {', '.join(sorted(backends))}"
        )
    return sorted(aggregates, key=lambda a: a.backend)


def label(rows: Sequence[AggregateRow]) -> str:
    """Say in one line how the joules in these rows are known."""
    statuses = {row.energy_status for row in rows if row.n}
    if statuses == {"estimated"}:
        hosts = ", ".join(sorted({host for row in rows for host in row.hosts}))
        return f"Every joule here is estimated: no energy sensor was readable on {hosts}."
    if statuses == {"measured"}:
        return "Every joule here is measured, by sensors of the components that its row names."
    if statuses:
        return "Joules are measured or estimated as each row says; the two are never added."
    return "There is no joule here: no cell gave a usable measurement."


def _line(row: AggregateRow, hidden: AggregateRow | None, notes: dict[str, int]) -> Line:
    def value(name: str, write=quantity) -> str:
        return write(row.statistics[name]) if name in row.statistics else ABSENT

    marks = sorted(notes.setdefault(text, len(notes) + 1) for text in _remarks(row, hidden))
    batch = f" ({row.batch_size})" if row.batch_size else ""
    return Line(
        model=row.model,
        precision=row.precision,
        workload=f"{row.workload}{batch}",
        gross=value(GROSS) if row.n else row.outcome,
        net=value(NET),
        tokens_per_s=value("output_tokens_per_s", mean_only),
        ttft=value("ttft_s", mean_only),
        n=str(row.n),
        energy=f"{row.energy_status}: {', '.join(row.components)}" if row.n else ABSENT,
        notes=tuple(marks),
    )


def _remarks(row: AggregateRow, hidden: AggregateRow | None) -> list[str]:
    """Give the footnotes of one row, the most important first."""
    if row.n == 0:
        return [row.reason or row.outcome]
    remarks = []
    if row.energy_status == "estimated":
        remarks.append("Estimated by a model, not measured by a sensor.")
    if row.degraded:
        remarks.append("Degraded: at least one repeat carries a warning; see verdicts.json.")
    remarks += [_meaning(flag) for flag in row.flags if flag not in TOLD_ELSEWHERE]
    remarks += [f"Repeat {repeat} left out: {reason}" for repeat, reason in row.excluded]
    if hidden:
        parts = ", ".join(hidden.components)
        remarks.append(f"Estimated joules of {parts} are in energy.csv and not added here.")
    return remarks


def _meaning(flag: str) -> str:
    if flag in MEANINGS:
        return MEANINGS[flag]
    return f"{flag}: {CATALOGUE[flag].title}." if flag in CATALOGUE else flag


# setting it


def render(aggregates: Sequence[Aggregate]) -> dict[str, str]:
    """Give the text of every table by its file suffix: csv, md, tex, txt."""
    content = sheet(aggregates)
    return {
        "csv": to_csv(aggregates),
        "md": to_markdown(content),
        "tex": to_latex(content),
        "txt": to_text(content),
    }


def summary(aggregates: Sequence[Aggregate]) -> str:
    """Give the compact table that ends a run, at most 100 columns wide, and its one label line."""
    return to_text(sheet(aggregates))


def to_csv(aggregates: Sequence[Aggregate]) -> str:
    """Give one row per cell, workload and energy status with every value, unrounded."""
    aggregates = ordered(aggregates)
    names = list(dict.fromkeys(n for a in aggregates for r in a.rows for n in r.statistics))
    parts = ("mean", "sd", "ci_low", "ci_high", "n")
    lists = ("components", "flags", "hosts", "measurements")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["sweep", *PLACE, "energy_status", "components", "n", "degraded"]
        + [f"{name}_{part}" for name in names for part in parts]
        + ["excluded", "flags", "hosts", "measurements"]
    )
    for aggregate in aggregates:
        for row in aggregate.rows:
            joined = {name: " ".join(getattr(row, name)) for name in lists}
            place = [getattr(row, name) for name in PLACE]
            statistics = [row.statistics.get(name) for name in names]
            values = [s and getattr(s, part) for s in statistics for part in parts]
            excluded = "; ".join(f"{repeat}: {reason}" for repeat, reason in row.excluded)
            writer.writerow(
                [
                    *(aggregate.sweep, *place, row.energy_status, joined["components"]),
                    *(row.n, row.degraded, *values),
                    *(excluded, joined["flags"], joined["hosts"], joined["measurements"]),
                ]
            )
    return stream.getvalue()


def to_markdown(content: Sheet) -> str:
    """Set the tables as Markdown, one per backend, with numbered notes."""
    lines = [f"# Energy per token: {_markdown(content.sweep)}", "", f"**{content.label}**", ""]
    lines += [EXPLANATION, ""]
    heads = [head for _, head in COLUMNS] + ["Notes"]
    rule = ["---:" if name in NUMERIC else "---" for name, _ in COLUMNS] + ["---"]
    for backend, rows in content.blocks:
        lines += [f"## {_markdown(backend)}", ""]
        for cells in (heads, rule, *(_cells(row, ", ") for row in rows)):
            lines.append(f"| {' | '.join(map(_markdown, cells))} |")
        lines.append("")
    if content.notes:
        lines += ["Notes:", ""]
        lines += [f"{k}. {_markdown(note)}" for k, note in enumerate(content.notes, 1)]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(content: Sheet) -> str:
    """Set the tables as one LaTeX table; it needs the package booktabs and nothing else."""
    width = len(COLUMNS)
    align = "".join("r" if name in NUMERIC else "l" for name, _ in COLUMNS)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{Energy per output token. {_latex(content.label)} {_latex(EXPLANATION)}}}",
        "\\label{tab:energy}",
        "\\footnotesize",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(_latex(head) for _, head in COLUMNS) + " \\\\",
    ]
    for backend, rows in content.blocks:
        lines.append("\\midrule")
        lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textbf{{{_latex(backend)}}}}} \\\\")
        for row in rows:
            cells = [_latex(cell) for cell in _cells(row, ",")]
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
    lines = [f"Energy per output token, sweep {content.sweep}"]
    for backend, rows in content.blocks:
        table = [heads]
        for row in rows:
            cells = [getattr(row, name) for name in names]
            table.append([*cells, row.energy.partition(":")[0], ",".join(map(str, row.notes))])
        right = {k for k, name in enumerate(names) if name in NUMERIC}
        lines += ["", f"[{backend}]", *_columns(table, right, shrink=(0, 2, 1, 8))]
    lines += ["", content.label]
    for k, note in enumerate(content.notes, 1):
        note = " ".join(note.split())
        lines += textwrap.wrap(f"{k}. {note}", TEXT_WIDTH, subsequent_indent="   ")
    return "\n".join(lines) + "\n"


def _cells(row: Line, comma: str) -> list[str]:
    return [getattr(row, name) for name, _ in COLUMNS] + [comma.join(map(str, row.notes))]


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
    ABSENT: "--",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def _latex(text: str) -> str:
    """Keep text from being read as LaTeX commands."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))
