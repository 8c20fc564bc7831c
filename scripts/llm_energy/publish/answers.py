"""Write the figures of an answer, one line a quantity, as tables and the report show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llm_energy.analysis.grouping.rows import Place, one_per_place, place, visible
from llm_energy.analysis.statistics.format import ABSENT, quantity, with_ends
from llm_energy.records import Aggregate, AggregateRow
from llm_energy.records.comparison import Answer, Figure
from llm_energy.records.registry.metrics import METRICS

HEADS = {  # by column; the last one says whether a difference is beyond noise
    "quantity": "Quantity",
    "a": "A",
    "b": "B",
    "ratio": "B : A",
    "low": "95 % from",
    "high": "to",
    "pairs": "n",
    "told": "Differs",
}
EXPLANATION = (
    "Each entry of an axis (B) stands against the first one of the config that gave something (A), "
    "each batch size against the smallest. A and B are means ± half their 95 % intervals, as in "
    "the other tables. The ratio is over the n repeats that both have, paired by block; without n "
    "it is that of the means. Differs says what is beyond noise: exact is a ratio without any "
    "scatter, unlike what may not be compared. What was measured beside the joules stands also "
    "where these are invalid."
)
TOLD = {
    "less": "less",
    "more": "more",
    "not_distinguishable": "no",
    "not_comparable": "unlike",
    None: ABSENT,
}


def rows_by_place(aggregates: Iterable[Aggregate]) -> dict[Place, AggregateRow]:
    """Return the row that stands for each cell and workload, those without joules included."""
    return {place(row): row for row in one_per_place(visible(aggregates))}


def figures(one: Answer, rows: Mapping[Place, AggregateRow]) -> Iterator[tuple[str, dict]]:
    """Return the cells of each figure by the names of HEADS, with its metric."""
    for figure in one.figures:
        ratio, low, high = with_ends(figure.ratio, figure.ci_low, figure.ci_high)
        if _told(figure) == "exact":
            ratio = with_ends(figure.ratio, figure.ratio, figure.ratio)[0]
        ends = (rows[end].statistics.get(figure.metric) for end in (one.reference, one.other))
        first, second = (quantity(found) if found else ABSENT for found in ends)
        told = (first, second, ratio, low, high, str(figure.n or ABSENT), _told(figure))
        head = METRICS[figure.metric].head
        yield figure.metric, dict(zip(HEADS, (head, *told), strict=True))


def _told(figure: Figure) -> str:
    if figure.outcome == "too_few_pairs":
        return ABSENT if figure.n < 2 else "exact"
    return TOLD[figure.outcome]
