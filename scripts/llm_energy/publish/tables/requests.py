"""What single requests took, by what the engine's steps did for each: attributed, not measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_energy.analysis.energy.latency import PERCENTILES
from llm_energy.analysis.statistics.format import ABSENT, three_digits
from llm_energy.publish.tables.cell_rows import CELL, PLACE, Frame, N, block_title, framed, place
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records import AggregateRow
from llm_energy.records.registry.metrics import METRICS

SHARES = ("attributed_energy_j", "attributed_idle_energy_j")
UNIT = METRICS[SHARES[0]].unit
COLUMNS = (
    *CELL,
    Column("mean", f"mean ({UNIT})", "number"),
    *(Column(f"p{percent}", f"p{percent}", "number") for percent in PERCENTILES),
    Column("dearest", f"Dearest: prompt, tokens in → out, {UNIT}", "prose"),
    N,
)
EXPLANATION = (
    "Joules of a request, attributed by the work that each step of the engine did for it; only the "
    "window's sum is measured, and what was drawn while no step ran is no request's. Mean and "
    "quantiles are over requests, then over n repeats; an attribution has no interval. A quantile "
    "that the requests do not reach is left out. Of timed traffic, requests that were served "
    "wholly inside the window count. The dearest prompts are named with the mean of their joules; "
    "the CSV has five of them, and the mean joules by the octaves of prompt and output tokens."
)
NOTHING = "Nothing to show: no engine of this sweep told its steps."


def table(results: Results) -> Table:
    """Return one row a cell and workload; the notes say why one has no numbers."""
    notes, nothing = Footnotes(), NOTHING
    chosen = {block_title(one): _once(one.rows) for one in results.aggregates}
    rows = [row for own in chosen.values() for row in own]
    if all(row.request_energy is None for row in rows):
        reasons = dict.fromkeys(row.attributed_reason for row in rows if row.attributed_reason)
        nothing = f"Nothing to show: {'; '.join(reasons)}." if reasons else NOTHING
        chosen = {}
    blocks = [(title, tuple(_line(row, notes) for row in own)) for title, own in chosen.items()]
    told = "Every joule here is attributed: a share of the window's joules, not a measurement."
    frame = Frame("requests", "Energy of single requests", told, EXPLANATION, COLUMNS, nothing)
    heads = (*PLACE, "energy_status", "of", "request_id", "prompt_tokens", "output_tokens")
    heads += ("requests", "attributed_energy_j", "reason")
    return framed(results, frame, blocks, notes.texts, heads, _values(rows))


def _once(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Return of each cell and workload the row whose joules are attributed, or else the first."""
    found: dict[tuple[str, str], AggregateRow] = {}
    for row in (row for row in rows if row.n):
        before = found.get((row.cell, row.workload))
        if before is None or (before.request_energy is None and row.request_energy):
            found[row.cell, row.workload] = row
    return list(found.values())


def _line(row: AggregateRow, notes: Footnotes) -> Line:
    source, found = (row.cell, row.workload), row.request_energy
    cells = place(row) | dict.fromkeys(["mean", "dearest"], ABSENT)
    cells |= {f"p{percent}": ABSENT for percent in PERCENTILES}
    if found is None:
        told = [f"Not attributed: {row.attributed_reason}."] if row.attributed_reason else []
        return Line(row_id(source), cells, (source,), notes.marks(told))
    first = found.dearest[0]
    lengths = f"{first.prompt_tokens} → {first.output_tokens}"
    cells |= {name: three_digits(value) for name, value in found.quantiles_j.items()}
    cells |= {
        "mean": three_digits(found.mean_j),
        "dearest": f"{first.request_id}, {lengths}, {three_digits(first.energy_j)}",
    }
    told = [f"Shares assume: {text}." for text in found.assumptions]
    if found.power == "mean power":
        told.append("The power is taken as constant over the window, for want of a power trace.")
    return Line(row_id(source), cells, (source,), notes.marks(told))


def _values(rows: Sequence[AggregateRow]) -> Iterator[list[object]]:
    for row in rows:
        own = [*(getattr(row, name) for name in PLACE), row.energy_status]
        found = row.request_energy
        if found is None:
            yield [*own, None, None, None, None, None, None, row.attributed_reason]
            continue
        for name, value in (("mean", found.mean_j), *found.quantiles_j.items()):
            yield [*own, name, None, None, None, found.requests, value, None]
        for one in found.dearest:
            tokens = (one.prompt_tokens, one.output_tokens)
            yield [*own, "dearest", one.request_id, *tokens, None, one.energy_j, None]
        for group in found.groups:
            tokens = (group.prompt_tokens, group.output_tokens)
            yield [*own, "lengths", None, *tokens, group.requests, group.energy_j, None]
