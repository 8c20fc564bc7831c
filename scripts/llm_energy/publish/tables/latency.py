"""What users wait: the quantiles of every latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llm_energy.analysis.energy.latency import PERCENTILES, QUANTITIES, least_requests
from llm_energy.analysis.statistics.format import ABSENT, mean_only, quantity
from llm_energy.publish.tables.cell_rows import (
    CELL,
    PARTS,
    PLACE,
    Frame,
    N,
    block_title,
    framed,
    meaning,
    parts_of,
    place,
    repeats_of,
)
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records import Aggregate, AggregateRow
from llm_energy.records.registry.metrics import METRICS

MEANS = {
    "ttft": "ttft_s",
    "service_ttft": "service_ttft_s",
    "tpot": "tpot_s",
    "e2e": "e2e_latency_s",
    "queueing": "queueing_s",
}
NAMES = {"itl": "ITL"}
NAMES |= {quantity: METRICS[name].short for quantity, name in MEANS.items()}
COLUMNS = (
    *CELL,
    Column("traffic", "Traffic"),
    Column("rate", METRICS["requests_per_s"].head, "number"),
    Column("latency", "Latency (s)"),
    Column("mean", "mean", "number"),
    *(Column(f"p{percent}", f"p{percent}", "number") for percent in PERCENTILES),
    N,
)
EXPLANATION = (
    "Latencies count from when a request was due, so what it waited is inside: TTFT to its first "
    "token, end-to-end to its last one, queueing to the begin of its service. Service TTFT is from "
    "there to the first token. TPOT is the time from first to last token over the tokens after the "
    "first. ITL is the gap between two tokens of a request; its quantiles are over tokens, within "
    "half a percent, all others over requests. Each repeat gives one quantile; shown is the mean "
    "over n repeats ± half its 95 % interval. Where arrivals are drawn, one that the requests of a "
    "repeat do not support has none, since so few lie beyond it that its mean is too small: p90 "
    f"takes {least_requests(90)} of them, p95 {least_requests(95)}, p99 never has one. A quantile "
    "that they do not even reach is left out: p99 takes 100 of them, p95 20, p90 10. Offline, all "
    "requests are due at the start of a pass; served/s counts the requests that were served in a "
    "second."
)
NOTHING = "Nothing to show: no engine of this sweep told when its tokens came."


def table(results: Results) -> Table:
    """Return one row a cell, workload and latency."""
    notes = Footnotes()
    blocks = [
        (
            block_title(aggregate),
            tuple(
                line for row in _once(aggregate.rows) for line in _lines(row, notes, results.titles)
            ),
        )
        for aggregate in results.aggregates
    ]
    told = "Times are the engine's own, on the clock that the meter uses."
    frame = Frame("latency", "Latency", told, EXPLANATION, COLUMNS, NOTHING)
    heads = (*PLACE, "traffic", "requests_per_s", "latency", "statistic", *PARTS)
    return framed(results, frame, blocks, notes.texts, heads, _values(results.aggregates))


def _once(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Return a row a cell and workload; those of measured and estimated joules say the same."""
    found: dict[tuple[str, str], AggregateRow] = {}
    for row in rows:
        if row.latencies_s:
            found.setdefault((row.cell, row.workload), row)
    return list(found.values())


def _lines(row: AggregateRow, notes: Footnotes, titles: Mapping[str, str]) -> Iterator[Line]:
    source = (row.cell, row.workload)
    common = (
        place(row)
        | repeats_of(row)
        | {
            "traffic": row.traffic or "offline",
            "rate": _mean(row, "requests_per_s"),
        }
    )
    # The remarks on joules say nothing about times.
    marks = notes.marks(meaning(flag, titles) for flag in row.flags if flag == "E28")
    for name in QUANTITIES:
        quantiles = {f"p{p}": row.latencies_s.get(f"{name}_p{p}") for p in PERCENTILES}
        if any(quantiles.values()):
            cells = {key: quantity(found) if found else ABSENT for key, found in quantiles.items()}
            cells |= {"latency": NAMES[name], "mean": _quantity(row, MEANS.get(name))}
            yield Line(f"{row_id(source)} {NAMES[name]}", common | cells, (source,), marks)


def _mean(row: AggregateRow, name: str) -> str:
    found = row.statistics.get(name)
    return mean_only(found) if found else ABSENT


def _quantity(row: AggregateRow, name: str | None) -> str:
    found = row.statistics.get(name) if name else None
    return quantity(found) if found else ABSENT


def _values(aggregates: Sequence[Aggregate]) -> Iterator[list[object]]:
    for row in (row for aggregate in aggregates for row in _once(aggregate.rows)):
        rate = row.statistics.get("requests_per_s")
        own = [*(getattr(row, name) for name in PLACE), row.traffic, rate and rate.mean]
        found = {
            (name, "mean"): row.statistics[MEANS[name]]
            for name in MEANS
            if MEANS[name] in row.statistics
        }
        found |= {
            tuple(key.rsplit("_", 1)): statistic for key, statistic in row.latencies_s.items()
        }
        for (name, statistic), value in sorted(found.items()):
            yield [*own, name, statistic, *parts_of(value)]
