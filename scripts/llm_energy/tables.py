"""Show aggregates as tables: CSV with every value; Markdown, LaTeX and plain text for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from llm_energy.checks import CATALOGUE
from llm_energy.errors import LlmEnergyError
from llm_energy.records import Aggregate, AggregateRow, Statistic
from llm_energy.statistics import ABSENT, absolute_quantity, mean_only, quantity
from llm_energy.typesetting import COLUMNS, Line, Sheet, to_latex, to_markdown, to_text

TOLD_ELSEWHERE = {"M11", "M12", "M22"}  # by the label of the row, its components and the caption
GROSS, NET = "energy_per_output_token_j", "net_energy_per_output_token_j"
STEADY_STATE = "steady_state_energy_per_output_token_j"
FACILITY = "facility_energy_per_output_token_j"
PLACE = (
    *("backend", "cell", "model", "precision", "workload", "batch_size", "batching"),
    *("outcome", "reason", "simulated"),
)
MEANINGS = {
    "M03": "Short window: under 30 s, where the errors at its edges weigh more.",
    "mixed_backends": "Pools several backends against advice: the mean of unlike systems.",
}


SIMULATED = "SIMULATED: "
EXPLANATION = (
    "J/output token is the gross energy of the window over its output tokens: the mean over n "
    "repeats ± half its 95 % interval, for comparisons on one board. With one repeat the interval "
    "is the meter's alone, and an estimate has none; with two it is wide because two repeats say "
    "little. Net is gross minus the power of the loaded, idle model times the window. CPU and "
    "memory joules include every process of the host. tok/s counts output tokens; TTFT is the time "
    "to first token, queueing included. Digits follow the interval. Each backend stands by itself."
)
# Columns that stand there only where a row has something in them, and what they mean.
OPTIONAL = {
    "absolute": (
        "Absolute is the same mean with the error of the boards' own sensors in its interval: 5 % "
        "as a standard uncertainty (Yang, Adamek and Armour, SC'24, arXiv:2312.02741). It is the "
        "one to quote beyond one board."
    ),
    "steady_state": (
        "Steady state is the joules over the output tokens of the time in which the batch was "
        "full; the prefill of requests that join it is inside."
    ),
    "facility": "Facility is gross times the site's power usage effectiveness (PUE).",
}


# what is shown


def sheet(aggregates: Sequence[Aggregate]) -> Sheet:
    """Collect what the tables for people show, and number its footnotes.

    A row with estimated joules is left out where the same workload has measured ones; the CSV has
    both. Raises LlmEnergyError for aggregates of several sweeps, for two of one backend, and for
    simulated joules beside real ones.
    """
    aggregates = ordered(aggregates)
    kinds = {row.simulated for aggregate in aggregates for row in aggregate.rows if row.n}
    if len(kinds) > 1:
        raise LlmEnergyError(
            f"sweep {aggregates[0].sweep}: some joules are of a simulated host and some of a real "
            "one; they are never shown in one table"
        )
    notes: dict[str, int] = {}
    blocks = []
    shown: list[AggregateRow] = []
    for aggregate in aggregates:
        measured = {(r.cell, r.workload) for r in aggregate.rows if r.energy_status == "measured"}
        hidden = {
            (row.cell, row.workload): row
            for row in aggregate.rows
            if row.energy_status == "estimated" and (row.cell, row.workload) in measured
        }
        rows = [
            row
            for row in aggregate.rows
            if row.energy_status != "estimated" or (row.cell, row.workload) not in hidden
        ]
        lines = [_line(row, hidden.get((row.cell, row.workload)), notes) for row in rows]
        title = aggregate.backend + (" (pooled)" if aggregate.mixed_backends else "")
        blocks.append((title, tuple(lines)))
        shown += rows
    filled = [
        name
        for name in OPTIONAL
        if any(getattr(line, name) != ABSENT for _, lines in blocks for line in lines)
    ]
    title = f"energy per output token, sweep {aggregates[0].sweep}"
    return Sheet(
        title=SIMULATED + title if True in kinds else title[0].upper() + title[1:],
        label=label(shown),
        explanation=" ".join([EXPLANATION, *(OPTIONAL[name] for name in filled)]),
        columns=tuple(c for c in COLUMNS if c[0] not in OPTIONAL or c[0] in filled),
        blocks=tuple(blocks),
        notes=tuple(notes),
    )


def ordered(aggregates: Sequence[Aggregate]) -> list[Aggregate]:
    """Put aggregates in the order of their backends' names, so that tables never depend on it."""
    sweeps, backends = {a.sweep for a in aggregates}, [a.backend for a in aggregates]
    if len(sweeps) > 1 or len(set(backends)) < len(backends):
        raise LlmEnergyError(
            f"one table takes one sweep and each backend once; found sweeps "
            f"{', '.join(sorted(sweeps))} and backends {', '.join(sorted(backends))}"
        )
    return sorted(aggregates, key=lambda a: a.backend)


def label(rows: Sequence[AggregateRow]) -> str:
    """Say in one line how the joules in these rows are known."""
    if any(row.simulated for row in rows):
        return "No joule here was ever drawn: the host, its boards and its sensors are simulated."
    statuses = {row.energy_status for row in rows if row.n}
    if statuses == {"estimated"}:
        hosts = ", ".join(sorted({host for row in rows for host in row.hosts}))
        return f"Every joule here is estimated: no energy sensor was readable on {hosts}."
    if statuses == {"measured"}:
        return "Every joule here is measured, by sensors of the components that its row names."
    if statuses:
        return "Joules are measured or estimated as each row says; the two are never added."
    return "There is no joule here: no cell gave a usable measurement."


def _line(row: AggregateRow, hidden: AggregateRow | None, notes: dict[str, int]) -> Line:
    def value(name: str, write=quantity) -> str:
        return write(row.statistics[name]) if name in row.statistics else ABSENT

    marks = sorted(notes.setdefault(text, len(notes) + 1) for text in _remarks(row, hidden))
    batch = ", ".join(str(part) for part in (row.batch_size, row.batching) if part)
    status = "simulated" if row.simulated else row.energy_status
    return Line(
        model=row.model,
        precision=row.precision,
        workload=f"{row.workload} ({batch})" if batch else row.workload,
        gross=value(GROSS) if row.n else row.outcome,
        absolute=value(GROSS, absolute_quantity),
        net=value(NET),
        steady_state=value(STEADY_STATE),
        facility=value(FACILITY),
        tokens_per_s=value("output_tokens_per_s", mean_only),
        ttft=value("ttft_s", mean_only),
        n=str(row.n),
        energy=f"{status}: {', '.join(row.components)}" if row.n else ABSENT,
        notes=tuple(marks),
    )


def _remarks(row: AggregateRow, hidden: AggregateRow | None) -> list[str]:
    """Give the footnotes of one row, the most important first."""
    if row.n == 0:
        return [row.reason or row.outcome]
    remarks = []
    if row.energy_status == "estimated":
        remarks.append("Estimated by a model, not measured by a sensor.")
    if row.degraded:
        remarks.append("Degraded: at least one repeat carries a warning; see verdicts.json.")
    remarks += [_meaning(flag) for flag in row.flags if flag not in TOLD_ELSEWHERE]
    if row.not_needed:
        remarks.append(f"Stopped early at n = {row.n}: the interval was narrow enough.")
    remarks += [f"Repeat {repeat} left out: {reason}" for repeat, reason in row.excluded]
    if row.assumptions:
        remarks.append(f"Intervals assume: {'; '.join(row.assumptions)}.")
    if hidden:
        parts = ", ".join(hidden.components)
        remarks.append(f"Estimated joules of {parts} are in energy.csv and not added here.")
    return remarks


def _meaning(flag: str) -> str:
    if flag in MEANINGS:
        return MEANINGS[flag]
    return f"{flag}: {CATALOGUE[flag].title}." if flag in CATALOGUE else flag


# setting it


def render(aggregates: Sequence[Aggregate]) -> dict[str, str]:
    """Give the text of every table by its file suffix: csv, md, tex, txt."""
    content = sheet(aggregates)
    return {
        "csv": to_csv(aggregates),
        "md": to_markdown(content),
        "tex": to_latex(content),
        "txt": to_text(content),
    }


def summary(aggregates: Sequence[Aggregate]) -> str:
    """Give the compact table that ends a run, at most 100 columns wide, and its one label line."""
    return to_text(sheet(aggregates))


def to_csv(aggregates: Sequence[Aggregate]) -> str:
    """Give one row per cell, workload and energy status with every value, unrounded."""
    aggregates = ordered(aggregates)
    names = list(dict.fromkeys(n for a in aggregates for r in a.rows for n in r.statistics))
    parts = tuple(field.name for field in dataclasses.fields(Statistic))
    lists = ("components", "flags", "hosts", "measurements")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["sweep", *PLACE, "energy_status", "components", "n", "degraded"]
        + [f"{name}_{part}" for name in names for part in parts]
        + ["excluded", "not_needed", "assumptions", "flags", "hosts", "measurements"]
    )
    for aggregate in aggregates:
        for row in aggregate.rows:
            joined = {name: " ".join(getattr(row, name)) for name in lists}
            place = [getattr(row, name) for name in PLACE]
            statistics = [row.statistics.get(name) for name in names]
            values = [s and getattr(s, part) for s in statistics for part in parts]
            excluded = "; ".join(f"{repeat}: {reason}" for repeat, reason in row.excluded)
            writer.writerow(
                [
                    *(aggregate.sweep, *place, row.energy_status, joined["components"]),
                    *(row.n, row.degraded, *values),
                    *(excluded, len(row.not_needed), "; ".join(row.assumptions)),
                    *(joined["flags"], joined["hosts"], joined["measurements"]),
                ]
            )
    return stream.getvalue()
