"""Say what the interval of a row speaks for: its one session, further sessions, further machines.

What differs between days, and between GPUs of one kind, is in no scatter of the repeats of one day
on one GPU. So an interval speaks of its session alone, unless there are several: then each counts
once, and their number gives the degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llm_energy.analysis.energy.summaries import values_of
from llm_energy.analysis.grouping.comparability import FIELDS, UNRECORDED
from llm_energy.analysis.grouping.sessions import sessions
from llm_energy.analysis.statistics.format import significant
from llm_energy.analysis.statistics.summary import between_groups
from llm_energy.records import Metrics, MetricsTable, Statistic
from llm_energy.records.registry.metrics import GROSS, METRICS
from llm_energy.records.results import IntervalScope

# The conditions that all repeats of a row share, or else it has no interval.
ONE_MACHINE = ("boards", "host", "driver", "hardware", "power_limit_w", "engine", "configuration")
# Those of them that tell one machine of a kind from another, so that a sweep may pool over them.
POOLED = ("boards", "host", "driver")


@dataclass(frozen=True)
class Scope:
    """What the interval over the repeats of a row speaks for; ``name`` is None where nothing is.

    ``groups`` names by measurement the session or machine of each, where there are several, and
    ``told`` says so. ``unlike`` repeats have no interval.
    """

    name: IntervalScope | None
    groups: dict[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    unlike: bool = False

    def bare(self, found: Statistic) -> Statistic:
        """Take the intervals off a statistic of unlike repeats.

        How far they lie apart says how unlike the machines are, not what another repeat gives.
        """
        return bare(found) if self.unlike else found


class Scopes:
    """Look up the sessions and the machines of the rows of one backend."""

    def __init__(self, tables: Sequence[MetricsTable], pool_machines: bool) -> None:
        """Read them from all rows, since a session is known of several together."""
        self._pool_machines = pool_machines
        self._sessions = sessions(row for table in tables for row in table.rows)
        self._held = {
            (row.measurement, row.workload): table.conditions.get(row.conditions or "", {})
            for table in tables
            for row in table.rows
        }

    def of(self, rows: Sequence[Metrics]) -> Scope:
        """Return what an interval over these repeats of one row speaks for."""
        if len(rows) < 2:
            return Scope(None)
        unlike = {
            name: values for name in ONE_MACHINE if len(values := self._values(rows, name)) > 1
        }
        if unlike and not (self._pool_machines and unlike.keys() <= set(POOLED)):
            told = "; ".join(
                f"{FIELDS[name].title}: {' and '.join(values)}" for name, values in unlike.items()
            )
            remedy = "measure all on one"
            if unlike.keys() <= set(POOLED):
                remedy += ", or set policy.pool_machines in the config"
            told = f"no interval, since the repeats differ in {told}; {remedy}"
            return Scope(None, told=(told,), unlike=True)
        if unlike:
            machines = {
                row.measurement: "; ".join(self._condition(row, name) for name in POOLED)
                for row in rows
            }
            return _several("machines", rows, machines)
        found = {row.measurement: self._sessions.get(row.measurement, "") for row in rows}
        return _several("sessions", rows, found) if _count(found) > 1 else Scope("session")

    def _condition(self, row: Metrics, name: str) -> str:
        return self._held.get((row.measurement, row.workload), {}).get(name, UNRECORDED)

    def _values(self, rows: Iterable[Metrics], name: str) -> list[str]:
        return list(dict.fromkeys(self._condition(row, name) for row in rows))


def bare(found: Statistic) -> Statistic:
    """Return a statistic without its intervals."""
    return Statistic(found.n, found.mean, found.sd, None, None)


def _several(name: IntervalScope, rows: Sequence[Metrics], groups: dict[str, str]) -> Scope:
    """Return the scope of several sessions or machines, and say how far apart they lie."""
    told = f"other {name} like these {_count(groups)}, each of which counts once"
    known = [row for row in rows if getattr(row, GROSS) is not None]
    values = values_of(known, GROSS)
    between = between_groups(values, [groups[row.measurement] for row in known])
    if between is not None:
        percent = significant(100 * between * len(values) / sum(values)) if sum(values) else "0"
        told += (
            f" (the SD between them, beyond what their repeats explain, is {percent} % of "
            f"{METRICS[GROSS].label})"
        )
    return Scope(name, groups, (told,))


def _count(groups: dict[str, str]) -> int:
    return len(set(groups.values()))
