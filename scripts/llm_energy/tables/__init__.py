"""The tables that a sweep ends in.

A new one is a function from Results to Table in a module here, and its name in TABLES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from llm_energy.parallel import each
from llm_energy.tables import (
    comparisons,
    components,
    energy,
    failures,
    latency,
    load,
    quality,
    views,
)
from llm_energy.tables.by_cell import ordered
from llm_energy.tables.latex import to_latex
from llm_energy.tables.markdown import to_markdown
from llm_energy.tables.sheet import Results, Table
from llm_energy.tables.text import to_text

TABLES: dict[str, Callable[[Results], Table]] = {
    "energy": energy.table,
    "comparisons": comparisons.pairs,
    "crossovers": comparisons.crossovers,
    "denominators": views.denominators,
    "components": components.table,
    "latency": latency.table,
    "load": load.points,
    "load-fit": load.fits,
    "quality": quality.table,
    "limits": views.limits,
    "recommendations": views.recommendations,
    "failures": failures.table,
}

MANY_ROWS = 500  # from here on, several processes make tables faster than one


def make(results: Results) -> dict[str, Table]:
    """Make every table.

    Raises LlmEnergyError for aggregates of several sweeps, for two of one backend, and for
    simulated joules beside real ones.
    """
    results = replace(results, aggregates=tuple(ordered(results.aggregates)))
    return {name: table(results) for name, table in TABLES.items()}


def render(results: Results, jobs: int = 1) -> Iterator[tuple[str, str]]:
    """Yield every file by name and text: csv, md and tex of each table, and the summary.

    The tables of a large sweep are made in ``jobs`` processes. Raises as ``make`` does.
    """
    results = replace(results, aggregates=tuple(ordered(results.aggregates)))
    small = sum(len(aggregate.rows) for aggregate in results.aggregates) < MANY_ROWS

    def made(name: str) -> dict[str, str]:
        return files(TABLES[name](results))

    for texts in each(made, [*TABLES], 1 if small else jobs, few=2):
        yield from texts.items()


def files(table: Table) -> dict[str, str]:
    """Return a table's files by name: csv, md and tex, and txt of one that a terminal shows."""
    sheet = table.sheet
    texts = {"csv": table.csv, "md": to_markdown(sheet), "tex": to_latex(sheet)}
    if sheet.in_terminal:
        texts["txt"] = to_text(sheet)
    return {f"{sheet.name}.{suffix}": text for suffix, text in texts.items()}
