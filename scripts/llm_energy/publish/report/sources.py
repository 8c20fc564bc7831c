"""What the report is made from, gathered once for all its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llm_energy.analysis.grouping.rows import one_per_place, representatives, with_energy
from llm_energy.records import (
    Aggregate,
    AggregateRow,
    Measurement,
    Metrics,
    MetricsTable,
    Plan,
    Verdict,
    Verdicts,
    check_titles,
    read_record,
)
from llm_energy.records.comparison import Comparisons
from llm_energy.records.phases import Phases
from llm_energy.records.recommendation import Lowest


@dataclass(frozen=True)
class Sources:
    """The records of one sweep. Paths in them are taken relative to ``root``."""

    plan: Plan
    aggregates: Sequence[Aggregate]
    metrics: Sequence[MetricsTable]
    verdicts: Sequence[Verdicts]
    comparisons: Comparisons
    root: Path = Path()
    phases: Phases | None = None

    @cached_property
    def rows(self) -> list[AggregateRow]:
        """Return one row for each cell and workload with joules, in the order of the plan."""
        return one_per_place(with_energy(self.aggregates))

    @cached_property
    def every_row(self) -> list[AggregateRow]:
        """Return all rows, also those without joules and of estimates beside others."""
        return [row for aggregate in self.aggregates for row in aggregate.rows]

    @cached_property
    def windows(self) -> list[Metrics]:
        """Return every usable window: one row a repeat, workload and energy status."""
        return [row for table in self.metrics for row in table.rows]

    @cached_property
    def judged(self) -> list[Verdict]:
        """Return the verdicts on all windows, those without a measurement included."""
        return [verdict for table in self.verdicts for verdict in table.verdicts]

    @cached_property
    def titles(self) -> dict[str, str]:
        """Return, by id, the titles of the checks that found something."""
        return check_titles(self.verdicts)

    @cached_property
    def repeats(self) -> dict[str, Measurement]:
        """Return the first usable repeat of each cell: what it shows stands for the others."""
        return {
            cell: read_record(Measurement, self.root / path)
            for cell, path in representatives(self.rows).items()
        }

    @cached_property
    def simulated(self) -> bool:
        """Return whether any joule is of a simulated host."""
        return any(row.simulated for row in self.every_row)

    @cached_property
    def backends(self) -> list[str]:
        """Return the backends in the order of the plan."""
        return list(self.plan.backends)

    def row_of(self, lowest: Lowest) -> AggregateRow:
        """Return the row that the compare stage found to have the lowest energy."""
        asked = (lowest.cell, lowest.workload, lowest.energy_status, lowest.components)
        return next(
            r
            for r in self.every_row
            if (r.cell, r.workload, r.energy_status, r.components) == asked
        )


def read_sources(
    plan: Path,
    aggregates: Iterable[Path],
    metrics: Iterable[Path],
    verdicts: Iterable[Path],
    comparisons: Path,
    root: Path = Path(),
    phases: Path | None = None,
) -> Sources:
    """Read all that the report needs, each file once."""
    return Sources(
        plan=read_record(Plan, plan),
        aggregates=[read_record(Aggregate, path) for path in aggregates],
        metrics=[read_record(MetricsTable, path) for path in metrics],
        verdicts=[read_record(Verdicts, path) for path in verdicts],
        comparisons=read_record(Comparisons, comparisons),
        root=root,
        phases=read_record(Phases, phases) if phases else None,
    )


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun.

    >>> counted(1, "cell"), counted(3, "cell")
    ('1 cell', '3 cells')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}".replace(",", "\u202f")


def listed(names: Iterable[str]) -> str:
    """Write names as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
