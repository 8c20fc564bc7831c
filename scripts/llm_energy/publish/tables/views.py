"""One sweep seen from several sides: denominators, the distance from the limits, what to take."""

from __future__ import annotations

from llm_energy.analysis.statistics.format import ABSENT, quantity, three_digits, with_interval
from llm_energy.publish.tables.cell_rows import Frame, framed
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records import AggregateRow, Statistic
from llm_energy.records.comparison import Limits, RankedRow
from llm_energy.records.files.names import numeric_order
from llm_energy.records.recommendation import Candidate, Recommendation
from llm_energy.records.registry.metrics import DENOMINATORS, GROSS, METRICS, OF_COMPONENT

PLACE = (Column("cell", "Cell"), Column("workload", "Workload"))
DENOMINATORS_EXPLANATION = (
    "The same gross joules over several denominators, and the net ones: the mean over the repeats "
    "± half its 95 % interval. Ranks are within the block, the least joules first, one for each "
    "column of joules from left to right."
)
LIMITS = (
    *PLACE,
    Column("n", "n", "number"),
    Column("energy", METRICS[OF_COMPONENT["gpu"]].head, "number"),
    Column("floor", METRICS["floor_energy_per_output_token_j"].head, "number"),
    Column("roofline", METRICS["roofline_energy_per_output_token_j"].head, "number"),
    Column("times_floor", "times floor", "number"),
    Column("mbu", METRICS["mbu"].head, "number"),
    Column("mfu", METRICS["mfu"].head, "number"),
)
LIMITS_EXPLANATION = (
    "Floor is the least energy that moving and computing the bits of a token takes, roofline what "
    "the GPU takes at its full rate and power. MBU and MFU are the shares of memory bandwidth "
    "and of floating-point operations that the model itself needs. Energy is the GPUs' alone."
)
RECOMMENDED = (
    *PLACE,
    Column("energy", METRICS[GROSS].head, "number"),
    Column("drop", "quality drop (%)", "number"),
    Column("latency", "Latency (s)"),
    Column("words", "In words", "prose"),
)
RECOMMENDED_EXPLANATION = (
    "The lowest energy within the bounds that were asked for, then those that came after it. The "
    "quality drop is by how much the negative log-likelihood per token is above that of the "
    "model's best precision."
)


def denominators(results: Results) -> Table:
    """Return the cells of each backend under several denominators, with their ranks."""
    compared, notes = results.comparisons, Footnotes()
    rankings = compared.rankings if compared else ()
    statistics = _statistics(results)
    metrics = [m for m in DENOMINATORS if any(m in ranking.metrics for ranking in rankings)]
    blocks, values = [], []
    for ranking in rankings:
        kind = (ranking.energy_status, ranking.components)
        changed: dict[tuple[str, str], list[str]] = {}
        for change in ranking.changes:
            for place in (change.first, change.second):
                changed.setdefault(place, []).append(change.statement)
        lines = []
        for row in ranking.rows:
            found = statistics.get((row.cell, row.workload, *kind), {})
            cells = {"cell": row.cell, "workload": row.workload}
            cells |= {metric: _value(row, found, metric) for metric in metrics}
            cells["ranks"] = ", ".join(str(row.ranks.get(m, ABSENT)) for m in metrics)
            source = (row.cell, row.workload)
            lines.append(
                Line(row_id(source), cells, (source,), notes.marks(changed.get(source, ())))
            )
            numbers = [x for m in metrics for x in (row.values.get(m), row.ranks.get(m))]
            values.append([ranking.backend, kind[0], " ".join(kind[1]), *source, *numbers])
        blocks.append((f"{ranking.backend}, {kind[0]}: {', '.join(kind[1])}", tuple(lines)))
    columns = (
        *PLACE,
        *(Column(metric, METRICS[metric].head, "number") for metric in metrics),
        Column("ranks", "Ranks"),
    )
    heads = ["backend", "energy_status", "components", "cell", "workload"]
    heads += [head for metric in metrics for head in (metric, f"rank_by_{metric}")]
    told = (
        "Rows whose place changes with the denominator have a note."
        if any(ranking.changes for ranking in rankings)
        else "The order of the rows is the same under every denominator, as far as can be told."
    )
    subject = "Energy under several denominators"
    frame = Frame("denominators", subject, told, DENOMINATORS_EXPLANATION, columns)
    return framed(results, frame, blocks, notes.texts, heads, values)


def limits(results: Results) -> Table:
    """Return each cell's distance from what physics and its hardware allow."""
    compared, notes = results.comparisons, Footnotes()
    found = compared.limits if compared else ()
    metric = OF_COMPONENT["gpu"]
    statistics = {
        key[:2]: found[metric]
        for key, found in _statistics(results).items()
        if key[2] == "measured" and metric in found and found[metric].n
    }
    lines = tuple(_limit(one, statistics, notes) for one in found)
    faults = sum(one.fault is not None for one in found)
    held = sum(one.floor_j is not None for one in found)
    told = f"{held} of {len(found)} rows have a limit; the notes say why the others have none."
    if faults:
        told = (
            f"{faults} of {len(found)} rows claim what is physically impossible; see their notes."
        )
    elif held == len(found):
        told = "No row claims what is physically impossible."
    names = ("cell", "workload", "n", "energy_j", "floor_j", "roofline_j", "times_floor")
    names += ("times_roofline", "mbu", "mfu", "rates", "reason", "fault")
    values = [[getattr(one, name) for name in names] for one in found]
    frame = Frame("limits", "Distance from the physical limit", told, LIMITS_EXPLANATION, LIMITS)
    return framed(results, frame, [("GPUs", lines)], notes.texts, names, values)


def recommendations(results: Results) -> Table:
    """Return, by backend and model, the cell to take and the runners-up with their reasons."""
    compared, notes = results.comparisons, Footnotes()
    found = compared.recommendations if compared else ()
    blocks, values = [], []
    for one in found:
        lines = tuple(_candidate(one, candidate, notes) for candidate in one.candidates)
        about = [
            one.backend,
            one.model,
            *sorted({c.workload for c in one.candidates}, key=numeric_order),
        ]
        about += [f"{name} {value:g}" for name, value in one.bounds.items()]
        blocks.append((", ".join(about), lines))
        for candidate in one.candidates:
            values.append(
                [
                    *(one.backend, one.model, one.energy_status, candidate.cell),
                    *(
                        candidate.workload,
                        (candidate.cell, candidate.workload) == one.best and not one.ties,
                    ),
                    *(candidate.energy_j, candidate.quality_drop_percent),
                    *("; ".join(candidate.refused), candidate.against_best),
                ]
            )
    heads = ("backend", "model", "energy_status", "cell", "workload", "recommended", "energy_j")
    heads += ("quality_drop_percent", "refused", "against_best")
    told = f"{len(found)} recommendations, one for each piece of work; the notes give the reasons."
    if len(found) == 1:
        told = found[0].statement
    frame = Frame("recommendations", "What to take", told, RECOMMENDED_EXPLANATION, RECOMMENDED)
    return framed(results, frame, blocks, notes.texts, heads, values)


def _statistics(results: Results) -> dict[tuple, dict[str, Statistic]]:
    """Return every row's statistics by cell, workload, energy status and components."""
    rows: list[AggregateRow] = [row for one in results.aggregates for row in one.rows]
    return {(r.cell, r.workload, r.energy_status, r.components): r.statistics for r in rows}


def _value(row: RankedRow, found: dict[str, Statistic], metric: str) -> str:
    """Write a value with its interval; without one where the aggregates do not have it."""
    return quantity(found[metric]) if metric in found else three_digits(row.values.get(metric))


def _limit(one: Limits, statistics: dict[tuple[str, str], Statistic], notes: Footnotes) -> Line:
    source = (one.cell, one.workload)
    known = statistics.get(source)
    cells = {
        "cell": one.cell,
        "workload": one.workload,
        "n": str(one.n),
        "energy": quantity(known) if known else three_digits(one.energy_j),
        "floor": three_digits(one.floor_j),
        "roofline": three_digits(one.roofline_j),
        "times_floor": three_digits(one.times_floor),
        "mbu": three_digits(one.mbu),
        "mfu": three_digits(one.mfu),
    }
    told = [text for text in (one.fault, one.reason, one.rates and f"Rates: {one.rates}") if text]
    return Line(row_id(source), cells, (source,), notes.marks(told))


def _candidate(asked: Recommendation, one: Candidate, notes: Footnotes) -> Line:
    source = (one.cell, one.workload)
    best = source == asked.best
    words = "; ".join(one.refused) or one.against_best or ABSENT
    if best:
        count = len(asked.ties)
        words = f"Cannot be told from {count} of these." if count else "Recommended."
    cells = {
        "cell": one.cell,
        "workload": one.workload,
        "energy": with_interval(one.energy_j, one.energy_ci_low_j, one.energy_ci_high_j),
        "drop": three_digits(one.quality_drop_percent),
        "latency": ", ".join(_latency(*known) for known in one.latency_s.items()) or ABSENT,
        "words": words,
    }
    told = (asked.statement, *asked.reasons) if best else ()
    return Line(row_id(source), cells, (source,), notes.marks(told))


def _latency(metric: str, value_s: float) -> str:
    """Write a latency in the words of the field.

    >>> _latency("ttft_s", 0.25), _latency("e2e_latency_s", 1.5)
    ('TTFT 0.250', 'end-to-end 1.50')
    """
    return f"{METRICS[metric].short} {three_digits(value_s)}"
