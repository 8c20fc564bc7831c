"""Say what the columns of the tidy tables mean, for people and as a Frictionless data package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_energy.publish.data.columns import Column, columns_of
from llm_energy.publish.data.frames import Sweep, Tidy
from llm_energy.publish.style import SIMULATED
from llm_energy.records import Statistic

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
PAGE = """# Data of sweep {sweep}

Four tidy tables, each as Parquet and as CSV with the same columns. `datapackage.json` says the
same as this page for machines ([Data Package](https://datapackage.org)). Names, types and units are
those of the records that the tables are made from. What is absent is null, never 0; in a CSV it is
empty. Lists are one text. In a CSV a text that a spreadsheet would take for a formula has an
apostrophe before it.
{simulated}
Measured and estimated joules are rows of their own, which `energy_status` tells apart; never add
them.

## Reading them

pandas:

```python
import pandas
cells = pandas.read_parquet("cells.parquet")
print(cells[["cell", "workload", "energy_status", "energy_per_output_token_j_mean"]])
```

polars:

```python
import polars
cells = polars.read_parquet("cells.parquet")
print(cells.select("cell", "workload", "energy_status", "energy_per_output_token_j_mean"))
```

DuckDB:

```python
import duckdb
cells = duckdb.read_parquet("cells.parquet")
print(cells.select("cell, workload, energy_status, energy_per_output_token_j_mean"))
```

R:

```r
library(arrow)
cells <- read_parquet("cells.parquet")
print(cells[c("cell", "workload", "energy_status", "energy_per_output_token_j_mean")])
```
"""
TABLE = """
## {name}

A row is {row}.

| column | type | unit | meaning |
|---|---|---|---|
{lines}
"""
STATISTICS = """
A column whose name ends in `*` stands for several, one for each statistic over the repeats:

| `*` | meaning |
|---|---|
{lines}
"""


def page(sweep: Sweep, made: Mapping[str, Tidy]) -> str:
    """Return the page that says what the columns mean and how to read them."""
    simulated = any(row.simulated for one in sweep.aggregates for row in one.rows)
    told = f"\n{SIMULATED}\n" if simulated else ""
    parts = [PAGE.format(sweep=sweep.plan.sweep, simulated=told)]
    for name, table in made.items():
        lines = "\n".join(_lines(table.columns))
        parts.append(TABLE.format(name=name, row=table.row, lines=lines))
        if any(column.part for column in table.columns):
            told = (f"| `{c.name}` | {_cell(c.meaning)} |" for c in columns_of(Statistic, {}))
            parts.append(STATISTICS.format(lines="\n".join(told)))
    return "".join(parts)


def _lines(columns: tuple[Column, ...]) -> Iterator[str]:
    """Yield a line for each column, and one for all the statistics of a quantity."""
    names = {}
    for column in columns:
        part = column.part
        if part is None or part.kind == "number":
            name = f"{column.name.removesuffix(part.name)}*" if part else column.name
            names.setdefault(name, column)
    for name, column in names.items():
        one_of = f" One of: {', '.join(column.categories)}." if column.categories else ""
        yield f"| `{name}` | {column.kind} | {column.unit} | {_cell(column.meaning + one_of)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def package(sweep: Sweep, made: Mapping[str, Tidy]) -> str:
    """Return the Frictionless descriptor of the tables as JSON."""
    resources = [
        {
            "name": name if suffix == "csv" else f"{name}-{suffix}",
            "path": f"{name}.{suffix}",
            "title": f"A row is {table.row}.",
            "format": suffix,
            "mediatype": mediatype,
            **({"encoding": "utf-8"} if suffix == "csv" else {}),
            "schema": {"fields": [*map(_field, table.columns)], "missingValues": [""]},
        }
        for name, table in made.items()
        for suffix, mediatype in FORMATS.items()
    ]
    told = {"$schema": PROFILE, "name": sweep.plan.sweep, "resources": resources}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _field(column: Column) -> dict[str, Any]:
    """Return one field; ``unit`` is our own property, which the standard leaves room for."""
    words = " ".join([column.meaning, *([column.part.meaning] if column.part else [])])
    field = {"name": column.name, "type": column.kind, "description": words}
    field |= {"unit": column.unit} if column.unit else {}
    if column.categories:
        field |= {"categories": [*column.categories], "categoriesOrdered": True}
    return field
