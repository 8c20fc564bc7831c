"""What the report is made from, gathered once for all its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llm_energy.comparison_records import UNTOLD, Comparison, Comparisons, Recommendation
from llm_energy.files import read_json
from llm_energy.headline import headline_rows, representatives
from llm_energy.records import (
    Aggregate,
    AggregateRow,
    Measurement,
    Metrics,
    MetricsTable,
    Verdict,
    Verdicts,
    check_titles,
    read_record,
)
from llm_energy.records.metrics import GROSS

Place = tuple[str, str]  # (cell, workload)


@dataclass(frozen=True)
class Sources:
    """The records of one sweep. Paths in them are taken relative to ``root``."""

    plan: Mapping[str, Any]
    aggregates: Sequence[Aggregate]
    metrics: Sequence[MetricsTable]
    verdicts: Sequence[Verdicts]
    comparisons: Comparisons
    root: Path = Path()

    @cached_property
    def rows(self) -> list[AggregateRow]:
        """Give one row for each cell and workload with joules, in the order of the plan."""
        return headline_rows(self.aggregates)

    @cached_property
    def every_row(self) -> list[AggregateRow]:
        """Give all rows, those of cells without joules and of estimates beside others included."""
        return [row for aggregate in self.aggregates for row in aggregate.rows]

    @cached_property
    def windows(self) -> list[Metrics]:
        """Give every usable window: one row a repeat, workload and energy status."""
        return [row for table in self.metrics for row in table.rows]

    @cached_property
    def judged(self) -> list[Verdict]:
        """Give the verdicts on all windows, those without a measurement included."""
        return [verdict for table in self.verdicts for verdict in table.verdicts]

    @cached_property
    def titles(self) -> dict[str, str]:
        """Return, by id, the titles of the checks that found something."""
        return check_titles(self.verdicts)

    @cached_property
    def repeats(self) -> dict[str, Measurement]:
        """Give the first usable repeat of each cell: what it shows stands for the others."""
        return {
            cell: read_record(Measurement, self.root / path)
            for cell, path in representatives(self.rows).items()
        }

    @cached_property
    def simulated(self) -> bool:
        """Say whether any joule is of a simulated host."""
        return any(row.simulated for row in self.every_row)

    @cached_property
    def backends(self) -> list[str]:
        """Give the backends in the order of the plan."""
        return list(dict.fromkeys(cell["backend"] for cell in self.plan["cells"]))

    def verdict(self, best: AggregateRow, other: AggregateRow) -> str | None:
        """Say how the joules of two rows compare, None where they were not compared in pairs.

        Where the first is recommended, in the words of its recommendation: a pair has another
        interval in each family of comparisons that it is corrected in, and the main findings take
        theirs from there.
        """
        advised, found = self._recommendation_of(best), self.comparison(best, other)
        candidates = advised.candidates if advised else ()
        told = (c.against_best for c in candidates if (c.cell, c.workload) == place(other))
        return next(told, None) or (found and found.verdict)

    def ties(self, best: AggregateRow) -> list[AggregateRow]:
        """Give the rows that the compare stage could not tell from this one by their joules.

        Where it is recommended they are those of its recommendation, as in ``verdict``.
        """
        scope = (best.energy_status, best.components)
        kin = [row for row in self.rows if (row.energy_status, row.components) == scope]
        if advised := self._recommendation_of(best):
            return [row for row in kin if place(row) in advised.ties]
        compared = ((row, self.comparison(best, row)) for row in kin if row is not best)
        return [row for row, one in compared if one and one.outcome in UNTOLD]

    def _recommendation_of(self, row: AggregateRow) -> Recommendation | None:
        """Give the recommendation of this row, if it is recommended."""
        return self._advised.get((row.energy_status, row.components, place(row)))

    @cached_property
    def _advised(self) -> dict[tuple[str, tuple[str, ...], Place], Recommendation]:
        return {
            (one.energy_status, one.components, one.best): one
            for one in self.comparisons.recommendations
            if one.best
        }

    def comparison(self, one: AggregateRow, other: AggregateRow) -> Comparison | None:
        """Give the comparison of joules per output token between two rows, in either order."""
        return self._pairs.get((one.energy_status, frozenset((place(one), place(other)))))

    @cached_property
    def _pairs(self) -> dict[tuple[str | None, frozenset[Place]], Comparison]:
        found: dict[tuple[str | None, frozenset[Place]], Comparison] = {}
        for c in self.comparisons.comparisons:
            if c.metric == GROSS:
                pair = (c.reference.cell, c.reference.workload), (c.other.cell, c.other.workload)
                found.setdefault((c.energy_status, frozenset(pair)), c)
        return found


def read_sources(
    plan: Path,
    aggregates: Iterable[Path],
    metrics: Iterable[Path],
    verdicts: Iterable[Path],
    comparisons: Path,
    root: Path = Path(),
) -> Sources:
    """Read all that the report needs, each file once."""
    return Sources(
        plan=read_json(plan),
        aggregates=[read_record(Aggregate, path) for path in aggregates],
        metrics=[read_record(MetricsTable, path) for path in metrics],
        verdicts=[read_record(Verdicts, path) for path in verdicts],
        comparisons=read_record(Comparisons, comparisons),
        root=root,
    )


def place(row: AggregateRow) -> Place:
    """Name what a row is about."""
    return row.cell, row.workload


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


def most_common(names: Iterable[Any]) -> Any:
    """Give the most frequent of some values, the first of equals."""
    return Counter(names).most_common(1)[0][0]
