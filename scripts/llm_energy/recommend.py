"""Recommend the cell and workload of least energy within bounds of quality and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from llm_energy.compare import compare
from llm_energy.comparison_records import UNTOLD, Candidate, Comparison, Recommendation
from llm_energy.records import AggregateRow
from llm_energy.records.metrics import GROSS, METRICS
from llm_energy.series import Series, pair
from llm_energy.wording import number, plus_minus

QUALITY = "nll_per_token"
MAX_DROP = "max_quality_drop_percent"
# The bounds on latencies, by the names of the config and of the metrics.
LATENCIES = {
    "max_ttft_s": "ttft_s",
    "max_tpot_s": "tpot_s",
    "max_e2e_latency_s": "e2e_latency_s",
}

Place = tuple[str, str]  # cell, workload


def recommendations(
    groups: Sequence[tuple[str, Sequence[AggregateRow]]],
    series: Callable[[AggregateRow], Series],
    bounds: Mapping[str, float],
) -> list[Recommendation]:
    """Choose within each group, whose rows do the same work for one model, backend and scope.

    A group is its work in words and its rows; ``series`` gives a row's repeats. The others of a
    group are compared with the chosen one pair by pair, and corrected for their number over the
    groups of a model and backend. Since the chosen one was picked for being least, a difference
    that is just beyond noise is a little too good.
    """
    ordered = [_candidates(rows, bounds) for _, rows in groups]
    pairs = []
    for (first, chosen), *others in ordered:
        if not first.refused:
            found = (
                pair("choice", METRICS[GROSS], series(chosen), series(row)) for _, row in others
            )
            pairs += [one for one in found if one]
    against = {
        (one.reference.cell, one.reference.workload, one.other.cell, one.other.workload): one
        for one in compare(pairs)[0]
    }
    return [
        _recommendation(work, found, against, bounds)
        for (work, _), found in zip(groups, ordered, strict=True)
    ]


def _candidates(
    rows: Sequence[AggregateRow], bounds: Mapping[str, float]
) -> list[tuple[Candidate, AggregateRow]]:
    """Give the rows as candidates, those that keep the bounds first, by rising energy."""
    least = min((m for row in rows if (m := _mean(row, QUALITY)) is not None), default=None)
    found = [(_candidate(row, least, bounds), row) for row in rows]
    return sorted(found, key=lambda one: (bool(one[0].refused), one[0].energy_j))


def _recommendation(
    work: str,
    found: Sequence[tuple[Candidate, AggregateRow]],
    against: Mapping[tuple[str, str, str, str], Comparison],
    bounds: Mapping[str, float],
) -> Recommendation:
    best = found[0][0] if not found[0][0].refused else None
    place = (best.cell, best.workload) if best else ("", "")
    compared = [against.get((*place, one.cell, one.workload)) for one, _ in found]
    candidates = [
        replace(one, against_best=other and other.verdict)
        for (one, _), other in zip(found, compared, strict=True)
    ]
    ties = tuple(
        (one.cell, one.workload)
        for one, other in zip(candidates, compared, strict=True)
        if not one.refused and other and other.outcome in UNTOLD
    )
    first = found[0][1]
    return Recommendation(
        backend=first.backend,
        model=first.model,
        energy_status=first.energy_status,
        components=first.components,
        work=work,
        bounds=dict(bounds),
        best=place if best else None,
        ties=ties,
        statement=_statement(found, best, ties),
        reasons=tuple(_reasons(candidates, best, ties, bounds)),
        candidates=tuple(candidates),
    )


def _candidate(row: AggregateRow, least: float | None, bounds: Mapping[str, float]) -> Candidate:
    energy, quality = row.statistics[GROSS], _mean(row, QUALITY)
    drop = 100 * (quality / least - 1) if least and quality is not None else None
    refused = []
    if drop is not None and drop > bounds.get(MAX_DROP, drop):
        allowed = number(bounds[MAX_DROP])
        refused.append(f"its quality drop of {number(drop)} % is above {allowed} %")
    latencies = {name: m for name in LATENCIES.values() if (m := _mean(row, name)) is not None}
    for bound, name in LATENCIES.items():
        words = METRICS[name].label
        if bound in bounds and name not in latencies:
            refused.append(f"its {words} is not known")
        elif bound in bounds and latencies[name] > bounds[bound]:
            refused.append(
                f"its {words} of {number(latencies[name])} s is above {number(bounds[bound])} s"
            )
    return Candidate(
        cell=row.cell,
        workload=row.workload,
        energy_j=energy.mean,
        energy_ci_low_j=energy.ci_low,
        energy_ci_high_j=energy.ci_high,
        quality_drop_percent=drop,
        latency_s=latencies,
        refused=tuple(refused),
        against_best=None,
    )


def _statement(
    found: Sequence[tuple[Candidate, AggregateRow]], best: Candidate | None, ties: Sequence[Place]
) -> str:
    row = found[0][1]
    if best is None:
        return f"On {row.backend} no cell of {row.model} keeps the bounds"
    joules = plus_minus(best.energy_j, best.energy_ci_low_j, best.energy_ci_high_j)
    word = "about the least" if ties else "the least"
    estimated = "estimated " if row.energy_status == "estimated" else ""
    return (
        f"On {row.backend}, {row.precision} at {row.workload} uses {word} {estimated}energy for "
        f"{row.model}: {joules} J per output token (n = {row.n})"
    )


def _reasons(
    candidates: Sequence[Candidate],
    best: Candidate | None,
    ties: Sequence[Place],
    bounds: Mapping[str, float],
) -> list[str]:
    kept = sum(not one.refused for one in candidates)
    asked = ", ".join(f"{name} {number(value)}" for name, value in bounds.items())
    told = [f"{kept} of {len(candidates)} candidates keep the bounds ({asked or 'none given'})"]
    if MAX_DROP in bounds and all(one.quality_drop_percent is None for one in candidates):
        told.append("quality was not measured, so no candidate was refused for it")
    if best is None:
        return told
    if best.quality_drop_percent is not None:
        told.append(f"its quality drop is {number(best.quality_drop_percent)} %")
    if ties:
        told.append(f"{len(ties)} of them cannot be told from it: {_places(ties)}")
    cheaper = [one for one in candidates if one.refused and one.energy_j < best.energy_j]
    told += [f"{one.cell} at {one.workload} uses less, but {one.refused[0]}" for one in cheaper[:3]]
    return told


def _places(places: Sequence[Place]) -> str:
    shown = ", ".join(f"{cell} at {workload}" for cell, workload in places[:3])
    return shown if len(places) <= 3 else f"{shown} and {len(places) - 3} more"


def _mean(row: AggregateRow, name: str) -> float | None:
    statistic = row.statistics.get(name)
    return statistic.mean if statistic else None
