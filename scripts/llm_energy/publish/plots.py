"""Describe the plots of a sweep once, as data: which rows, against what, joined by which lines.

Figures draw them for papers and the report for its page, in the same colours and order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llm_energy.analysis.grouping.rows import key
from llm_energy.records import AggregateRow
from llm_energy.records.comparison import ParetoFront
from llm_energy.records.files.names import numeric_order
from llm_energy.records.registry.metrics import GROSS, METRICS, SPEED

# Okabe and Ito, "Color Universal Design" (2008, https://jfly.uni-koeln.de/color/). Shapes differ
# too, so that a plot can be read in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
COMPONENT_COLOURS = {"gpu": "#0072B2", "cpu": "#E69F00", "dram": "#009E73"}
FRONT_COLOUR = "#999999"
ENERGY_LABEL = f"{METRICS[GROSS].label} (gross)"
SPREAD = 5  # values over a wider factor than this are shown on a logarithmic axis
BATCH, RATE, LATENCY = "batch_size", "arrival_rate_per_s", "e2e_latency_s"
CONTINUOUS = "continuous"
INTERVALS = (
    "Bars are 95 % intervals of the mean over repeats, for comparisons on one GPU; none is drawn "
    "below zero, and one that leaves the axis is wider still."
)
FRONTS = (
    "Each grey line is the Pareto front of one piece of work on one backend: on it lies what "
    "nothing else of that work beats in both."
)
NO_WINDOW = "no cell gave a usable window"


class Look(NamedTuple):
    """The colour and the shape that stand for one value of an axis throughout a sweep."""

    colour: str
    shape: str


class Line(NamedTuple):
    """Rows that a line joins, in its order."""

    rows: tuple[AggregateRow, ...]
    kind: Literal["plain", "dashed", "front"] = "plain"


@dataclass(frozen=True)
class Plot:
    """One plot: joules per output token of ``rows``, against ``x`` if it is one of points.

    ``x`` is a metric or the batch size. Rows that agree in the fields ``panels`` share a panel
    where a plot has several; ``by`` is the field that colours tell apart, with its ``looks``.
    ``reason`` says why there is nothing to draw where there is nothing.
    """

    name: str
    title: str
    caption: str
    rows: tuple[AggregateRow, ...]
    looks: Mapping[str, Look]
    panels: tuple[str, ...] = ("model", "backend")
    by: str = "precision"
    x: str | None = None
    lines: tuple[Line, ...] = ()
    reason: str = NO_WINDOW

    def x_of(self, row: AggregateRow) -> float:
        """Return where a row stands."""
        if self.x == BATCH:
            return row.batch_size
        return row.statistics[self.x].mean

    @property
    def x_label(self) -> str:
        """Return the label of the axis, which says what is better where something is."""
        if self.x == BATCH:
            return "batch size"
        metric = METRICS[self.x]
        return f"{metric.axis}, {metric.better} is better" if metric.better else metric.axis

    def look(self, row: AggregateRow) -> Look:
        """Return the look of a row."""
        return self.looks[getattr(row, self.by)]

    def panel_of(self, row: AggregateRow) -> str:
        """Return the title of the panel that a row stands in."""
        return ", ".join(getattr(row, field) for field in self.panels)


def describe(
    rows: Sequence[AggregateRow],
    every_row: Sequence[AggregateRow],
    pareto: Sequence[ParetoFront],
) -> dict[str, Plot]:
    """Return every plot by its name.

    ``rows`` are one for each cell and workload, ``every_row`` all that have joules, ``pareto`` the
    fronts of the compare stage.
    """
    looks = looks_of(row.precision for row in rows)
    busy, timed = _busy(rows), _known([row for row in rows if row.traffic], RATE)
    shared = tuple(sorted(_on_several_backends(rows), key=_by_workload))
    plots = (
        Plot(
            "batch",
            "Energy by precision and batch size",
            "Gross joules per output token. Dashed: continuous batching.",
            busy,
            looks,
            x=BATCH,
            lines=tuple(_by_batch_size(busy)),
        ),
        Plot(
            "backend",
            "Energy by backend",
            "Gross joules per output token of the same work on each backend.",
            shared,
            looks_of(row.backend for row in shared),
            panels=("model", "workload"),
            by="backend",
            reason="no work was measured on two backends",
        ),
        _trade("throughput", SPEED, rows, looks, pareto, NO_WINDOW),
        _trade("latency", LATENCY, rows, looks, pareto, "no latency was recorded"),
        Plot(
            "components",
            "Energy by component",
            "Gross joules per output token of GPUs, processors and memory; each bar is one sum. "
            "Measured and estimated joules are never added.",
            tuple(sorted(every_row, key=_by_workload)),
            dict(
                zip(COMPONENT_COLOURS, map(Look, COMPONENT_COLOURS.values(), SHAPES), strict=False)
            ),
            panels=("model", "backend", "precision"),
            by="component",
        ),
        Plot(
            "load",
            "Energy over load",
            "Gross joules per output token against the rate at which requests arrive, the power of "
            "waiting included.",
            timed,
            looks,
            x=RATE,
            lines=tuple(_by_rate(timed)),
            reason="no workload has timed traffic",
        ),
    )
    return {plot.name: plot for plot in plots}


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return each name's look, in the order in which the sweep names them; the last ones repeat."""
    return {
        name: Look(COLOURS[k % len(COLOURS)], SHAPES[k % len(SHAPES)])
        for k, name in enumerate(dict.fromkeys(names))
    }


def spans_widely(values: Sequence[float]) -> bool:
    """Return whether values are shown on a logarithmic axis."""
    return min(values) > 0 and max(values) > SPREAD * min(values)


def _trade(
    name: str,
    metric: str,
    rows: Sequence[AggregateRow],
    looks: Mapping[str, Look],
    pareto: Sequence[ParetoFront],
    reason: str,
) -> Plot:
    """Set energy against a second quantity, with the fronts through those of their rows shown."""
    known = _known(rows, metric)
    shown = {key(row): row for row in known}
    ends = [
        tuple(shown[place] for place in front.places if place in shown)
        for front in pareto
        if front.against == metric
    ]
    return Plot(
        name,
        f"Energy against {name}",
        FRONTS,
        known,
        looks,
        x=metric,
        lines=tuple(Line(joined, "front") for joined in ends if joined),
        reason=reason,
    )


def _by_workload(row: AggregateRow) -> list[tuple[str, int]]:
    return numeric_order(row.workload)


def _known(rows: Iterable[AggregateRow], metric: str) -> tuple[AggregateRow, ...]:
    found = ((row, row.statistics.get(metric)) for row in rows)
    return tuple(row for row, statistic in found if statistic and statistic.mean is not None)


def _busy(rows: Iterable[AggregateRow]) -> tuple[AggregateRow, ...]:
    """Return the rows whose energy is that of a busy engine: all but those of timed traffic."""
    return tuple(row for row in rows if not row.traffic)


def _on_several_backends(rows: Sequence[AggregateRow]) -> tuple[AggregateRow, ...]:
    """Return the rows of what more than one backend was asked to do."""
    work = [(row.model, row.precision, row.workload) for row in rows]
    backends = Counter(one for one, _ in {(w, r.backend) for w, r in zip(work, rows, strict=True)})
    return tuple(row for one, row in zip(work, rows, strict=True) if backends[one] > 1)


def _by_batch_size(rows: Iterable[AggregateRow]) -> list[Line]:
    """Join one cell and way of batching in the order of batch size.

    Workloads that share a batch size differ in something else, so each is on a line of its own.
    """
    found: dict[tuple, list[AggregateRow]] = {}
    seen: Counter[tuple] = Counter()
    for row in sorted(rows, key=lambda row: row.batch_size):
        rank = seen[row.cell, row.batching, row.batch_size]
        seen[row.cell, row.batching, row.batch_size] += 1
        found.setdefault((row.cell, row.batching, rank), []).append(row)
    return [
        Line(tuple(own), "dashed" if own[0].batching == CONTINUOUS else "plain")
        for own in found.values()
    ]


def _by_rate(rows: Iterable[AggregateRow]) -> list[Line]:
    """Join the rates of each cell in their order."""
    found: dict[str, list[AggregateRow]] = {}
    for row in sorted(rows, key=lambda row: row.statistics[RATE].mean):
        found.setdefault(row.cell, []).append(row)
    return [Line(tuple(own)) for own in found.values()]
