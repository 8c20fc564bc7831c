"""Cells against each other: ratios with intervals, the verdict in words, and where curves cross."""

from __future__ import annotations

from itertools import groupby

from llm_energy.analysis.statistics.format import percent_or_more, three_digits, with_ends
from llm_energy.publish.tables.cell_rows import Frame, framed
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records.comparison import Comparison, Crossover, Side
from llm_energy.records.plan import cell_id

NOT_COMPARED = "Nothing to show: no two cells of this sweep were compared."
RATIO = (
    Column("ratio", "Ratio", "number"),
    Column("low", "95 % from", "number"),
    Column("high", "to", "number"),
)
PAIRS = (
    Column("reference", "Reference"),
    Column("other", "Other"),
    *RATIO,
    Column("n", "n", "number"),
    Column("p", "p (Holm)", "number"),
    Column("least", "least visible (%)", "number"),
    Column("verdict", "In words", "prose"),
)
EXPLANATION = (
    "The ratio is other over reference: the geometric mean over the n repeats that both have, "
    "paired by block, with its own 95 % interval, which speaks of the session of its blocks unless "
    "a note names several. p is corrected by Holm over the block of rows. "
    "Least visible is the true difference that would be found in 4 of 5 such sweeps. Two cells "
    "stand in a ratio only where all else that matters is the same; else the words say what not."
)
CROSSING = (
    Column("model", "Model"),
    Column("backend", "Backend"),
    Column("precision", "Precision"),
    Column("reference", "against"),
    Column("size", "Batch size", "number"),
    Column("low", "95 % from", "number"),
    Column("high", "to", "number"),
    Column("statement", "In words", "prose"),
)
CROSSING_EXPLANATION = (
    "The batch size at which a precision needs as many joules per output token as the reference, "
    "interpolated in its logarithm between those measured."
)
HEADS = (
    *("contrast", "family", "metric", "energy_status", "components"),
    *("reference_cell", "reference_workload", "reference_n", "reference_mean"),
    *("other_cell", "other_workload", "other_n", "other_mean", "outcome", "n", "blocks"),
    *("ratio", "ci_low", "ci_high", "p", "p_adjusted", "smallest_detectable_percent", "log_sd"),
    *("degrees_of_freedom", "verdict", "differs", "left_out", "notes"),
)
CROSSING_HEADS = (
    *("model", "backend", "reference_precision", "precision", "metric", "energy_status"),
    *("components", "kind", "batch_size", "ci_low", "ci_high", "statement"),
)


def pairs(results: Results) -> Table:
    """Return one row a pair of cells and workloads, in a block for each family."""
    compared, notes = results.comparisons, Footnotes()
    found = compared.comparisons if compared else ()
    titles = {family.id: family.title for family in compared.families} if compared else {}
    blocks = [
        (titles.get(family, family), tuple(_pair(one, notes) for one in group))
        for family, group in groupby(found, key=lambda one: one.family)
    ]
    beyond = sum(one.outcome in ("less", "more") for one in found)
    told = f"{beyond} of {len(found)} pairs differ beyond noise, after the correction for so many."
    frame = Frame("comparisons", "Cells compared", told, EXPLANATION, PAIRS, NOT_COMPARED)
    return framed(results, frame, blocks, notes.texts, HEADS, map(_values, found))


def crossovers(results: Results) -> Table:
    """Return one row a precision: at which batch size it starts or stops to save energy."""
    found = results.comparisons.crossovers if results.comparisons else ()
    changing = sum(one.batch_size is not None for one in found)
    told = f"{changing} of {len(found)} change sides within the batch sizes that were measured."
    subject = "Where a precision starts to save"
    frame = Frame("crossovers", subject, told, CROSSING_EXPLANATION, CROSSING, NOT_COMPARED)
    blocks = [("batch size", tuple(map(_crossing, found)))]
    values = [_crossing_values(one) for one in found]
    return framed(results, frame, blocks, (), CROSSING_HEADS, values)


def _pair(one: Comparison, notes: Footnotes) -> Line:
    sources = tuple((side.cell, side.workload) for side in (one.reference, one.other))
    ratio, low, high = with_ends(one.ratio, one.ci_low, one.ci_high)
    remarks = [
        *one.notes,
        *(f"Block {left.block} left out: {left.reason}" for left in one.left_out),
    ]
    if one.energy_status == "estimated":
        remarks.append("Estimated by a model, not measured by a sensor.")
    cells = {
        "reference": _side(one.reference),
        "other": _side(one.other),
        "ratio": ratio,
        "low": low,
        "high": high,
        "n": str(one.n),
        "p": _p_value(one.p_adjusted),
        "least": percent_or_more(one.smallest_detectable_percent),
        "verdict": one.verdict,
    }
    return Line(row_id(*sources), cells, sources, notes.marks(remarks))


def _p_value(p: float | None) -> str:
    return "<0.0001" if p is not None and p < 1e-4 else three_digits(p)


def _side(side: Side) -> str:
    return f"{side.cell}/{side.workload}"


def _values(one: Comparison) -> list[object]:
    sides = (one.reference, one.other)
    return [
        *(one.contrast, one.family, one.metric, one.energy_status),
        " ".join(one.components),
        *(value for side in sides for value in (side.cell, side.workload, side.n, side.mean)),
        *(one.outcome, one.n, " ".join(map(str, one.blocks)), one.ratio, one.ci_low, one.ci_high),
        *(one.p, one.p_adjusted, one.smallest_detectable_percent, one.log_sd),
        *(one.degrees_of_freedom, one.verdict),
        "; ".join(f"{d.field}: {d.reference} | {d.other}" for d in one.differs),
        "; ".join(f"{left.block}: {left.reason}" for left in one.left_out),
        "; ".join(one.notes),
    ]


def _crossing(one: Crossover) -> Line:
    size, low, high = with_ends(one.batch_size, one.ci_low, one.ci_high)
    cells = {
        "model": one.model,
        "backend": one.backend,
        "precision": one.precision,
        "reference": one.reference_precision,
        "size": size,
        "low": low,
        "high": high,
        "statement": one.statement,
    }
    names = [cell_id(one.model, one.backend, p) for p in (one.reference_precision, one.precision)]
    sources = tuple((name, point.workload) for name in names for point in one.points)
    return Line(" : ".join(names), cells, sources)


def _crossing_values(one: Crossover) -> list[object]:
    values = {name: getattr(one, name) for name in CROSSING_HEADS}
    return [*(values | {"components": " ".join(one.components)}).values()]
