"""Make the tidy tables of a sweep as data frames: windows, cells, comparisons, requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from llm_energy.analysis.aggregate import planned_batch_sizes
from llm_energy.analysis.energy.attribution import Attribution
from llm_energy.analysis.energy.latency import PERCENTILES, QUANTITIES
from llm_energy.analysis.energy.requests import attributions
from llm_energy.analysis.grouping.comparability import FIELDS
from llm_energy.analysis.normalise import judged_measurement
from llm_energy.core.parallel import each
from llm_energy.publish.data.columns import Column, columns_of, meaning, value_of
from llm_energy.records import (
    Aggregate,
    AggregateRow,
    Metrics,
    MetricsTable,
    Plan,
    PlannedCell,
    RequestTable,
    Statistic,
    Verdict,
    Verdicts,
)
from llm_energy.records.comparison import Comparison, Comparisons, Side
from llm_energy.records.registry.metrics import SUMMARISED

AXES = ("model", "backend", "precision")
# The first columns of a window; what follows is of its metrics.
JUDGED = (
    "cell",
    *AXES,
    "workload",
    "batch_size",
    "repeat",
    "outcome",
    "verdict",
    "reason",
    "flags",
)
# The first columns of a request; what follows is of the window's table.
OF_REQUEST = ("cell", *AXES, "workload", "repeat", "verdict")
NESTED = ("latencies_s", "conditions", "statistics", "reference", "other", "span_utc_s")
NESTED += ("request_energy",)
ENDS = ("repeat_begin_utc_s", "repeat_end_utc_s")
SIDES = ("reference", "other")
NO_QUANTITY = ("n", "degrees_of_freedom")  # of a statistic: they have no unit
TYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}
# What of a window's joules each request is given, after the columns of the window's table.
SHARES = (
    Column(
        "attributed_energy_j",
        "number",
        "The share of the window's joules that is attributed to the request by what the engine's "
        "steps did for it; never measured. Null where the steps are not known.",
        "J",
    ),
    Column(
        "attributed_idle_energy_j",
        "number",
        "The share of what was drawn while no step ran, if it is shared in proportion to the "
        "former; not part of it.",
        "J",
    ),
    Column(
        "attributed_of", "string", "How the shared joules are known.", "", ("measured", "estimated")
    ),
)
SWEEP = Column("sweep", "string", "The name of the sweep.")

Row = Mapping[str, Any]
Orders = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Sweep:
    """What the tidy tables are made from; verdicts, metrics and aggregates are one a backend."""

    plan: Plan
    verdicts: Sequence[Verdicts]
    metrics: Sequence[MetricsTable]
    aggregates: Sequence[Aggregate]
    comparisons: Comparisons

    @cached_property
    def cells(self) -> dict[str, PlannedCell]:
        """Return the cells of the plan by their names."""
        return {cell.cell: cell for cell in self.plan.cells}

    @cached_property
    def orders(self) -> Orders:
        """Return, by column, the names that the config gives in its order."""
        found = {name: [getattr(c, name) for c in self.plan.cells] for name in ("cell", *AXES)}
        found["workload"] = [w for c in self.plan.cells for w in c.workloads]
        return {name: tuple(dict.fromkeys(names)) for name, names in found.items()}


@dataclass(frozen=True)
class Tidy:
    """One table: what makes a row of it, its columns, and its values by their names."""

    row: str
    columns: tuple[Column, ...]
    values: Mapping[str, Sequence[Any]]

    def frame(self) -> pandas.DataFrame:
        """Return it as a data frame: what is absent is null, and categories have their order."""
        return pandas.DataFrame({c.name: _array(c, self.values[c.name]) for c in self.columns})

    def plain(self) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the heads and the rows, as a CSV file has them."""
        names = [column.name for column in self.columns]
        return names, zip(*(self.values[name] for name in names), strict=True)


def _array(column: Column, values: Sequence[Any]) -> Any:
    if column.categories:
        known = dict.fromkeys([*column.categories, *filter(None, values)])  # pooled backends last
        return pandas.Categorical(values, list(known), ordered=True)
    return pandas.array(values, dtype=TYPES[column.kind])


def tables(sweep: Sweep, jobs: int = 1) -> dict[str, Tidy]:
    """Return the tidy tables by their names; ``jobs`` processes read the requests."""
    return {
        "windows": _windows(sweep),
        "cells": _cells(sweep),
        "comparisons": _comparisons(sweep),
        "requests": _requests(sweep, jobs),
    }


def _of_rows(row: str, columns: Sequence[Column], rows: Iterable[Row], sweep: str) -> Tidy:
    """Make a table of rows, in which nothing stands for what is absent."""
    found = list(rows)
    values = {column.name: [one.get(column.name) for one in found] for column in columns}
    return Tidy(row, (SWEEP, *columns), {"sweep": [sweep] * len(found), **values})


def _fields(record: Any) -> dict[str, Any]:
    """Return the fields of a record that are columns."""
    return {f.name: value_of(record, f.name) for f in fields(record) if f.name not in NESTED}


def _windows(sweep: Sweep) -> Tidy:
    known = {
        c.name: c for r in (Verdict, Metrics) for c in columns_of(r, sweep.orders, leave=NESTED)
    }
    first = [known.pop(name) for name in JUDGED]
    return _of_rows(
        "a window and status of its joules: measured and estimated ones are never added. A window "
        "that gave no metrics has its verdict and reason, and null for what there is not",
        [
            *(*first, *known.values()),
            *(Column(name, "number", meaning(Metrics, "span_utc_s"), "s") for name in ENDS),
            *_quantiles(),
            *(
                Column(f"condition_{name}", "string", f"What was held fixed: {field.title}.")
                for name, field in FIELDS.items()
            ),
        ],
        _window_rows(sweep),
        sweep.plan.sweep,
    )


def _quantiles() -> list[Column]:
    told = meaning(Metrics, "latencies_s")
    return [
        Column(f"{name}_p{percent}_s", "number", f"The {percent} % quantile of {name}. {told}", "s")
        for name in QUANTITIES
        for percent in PERCENTILES
    ]


def _window_rows(sweep: Sweep) -> Iterator[Row]:
    sizes = planned_batch_sizes(sweep.plan, sweep.metrics)
    for judged, table in zip(sweep.verdicts, sweep.metrics, strict=True):
        found: dict[tuple[str, int, str], list[Row]] = {}
        for row in table.rows:
            conditions = table.conditions.get(row.conditions, {})
            found.setdefault((row.cell, row.repeat, row.workload), []).append(
                _fields(row)
                | dict(zip(ENDS, row.span_utc_s or (None, None), strict=True))
                | {f"{name}_s": value for name, value in row.latencies_s.items()}
                | {f"condition_{name}": value for name, value in conditions.items()}
            )
        for verdict in judged.verdicts:
            own = _place(sweep, verdict) | {"batch_size": sizes.get(verdict.workload)}
            for row in found.get((verdict.cell, verdict.repeat, verdict.workload), [{}]):
                yield own | row


def _place(sweep: Sweep, verdict: Verdict) -> dict[str, Any]:
    """Return what a verdict says of its window; a cell that was not planned has no repeat."""
    flags = " ".join(dict.fromkeys(flag.id for flag in verdict.flags)) or None
    told = {"flags": flags, "repeat": verdict.repeat or None}
    cell = sweep.cells[verdict.cell]
    return _fields(verdict) | {name: getattr(cell, name) for name in AXES} | told


def _cells(sweep: Sweep) -> Tidy:
    statistics = [
        replace(
            part,
            name=f"{metric.name}_{part.name}",
            meaning=metric.meaning,
            unit="" if part.name in NO_QUANTITY else metric.unit,
            part=part,
        )
        for metric in (
            *(c for c in columns_of(Metrics, {}) if c.name in SUMMARISED),
            *_quantiles(),
        )
        for part in columns_of(Statistic, {})
    ]
    return _of_rows(
        "a cell, workload and status of its joules, over the repeats",
        [*columns_of(AggregateRow, sweep.orders, leave=NESTED), *statistics],
        map(_cell, (row for aggregate in sweep.aggregates for row in aggregate.rows)),
        sweep.plan.sweep,
    )


def _cell(row: AggregateRow) -> Row:
    summaries = row.statistics | {f"{name}_s": one for name, one in row.latencies_s.items()}
    outliers = "; ".join(f"{o.metric}: {' '.join(map(str, o.repeats))}" for o in row.outliers)
    return (
        _fields(row)
        | {"outliers": outliers or None}
        | {
            f"{name}_{part}": value
            for name, one in summaries.items()
            for part, value in vars(one).items()
        }
    )


def _comparisons(sweep: Sweep) -> Tidy:
    columns = columns_of(Comparison, {}, leave=NESTED)
    sides = [c for side in SIDES for c in columns_of(Side, sweep.orders, prefix=f"{side}_")]
    place = [column.name for column in columns].index("outcome")
    return _of_rows(
        "a pair of cells and workloads, and a metric",
        [*columns[:place], *sides, *columns[place:]],
        map(_pair, sweep.comparisons.comparisons),
        sweep.plan.sweep,
    )


def _pair(one: Comparison) -> Row:
    sides = {
        f"{side}_{name}": value
        for side in SIDES
        for name, value in vars(getattr(one, side)).items()
    }
    return _fields(one) | sides


def _requests(sweep: Sweep, jobs: int) -> Tidy:
    known = {
        c.name: c for c in columns_of(Verdict, sweep.orders) + columns_of(Metrics, sweep.orders)
    }
    columns = [
        SWEEP,
        *(known[name] for name in OF_REQUEST),
        *columns_of(RequestTable, {}, columnar=True),
        *SHARES,
    ]
    values: dict[str, list[Any]] = {column.name: [] for column in columns}
    for table in sweep.verdicts:
        of_file: dict[str, list[Verdict]] = {}
        for verdict in table.verdicts:
            if verdict.outcome == "ok":
                of_file.setdefault(verdict.measurement, []).append(verdict)
        for verdicts, found in zip(
            of_file.values(), each(_request_tables, [*of_file.values()], jobs), strict=True
        ):
            for verdict, (requests, shares) in zip(verdicts, found, strict=True):
                count = len(requests.request_id)
                place = _place(sweep, verdict) | {"sweep": table.sweep}
                for name in ("sweep", *OF_REQUEST):
                    values[name] += [place[name]] * count
                for name, column in (*vars(requests).items(), *shares.items()):
                    values[name] += column or [None] * count
    return Tidy(
        "a request that was answered in a window, whatever its verdict", tuple(columns), values
    )


def _request_tables(
    verdicts: Sequence[Verdict],
) -> list[tuple[RequestTable, dict[str, Sequence[Any]]]]:
    """Read the requests of one measurement, window by window, and the columns of their shares."""
    measurement = judged_measurement(verdicts[0])
    windows = {one.workload: one for one in measurement.windows}
    shares = attributions(measurement, Path(verdicts[0].measurement))
    return [(windows[v.workload].requests, _shares(shares[v.workload])) for v in verdicts]


def _shares(found: Attribution | str) -> dict[str, Sequence[Any]]:
    if isinstance(found, str):
        return {column.name: () for column in SHARES}
    count = len(found.requests_j)
    columns = (found.requests_j, found.idle_of_requests_j, [found.status] * count)
    return dict(zip((column.name for column in SHARES), columns, strict=True))
