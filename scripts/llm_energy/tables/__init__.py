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
from llm_energy.tables.sheet import Results, Sheet, Table
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

    def files(name: str) -> dict[str, str]:
        return _texts(name, TABLES[name](results))

    for texts in each(files, [*TABLES], 1 if small else jobs, few=2):
        yield from texts.items()


def _texts(name: str, table: Table) -> dict[str, str]:
    texts = {
        f"{name}.csv": table.csv,
        f"{name}.md": to_markdown(table.sheet),
        f"{name}.tex": to_latex(table.sheet),
    }
    return texts | ({f"{name}.txt": summary(table.sheet)} if name == "energy" else {})


def summary(sheet: Sheet) -> str:
    """Give the compact table that ends a run, at most 100 columns wide, and its one label line."""
    absolute = any(column.name == "absolute" for column in sheet.columns)
    remark = "± is for comparisons on one board; energy.md has the absolute intervals."
    return to_text(sheet, remark if absolute else None)
