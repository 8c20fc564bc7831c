"""The rows that most tables share: cells and workloads, backend by backend, with statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from llm_energy.analysis.statistics.format import ABSENT, bias, quantity
from llm_energy.core.errors import LlmEnergyError
from llm_energy.publish.csv_text import csv_text
from llm_energy.publish.tables.writers.table import (
    Column,
    Footnotes,
    Line,
    Results,
    Sheet,
    Table,
    row_id,
    title,
)
from llm_energy.records import Aggregate, AggregateRow, Statistic
from llm_energy.records.registry.metrics import METRICS, NET

TOLD_ELSEWHERE = {"M11", "M12", "M22"}  # by the label of the row, its components and the caption
MEANINGS = {
    "M03": "Short window: under 30 s, where the errors at its edges weigh more.",
    "M25": "A GPU's joules are those of its whole module: CPU and memory are in them.",
    "mixed_backends": "Pools several backends against advice: the mean of unlike systems.",
}
CELL = (
    Column("model", "Model", brief="Model"),
    Column("precision", "Precision", brief="Precision"),
    Column("workload", "Workload (batch)", brief="Workload"),
)
PLACE = (
    *("backend", "cell", "model", "precision", "workload", "batch_size", "batching"),
    *("outcome", "reason", "simulated"),
)
PARTS = tuple(field.name for field in fields(Statistic))
parts_of = attrgetter(*PARTS)
NO_PARTS = (None,) * len(PARTS)
N = Column("n", "n", "number", "n")
ENERGY = Column("energy", "Energy")


@dataclass(frozen=True)
class Measure:
    """A column of one statistic; ``meaning`` explains it below the table.

    A ``brief`` one is in the terminal as well, under that text where it is one. An ``optional`` one
    stands there only where a row has something in it. Its head is the metric's own where no other
    is given.
    """

    name: str
    statistic: str
    write: Callable[[Statistic], str] = quantity
    brief: bool | str = False
    optional: bool = False
    meaning: str = ""
    head: str | None = None

    @property
    def column(self) -> Column:
        """Return the column on the page."""
        head = self.head or METRICS[self.statistic].head
        brief = head if self.brief is True else self.brief or None
        return Column(self.name, head, "number", brief)

    def of(self, row: AggregateRow) -> str:
        """Return the cell of a row."""
        found = row.statistics.get(self.statistic)
        return ABSENT if found is None else self.write(found)


def filled(measures: Sequence[Measure], rows: Sequence[AggregateRow]) -> tuple[Measure, ...]:
    """Leave out the optional columns that no row fills."""
    return tuple(
        measure
        for measure in measures
        if not measure.optional or any(measure.of(row) != ABSENT for row in rows)
    )


def ordered(aggregates: Sequence[Aggregate]) -> list[Aggregate]:
    """Put aggregates in the order of their backends' names, so that tables never depend on it.

    Raises LlmEnergyError for aggregates of several sweeps, for two of one backend, and for
    simulated joules beside real ones.
    """
    sweeps, backends = {a.sweep for a in aggregates}, [a.backend for a in aggregates]
    if len(sweeps) > 1 or len(set(backends)) < len(backends):
        raise LlmEnergyError(
            f"one table takes one sweep and each backend once; found sweeps "
            f"{', '.join(sorted(sweeps))} and backends {', '.join(sorted(backends))}"
        )
    if len({row.simulated for aggregate in aggregates for row in aggregate.rows if row.n}) > 1:
        raise LlmEnergyError(
            f"sweep {aggregates[0].sweep}: some joules are of a simulated host and some of a real "
            "one; they are never shown in one table"
        )
    return sorted(aggregates, key=lambda a: a.backend)


def is_simulated(aggregates: Sequence[Aggregate]) -> bool:
    """Return whether the joules are those of a simulated host."""
    return any(row.simulated for aggregate in aggregates for row in aggregate.rows if row.n)


def block_title(aggregate: Aggregate) -> str:
    """Return the title of a backend's rows."""
    return aggregate.backend + (" (pooled)" if aggregate.mixed_backends else "")


def label(rows: Sequence[AggregateRow]) -> str:
    """Say in one line how the joules in these rows are known."""
    if any(row.simulated for row in rows):
        return "No joule here was ever drawn: the host, its GPUs and its sensors are simulated."
    statuses = {row.energy_status for row in rows if row.n}
    if statuses == {"estimated"}:
        hosts = ", ".join(sorted({host for row in rows for host in row.hosts}))
        return f"Every joule here is estimated: no energy sensor was readable on {hosts}."
    if statuses == {"measured"}:
        return "Every joule here is measured, by sensors of the components that its row names."
    if statuses:
        return "Joules are measured or estimated as each row says; the two are never added."
    return "There is no joule here: no cell gave a usable measurement."


def place(row: AggregateRow) -> dict[str, str]:
    """Return the cells that say what a row is about, its number of repeats and its energy."""
    batch = ", ".join(str(part) for part in (row.batch_size, row.batching) if part)
    status = "simulated" if row.simulated else row.energy_status
    return {
        "model": row.model,
        "precision": row.precision,
        "workload": f"{row.workload} ({batch})" if batch else row.workload,
        "n": str(row.n),
        "energy": f"{status}: {', '.join(row.components)}" if row.n else ABSENT,
    }


def repeats_of(row: AggregateRow) -> dict[str, str]:
    """Return the number of repeats of what was measured beside joules, whatever became of these."""
    known = max((one.n for one in row.statistics.values()), default=0)
    return {"n": str(row.n or known)}


def remarks(row: AggregateRow, titles: Mapping[str, str]) -> list[str]:
    """Return the footnotes of a row, the most important first; ``titles`` are of its flags."""
    if row.n == 0:
        return [row.reason or row.outcome]
    found = [f"Weights: {row.checkpoint}."] if row.checkpoint else []
    if row.energy_status == "estimated":
        found.append("Estimated by a model, not measured by a sensor.")
    if row.degraded:
        found.append(bias(row.bias_bound_percent))
    found += [meaning(flag, titles) for flag in row.flags if flag not in TOLD_ELSEWHERE]
    if row.not_needed:
        found.append(f"Stopped early at n = {row.n}: the interval was narrow enough.")
    found += [f"Repeat {repeat} left out: {reason}" for repeat, reason in row.excluded]
    net = row.statistics.get(NET)
    if net and 0 < net.n < row.n:
        found.append(f"Net energy is of {net.n} of {row.n} repeats; the others lack a baseline.")
    if row.assumptions:
        found.append(f"Intervals assume: {'; '.join(row.assumptions)}.")
    return found


def meaning(flag: str, titles: Mapping[str, str]) -> str:
    """Say what a flag means: by its title, and by its id alone where no verdict had one."""
    if flag in MEANINGS:
        return MEANINGS[flag]
    return f"{flag}: {titles[flag]}." if flag in titles else flag


def statistics_table(
    results: Results,
    name: str,
    subject: str,
    explanation: str,
    measures: Sequence[Measure],
    beside: Sequence[Measure] = (),
    more: Callable[[AggregateRow], list[str]] = lambda row: [],
) -> Table:
    """Return a table of some statistics: a row for each cell, workload and energy status with any.

    Those ``beside`` are shown in the rows that the others make; ``more`` gives further footnotes.
    """
    aggregates, notes = results.aggregates, Footnotes()
    chosen = [
        (aggregate, [row for row in aggregate.rows if any(m.of(row) != ABSENT for m in measures)])
        for aggregate in aggregates
    ]
    rows = [row for _, found in chosen for row in found]
    shown = (*beside, *filled(measures, rows))

    def line(row: AggregateRow) -> Line:
        source = (row.cell, row.workload)
        cells = place(row) | repeats_of(row)
        cells |= {measure.name: measure.of(row) for measure in shown}
        told = [*remarks(row, results.titles), *more(row)]
        return Line(row_id(source), cells, (source,), notes.marks(told))

    sheet = Sheet(
        name=name,
        title=title(subject, aggregates[0].sweep, is_simulated(aggregates)),
        label=label(rows) if rows else "Nothing to show: no cell of this sweep has it.",
        explanation=" ".join([explanation, *(m.meaning for m in shown if m.meaning)]),
        columns=(*CELL, *(measure.column for measure in shown), N, ENERGY),
        blocks=tuple(
            (block_title(aggregate), tuple(line(row) for row in found))
            for aggregate, found in chosen
            if found
        ),
        notes=notes.texts,
    )
    return Table(sheet, to_csv(aggregates, [measure.statistic for measure in shown]))


class Frame(NamedTuple):
    """What a table says beside its rows; ``nothing`` replaces the label where there are none."""

    name: str
    subject: str
    label: str
    explanation: str
    columns: tuple[Column, ...]
    nothing: str = "Nothing to show: the sweep gave nothing to make this of."
    in_terminal: bool = False


def framed(
    results: Results,
    frame: Frame,
    blocks: Iterable[tuple[str, tuple[Line, ...]]],
    notes: tuple[str, ...],
    heads: Sequence[str],
    values: Iterable[Sequence[object]],
) -> Table:
    """Return a table of these rows; its CSV has the sweep, then ``values`` under ``heads``."""
    sweep, blocks = results.aggregates[0].sweep, tuple(block for block in blocks if block[1])
    sheet = Sheet(
        name=frame.name,
        title=title(frame.subject, sweep, is_simulated(results.aggregates)),
        label=frame.label if blocks else frame.nothing,
        explanation=frame.explanation,
        columns=frame.columns,
        blocks=blocks,
        notes=notes,
        in_terminal=frame.in_terminal,
    )
    return Table(sheet, csv_text(("sweep", *heads), ((sweep, *row) for row in values)))


def to_csv(aggregates: Sequence[Aggregate], statistics: Sequence[str]) -> str:
    """Return one row per cell, workload and energy status with these statistics, unrounded."""
    heads = [
        *("sweep", *PLACE, "energy_status", "components", "n", "degraded"),
        *(f"{name}_{part}" for name in dict.fromkeys(statistics) for part in PARTS),
        *("excluded", "not_needed", "assumptions", "flags", "hosts", "measurements"),
    ]
    return csv_text(heads, _values(aggregates, tuple(dict.fromkeys(statistics))))


def _values(aggregates: Sequence[Aggregate], statistics: Sequence[str]) -> Iterator[list[object]]:
    for aggregate in aggregates:
        for row in aggregate.rows:
            found = [row.statistics.get(name) for name in statistics]
            yield [
                *(aggregate.sweep, *(getattr(row, name) for name in PLACE), row.energy_status),
                *(" ".join(row.components), row.n, row.degraded),
                *chain.from_iterable(parts_of(one) if one else NO_PARTS for one in found),
                "; ".join(f"{repeat}: {reason}" for repeat, reason in row.excluded),
                *(len(row.not_needed), "; ".join(row.assumptions), " ".join(row.flags)),
                *(" ".join(row.hosts), " ".join(row.measurements)),
            ]
