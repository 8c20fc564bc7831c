"""Joules of GPU, CPU and memory side by side, measured and estimated in rows of their own."""

from __future__ import annotations

from llm_energy.publish.tables.cell_rows import Measure, statistics_table
from llm_energy.publish.tables.writers.table import Results, Table
from llm_energy.records.registry.metrics import OF_COMPONENT

MEASURES = tuple(
    Measure(component, name, optional=True) for component, name in OF_COMPONENT.items()
)


def table(results: Results) -> Table:
    """Return the table."""
    return statistics_table(
        results,
        "components",
        "Energy per output token by component",
        "Gross joules of each component over the output tokens: the mean over n repeats ± half its "
        "95 % interval. A row holds either measured or estimated joules, which are never added. "
        "CPU and memory joules include every process of the host.",
        MEASURES,
    )
