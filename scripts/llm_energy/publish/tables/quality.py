"""What the saved joules cost in quality."""

from __future__ import annotations

from llm_energy.publish.tables.cell_rows import Measure, statistics_table
from llm_energy.publish.tables.writers.table import Results, Table
from llm_energy.records import AggregateRow
from llm_energy.records.registry.metrics import GROSS

ENERGY = Measure("gross", GROSS)
MEASURES = (
    Measure("nll", "nll_per_token", optional=True),
    Measure("perplexity", "perplexity", optional=True),
    Measure("agreement", "agreement_with_float32", optional=True),
)


def table(results: Results) -> Table:
    """Return the table; it has rows where quality was measured."""
    return statistics_table(
        results,
        "quality",
        "Quality beside energy",
        "NLL is the negative log-likelihood of a fixed text under teacher forcing, outside all "
        "windows; perplexity is its exponential. Agreement is the mean share of an output up to "
        "the first token that differs from what the same model gives in float32.",
        MEASURES,
        beside=(ENERGY,),
        more=_of_model,
    )


def _of_model(row: AggregateRow) -> list[str]:
    """Return what the model's manifest says, such as that its weights had been rounded before."""
    return [f"The model: {note}." for note in row.model_notes]
