"""Sort the metrics of a sweep into series, and pair two series block by block."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llm_energy.analysis.energy.uncertainty import drift_standard
from llm_energy.analysis.grouping.comparability import differences, in_words
from llm_energy.analysis.grouping.sessions import sessions, utc
from llm_energy.analysis.statistics.outliers import outlying
from llm_energy.analysis.statistics.paired import Shared
from llm_energy.records import Metrics, MetricsTable, Status
from llm_energy.records.comparison import Contrast, Difference, LeftOut, Side
from llm_energy.records.registry.metrics import Metric


@dataclass(frozen=True)
class Series:
    """The usable repeats of one cell and workload with one kind of joules, by their number.

    A block is all repeats with one number. ``conditions`` are those of each repeat.
    """

    cell: str
    model: str
    backend: str
    precision: str
    workload: str
    batch_size: int
    status: Status
    components: tuple[str, ...]
    rows: dict[int, Metrics] = field(default_factory=dict)
    conditions: dict[int, Mapping[str, str]] = field(default_factory=dict)
    _values: dict[str, dict[int, float]] = field(default_factory=dict, compare=False, repr=False)
    _outliers: dict[str, tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kind(self) -> tuple[Status, tuple[str, ...]]:
        """Return what must be the same for joules to be one quantity."""
        return self.status, self.components

    def values(self, metric: Metric) -> dict[int, float]:
        """Return one metric by repeat; what is absent is left out, and nothing for its size."""
        if metric.name not in self._values:  # a series stands in many pairs
            found = {k: getattr(row, metric.name) for k, row in self.rows.items()}
            self._values[metric.name] = {k: v for k, v in found.items() if v is not None}
        return self._values[metric.name]

    def outliers(self, metric: Metric) -> tuple[int, ...]:
        """Return the repeats whose value of one metric lies far from the others'."""
        if metric.name not in self._outliers:
            self._outliers[metric.name] = outlying(self.values(metric))
        return self._outliers[metric.name]

    def shared(self, metric: Metric, repeats: Iterable[int]) -> tuple[float, float]:
        """Return what so many repeats share in net energy, relative to it: its error and its bias.

        The error is that of the idle power's drift, the bias that of idle baselines which were
        taken colder than the windows.
        """
        rows = [self.rows[repeat] for repeat in repeats]
        if metric.kind != "net" or not rows:
            return 0.0, 0.0
        net_j = math.fsum(row.net_energy_j for row in rows)
        drift_j = math.fsum((row.loaded_idle_drift_w or 0.0) * row.duration_s for row in rows)
        excess_j = math.fsum((row.loaded_idle_excess_w or 0.0) * row.duration_s for row in rows)
        return drift_standard(drift_j / net_j), excess_j / net_j

    def without_logarithm(self, metric: Metric) -> list[Difference]:
        """Name the repeats whose value is 0 or less, such as net energy near that of waiting.

        Without them the mean of the others' logarithms would be too large, so there is none.
        """
        low = [str(k) for k, value in self.values(metric).items() if not value > 0]
        if not low:
            return []
        told = f"{metric.label} of {self.cell} is 0 or less in repeat {', '.join(low)}"
        return [Difference("ratio", "undefined", told)]

    def side(self, metric: Metric) -> Side:
        """Describe the series as one side of a comparison."""
        values = self.values(metric)
        return Side(
            cell=self.cell,
            model=self.model,
            backend=self.backend,
            precision=self.precision,
            workload=self.workload,
            batch_size=self.batch_size,
            n=len(values),
            mean=math.fsum(values.values()) / len(values),
        )


@dataclass(frozen=True)
class Pair:
    """Two series of one metric, block by block.

    ``logs`` are the logarithms of other over reference by block. ``differs`` says why no block
    could be paired; ``left_out`` names the blocks that could not be.
    """

    contrast: Contrast
    metric: Metric
    reference: Series
    other: Series
    logs: dict[int, float]
    left_out: tuple[LeftOut, ...]
    differs: tuple[Difference, ...]

    @property
    def shared(self) -> Shared:
        """Return what its blocks have in common."""
        return shared_by(self.reference, self.other, self.metric, self.logs)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Name the sessions that its blocks were measured in, as far as these are known."""
        told = (self.reference.conditions[block].get("session", "") for block in self.logs)
        return tuple(dict.fromkeys(told))

    @property
    def independent(self) -> dict[Hashable, float]:
        """Return the logarithms by block; of several sessions their means by session instead.

        What a session has in common is in the scatter of no block inside it.
        """
        if len(self.sessions) < 2:
            return dict(self.logs)
        found: dict[Hashable, list[float]] = {}
        for block, log in self.logs.items():
            session = self.reference.conditions[block].get("session", "")
            found.setdefault(session, []).append(log)
        return {session: math.fsum(logs) / len(logs) for session, logs in found.items()}


def shared_by(
    reference: Series, other: Series, metric: Metric, blocks: Collection[int] | None = None
) -> Shared:
    """Return what the repeats of a ratio share: those of ``blocks``, or else all of each side.

    Two cells whose net energy is too large by the same share have the right ratio.
    """
    (first, low), (second, high) = (
        side.shared(metric, side.values(metric) if blocks is None else blocks)
        for side in (reference, other)
    )
    return Shared(math.hypot(first, second), abs(high - low))


def collect(tables: Iterable[MetricsTable]) -> list[Series]:
    """Sort every row of metrics into its series, in the order of the rows."""
    found: dict[tuple, Series] = {}
    tables = list(tables)
    measured_in = sessions(row for table in tables for row in table.rows)
    known: dict[tuple, Mapping[str, str]] = {}  # one object for equal conditions
    for number, table in enumerate(tables):
        for row in table.rows:
            session = measured_in.get(row.measurement)
            place = (number, row.conditions, session)
            if place not in known:
                held = table.conditions.get(row.conditions or "", {})
                known[place] = {**held, "session": session} if session else held
            key = (row.cell, row.workload, row.energy_status, row.components)
            if key not in found:
                found[key] = Series(
                    cell=row.cell,
                    model=row.model,
                    backend=row.backend,
                    precision=row.precision,
                    workload=row.workload,
                    batch_size=row.batch_size,
                    status=row.energy_status,
                    components=row.components,
                )
            found[key].rows[row.repeat] = row
            found[key].conditions[row.repeat] = known[place]
    return list(found.values())


def matched(
    reference: Sequence[Series], other: Sequence[Series], metric: Metric
) -> Iterator[tuple[Series, Series]]:
    """Return the series of two cells that are of one kind: the measured ones, else the estimated.

    Where there are none, the first two, whose difference a comparison then names. What is no
    energy is the same in every series of a window.
    """
    pairs = [(a, b) for a in reference for b in other if a.kind == b.kind]
    measured = [pair for pair in pairs if pair[0].status == "measured"]
    chosen = measured or pairs or [(reference[0], other[0])]
    yield from chosen if metric.energy else chosen[:1]


def pair(contrast: Contrast, metric: Metric, reference: Series, other: Series) -> Pair | None:
    """Pair two series block by block; None where one of them has no value at all.

    Members of a pair agree in every condition that the contrast holds fixed, host, GPUs and
    session included, and no other repeat of the two lies between them: a cell that is added later
    was measured in no block of the earlier ones.
    """
    first, second = reference.values(metric), other.values(metric)
    if not first or not second:
        return None
    if undefined := reference.without_logarithm(metric) or other.without_logarithm(metric):
        return Pair(contrast, metric, reference, other, {}, (), tuple(undefined))
    logs: dict[int, float] = {}
    refused: dict[int, tuple[Difference, ...]] = {}
    known: dict[tuple[int, int], list[Difference]] = {}  # most blocks share their conditions
    for block in sorted(first.keys() & second.keys()):
        sides = (reference.conditions[block], other.conditions[block])
        key = (id(sides[0]), id(sides[1]))
        if key not in known:
            known[key] = differences(
                contrast, *sides, energy=metric.energy, per_token=metric.per_token
            )
        if found := known[key] or _apart(reference, other, block):
            refused[block] = tuple(found)
        else:
            logs[block] = math.log(second[block] / first[block])
    left_out = [
        LeftOut(block, f"only one side has a usable repeat {block}")
        for block in sorted(first.keys() ^ second.keys())
    ]
    differs: tuple[Difference, ...] = ()
    if refused and not logs:
        differs = next(iter(refused.values()))
    left_out += [
        LeftOut(block, "; ".join(in_words(one) for one in found))
        for block, found in refused.items()
        if logs
    ]
    left_out.sort(key=lambda one: one.block)
    return Pair(contrast, metric, reference, other, logs, tuple(left_out), differs)


def _apart(reference: Series, other: Series, block: int) -> list[Difference]:
    """Say whether another repeat of two series lies between the two of a block."""
    spans_s = [series.rows[block].span_utc_s for series in (reference, other)]
    if None in spans_s:
        return []
    begins_s = [begin_s for begin_s, _ in spans_s]
    others = (
        row.span_utc_s[0]
        for series in (reference, other)
        for repeat, row in series.rows.items()
        if repeat != block and row.span_utc_s is not None
    )
    if not any(min(begins_s) < begin_s < max(begins_s) for begin_s in others):
        return []
    first, second = map(utc, begins_s)
    return [Difference("block", first, f"{second}, with other repeats of the two in between")]
