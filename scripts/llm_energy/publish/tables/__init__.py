"""The tables that a sweep ends in.

A new one is a function from Results to Table in a module here, and its name in TABLES.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from llm_energy.analysis.statistics.format import NOISY, NOISY_MEANING
from llm_energy.core.parallel import each
from llm_energy.publish.tables import (
    comparisons,
    components,
    energy,
    failures,
    latency,
    load,
    phases,
    quality,
    requests,
    setup,
    summary,
    views,
)
from llm_energy.publish.tables.cell_rows import ordered
from llm_energy.publish.tables.writers.latex import to_latex
from llm_energy.publish.tables.writers.markdown import to_markdown
from llm_energy.publish.tables.writers.table import Results, Sheet, Table
from llm_energy.publish.tables.writers.text import to_text
from llm_energy.records import SCHEMA_VERSION, TableSources, rows_text
from llm_energy.records.files import paths

TABLES: dict[str, Callable[[Results], Table]] = {
    "energy": energy.table,
    "summary": summary.table,
    "comparisons": comparisons.pairs,
    "crossovers": comparisons.crossovers,
    "denominators": views.denominators,
    "components": components.table,
    "latency": latency.table,
    "requests": requests.table,
    "load": load.points,
    "load-fit": load.fits,
    "phases": phases.table,
    "quality": quality.table,
    "limits": views.limits,
    "recommendations": views.recommendations,
    "failures": failures.table,
    "setup": setup.table,
}

MANY_ROWS = 500  # from here on, several processes make tables faster than one


def make(results: Results, names: Iterable[str] = TABLES) -> dict[str, Table]:
    """Make tables by their names.

    Raises LlmEnergyError for aggregates of several sweeps, for two of one backend, and for
    simulated joules beside real ones.
    """
    results = replace(results, aggregates=tuple(ordered(results.aggregates)))
    return {name: TABLES[name](results) for name in names}


def render(results: Results, jobs: int = 1) -> Iterator[tuple[str, str]]:
    """Yield every file by name and text: csv, md and tex of each table, summary and sources.

    The tables of a large sweep are made in ``jobs`` processes. Raises as ``make`` does.
    """
    results = replace(results, aggregates=tuple(ordered(results.aggregates)))
    small = sum(len(aggregate.rows) for aggregate in results.aggregates) < MANY_ROWS

    def made(name: str) -> tuple[dict[str, str], dict[str, tuple[tuple[str, str], ...]]]:
        table = TABLES[name](results)
        return files(table), {line.id: line.sources for line in table.sheet.lines}

    rows = {}
    tables = each(made, [*TABLES], 1 if small else jobs, few=2)
    for name, (texts, sources) in zip(TABLES, tables, strict=True):
        yield from texts.items()
        rows[name] = sources
    sources = TableSources(SCHEMA_VERSION, results.aggregates[0].sweep, rows)
    yield paths.table_sources(Path()).name, rows_text(sources)


def files(table: Table) -> dict[str, str]:
    """Return a table's files by name: csv, md and tex, and txt of one that a terminal shows."""
    sheet = table.sheet
    page = _with_noise_told(sheet, [c.name for c in sheet.columns if c.head is not None])
    texts = {"csv": table.csv, "md": to_markdown(page), "tex": to_latex(page)}
    if sheet.in_terminal:
        brief = [c.name for c in sheet.columns if c.brief is not None]
        texts["txt"] = to_text(_with_noise_told(sheet, brief))
    return {f"{sheet.name}.{suffix}": text for suffix, text in texts.items()}


def _with_noise_told(sheet: Sheet, shown: Collection[str]) -> Sheet:
    """Say in the label what the sign of noise means, where one of these columns has it."""
    cells = (line.cells[name] for line in sheet.lines for name in shown)
    if not any(cell.startswith(NOISY) for cell in cells):
        return sheet
    return replace(sheet, label=f"{sheet.label} {NOISY_MEANING}")
