"""Summarise the repeats of every cell and workload, one backend at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llm_energy.analysis.energy.latency import least_requests, percent_of
from llm_energy.analysis.energy.requests import over_repeats
from llm_energy.analysis.energy.summaries import by_name, outliers, summarised
from llm_energy.analysis.grouping.scopes import Scope, Scopes, bare
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import (
    SCHEMA_VERSION,
    Aggregate,
    AggregateRow,
    Beside,
    Metrics,
    MetricsTable,
    Plan,
    PlannedCell,
    Spec,
    Statistic,
    Verdict,
    read_record,
)
from llm_energy.records.plan import cell_id
from llm_energy.records.registry.metrics import SUMMARISED

MIXED = "mixed_backends"
DRAWN = ("poisson", "gamma")  # the modes of traffic whose arrivals are random
ONE_DRAW = "the arrivals of these repeats, which are all one draw"
OTHER_PROMPTS = "prompts of the same kind, drawn anew for each block"


class Place(NamedTuple):
    """Name what one row summarises, its energy aside."""

    cell: str
    model: str
    backend: str
    precision: str
    workload: str


def aggregate(
    tables: Sequence[MetricsTable],
    plan: Plan,
    batch_sizes: dict[str, int],
    allow_mixed_backends: bool = False,
) -> Aggregate:
    """Summarise the metrics of one backend over the grid that ``plan`` expects.

    ``batch_sizes`` is by workload id. Each repeat gives one value (its joules over its tokens), and
    the mean is over repeats. Raises LlmEnergyError for metrics of several backends, which
    ``allow_mixed_backends`` or the plan's policy pools instead and marks.
    """
    backends = sorted({t.backend for t in tables} | {r.backend for t in tables for r in t.rows})
    mixed = len(backends) > 1
    if mixed and not (allow_mixed_backends or plan.allow_mixed_backends):
        raise LlmEnergyError(
            f"Mixed backends detected: {', '.join(backends)}. Aggregating results from different "
            "backends produces statistically invalid comparisons. Aggregate each backend by itself "
            "and compare their tables, or set policy.allow_mixed_backends in the config, which "
            "pools them and marks every number that it touches."
        )
    if strange := sorted({t.sweep for t in tables} - {plan.sweep}):
        raise LlmEnergyError(
            f"metrics of sweep '{strange[0]}' do not belong to the plan of '{plan.sweep}'"
        )
    pooled = "+".join(backends)
    places: dict[Place, tuple[int, ...]] = {}
    origin: dict[tuple[str, str], Place] = {}
    for cell in plan.cells:
        if cell.backend in backends:
            for workload in cell.workloads:
                place = _place(cell, workload, pooled)
                planned = tuple(repeat.number for repeat in cell.each_repeat())
                places[place] = (*places.get(place, ()), *planned)
                origin[cell.cell, workload] = place
    rows = _sort_in([row for table in tables for row in table.rows], origin)
    without = _sort_in([verdict for table in tables for verdict in table.without], origin)
    beside = _sort_in([found for table in tables for found in table.beside], origin)
    given = [row for found in rows.values() for row in found]
    _refuse_duplicates(given)
    _refuse_a_mixture_of_simulated_and_real(given)
    scopes = None if mixed else Scopes(tables, plan.pool_machines)
    result = [
        row
        for place, planned in places.items()
        for row in _rows_of(
            place,
            planned,
            batch_sizes.get(place.workload),
            rows.get(place, []),
            without.get(place, []),
            beside.get(place, []),
            scopes,
        )
    ]
    if mixed:  # unlike on purpose, and marked
        result = [replace(row, flags=(*row.flags, MIXED)) for row in result]
    return Aggregate(
        SCHEMA_VERSION, plan.sweep, pooled, tuple(result), tuple(backends) if mixed else ()
    )


def _place(cell: PlannedCell, workload: str, backend: str) -> Place:
    """Return the row of a cell; pooled backends share the row of their model and precision."""
    id = cell_id(cell.model, backend, cell.precision)
    return Place(id, cell.model, backend, cell.precision, workload)


def planned_batch_sizes(plan: Plan, tables: Sequence[MetricsTable]) -> dict[str, int]:
    """Return the batch size of each workload, from the metrics or else from a spec of the plan."""
    sizes = {row.workload: row.batch_size for table in tables for row in table.rows}
    if all(workload in sizes for cell in plan.cells for workload in cell.workloads):
        return sizes
    paths = [Path(path) for cell in plan.cells for path in cell.specs[:1]]
    spec = next((read_record(Spec, path) for path in paths if path.is_file()), None)
    return {w.id: w.batch_size for w in (spec.workloads if spec else ())} | sizes


def _sort_in(items: list[Any], origin: dict[tuple[str, str], Place]) -> dict[Place, list[Any]]:
    """Sort metrics or verdicts by the row that they belong to."""
    found: dict[Place, list[Any]] = {}
    for item in items:
        place = origin.get((item.cell, item.workload))
        if place is None:
            raise LlmEnergyError(
                f"cell '{item.cell}' with workload '{item.workload}' is not in the plan; "
                "run the validate stage again"
            )
        found.setdefault(place, []).append(item)
    return found


def _refuse_duplicates(rows: list[Metrics]) -> None:
    seen: set[tuple[str, str, int, str]] = set()
    for row in rows:
        key = (row.cell, row.workload, row.repeat, row.energy_status)
        if key in seen:
            raise LlmEnergyError(
                f"{row.measurement}: cell '{row.cell}', repeat {row.repeat}, workload "
                f"'{row.workload}' is given twice; a repeat counts once"
            )
        seen.add(key)


def _refuse_a_mixture_of_simulated_and_real(rows: list[Metrics]) -> None:
    first: dict[bool, str] = {row.simulated: row.measurement for row in rows}
    if len(first) > 1:
        raise LlmEnergyError(
            f"{first[True]} is of a simulated host and {first[False]} of a real one; "
            "they are never shown together. Give each a sweep of its own"
        )


def _rows_of(
    place: Place,
    planned: tuple[int, ...],
    batch_size: int | None,
    rows: list[Metrics],
    without: list[Verdict],
    beside: list[Beside],
    scopes: Scopes | None,
) -> list[AggregateRow]:
    """Return a row per energy status and set of components, or the one that says why there is none.

    Sums over other components are other quantities, so they are never averaged into one.
    """
    not_needed = tuple(sorted(v.repeat for v in without if v.outcome == "not_needed"))
    without = [v for v in without if v.outcome != "not_needed"]
    lost = [(v.repeat, _why(v)) for v in without if v.repeat > 0]
    kinds = sorted({(r.energy_status != "measured", r.energy_status, r.components) for r in rows})
    if not kinds:
        reasons = list(dict.fromkeys(_why(v) for v in without))
        outcomes = list(
            dict.fromkeys(v.outcome if v.outcome != "ok" else "invalid" for v in without)
        )
        return [
            AggregateRow(
                **place._asdict(),
                batch_size=batch_size,
                outcome=outcomes[0] if outcomes else "missing",
                reason="; ".join(reasons) or "no metrics of this cell were given",
                energy_status="unavailable",
                components=(),
                n=0,
                degraded=0,
                statistics=by_name([one.values for one in beside]),
                excluded=tuple(sorted(lost)),
                flags=(),
                hosts=(),
                measurements=tuple(dict.fromkeys(v.measurement for v in without if v.measurement)),
                not_needed=not_needed,
                latencies_s=by_name([one.latencies_s for one in beside]),
            )
        ]
    result = []
    for _, status, components in kinds:
        own = [r for r in rows if (r.energy_status, r.components) == (status, components)]
        others = {r.repeat for r in rows} - {r.repeat for r in own}
        scope = scopes.of(own) if scopes else Scope(None)
        other = f"not {status} for {', '.join(components)}"
        result.append(
            AggregateRow(
                **place._asdict(),
                batch_size=own[0].batch_size,
                outcome="ok",
                reason=None,
                energy_status=status,
                components=components,
                n=len(own),
                degraded=sum(r.verdict == "degraded" for r in own),
                statistics={
                    name: scope.bare(summarised(own, name, scope.groups)) for name in SUMMARISED
                },
                excluded=tuple(sorted([*lost, *((repeat, other) for repeat in others)])),
                flags=tuple(sorted({flag for r in own for flag in r.flags})),
                hosts=tuple(sorted({r.hostname for r in own})),
                measurements=tuple(r.measurement for r in own),
                batching=own[0].batching if len({r.batching for r in own}) == 1 else None,
                simulated=own[0].simulated,
                not_needed=not_needed,
                assumptions=tuple(
                    dict.fromkeys(
                        [
                            *scope.told,
                            *(text for r in own for text in r.assumptions),
                            *_draws(own),
                        ]
                    )
                ),
                model_notes=tuple(dict.fromkeys(text for r in own for text in r.model_notes)),
                checkpoint="; ".join(dict.fromkeys(r.checkpoint for r in own if r.checkpoint))
                or None,
                traffic=own[0].traffic,
                work=own[0].work,
                latencies_s=_latencies(own, scope),
                bias_bound_percent=_bias_bound_percent(own),
                outliers=tuple(
                    replace(one, without=scope.bare(one.without))
                    for one in outliers(own, scope.groups)
                ),
                interval_scope=scope.name,
                **_requests(own),
            )
        )
    return result


def _latencies(rows: list[Metrics], scope: Scope) -> dict[str, Statistic]:
    """Summarise each quantile over the repeats that have it.

    Where arrivals are drawn, those that the requests of a repeat do not support have no interval:
    it would hold what all requests wait in the long run in fewer than 90 % of cases.
    """
    groups = [scope.groups.get(row.measurement) for row in rows]
    found = by_name([row.latencies_s for row in rows], groups)
    fewest = min(row.requests for row in rows) if rows[0].traffic in DRAWN else math.inf
    return {
        name: scope.bare(one) if fewest >= least_requests(percent_of(name)) else bare(one)
        for name, one in found.items()
    }


def _requests(rows: list[Metrics]) -> dict[str, Any]:
    """Return the fields that tell what single requests took, or why that is not known."""
    found = [row.request_energy for row in rows if row.request_energy is not None]
    if found:
        return {"request_energy": over_repeats(found)}
    return {"attributed_reason": rows[0].attributed_reason}


def _bias_bound_percent(rows: list[Metrics]) -> float | None:
    """Return the largest bound of any repeat, None where one has none."""
    bounds = [0.0 if row.verdict == "valid" else row.bias_bound_percent for row in rows]
    return None if None in bounds else max(bounds)


def _draws(rows: list[Metrics]) -> Iterator[str]:
    """Say of which arrivals and prompts an interval over repeats speaks, where not as usual."""
    arrivals, prompts = (
        {getattr(row, f"{n}_sha256") for row in rows} for n in ("arrivals", "prompts")
    )
    if len(rows) > 1 and rows[0].traffic in DRAWN and len(arrivals) == 1:
        yield ONE_DRAW
    if len(prompts) > 1:
        yield OTHER_PROMPTS


def _why(verdict: Verdict) -> str:
    word = verdict.outcome if verdict.outcome != "ok" else "invalid"
    return f"{word}: {verdict.reason}" if verdict.reason else word
