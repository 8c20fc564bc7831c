"""Recommend the cell and workload of least energy within bounds of quality and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_energy.compare import compare
from llm_energy.comparison_records import Candidate, Recommendation
from llm_energy.records import AggregateRow
from llm_energy.series import GROSS, Series, pair
from llm_energy.wording import number, plus_minus

QUALITY = "nll_per_token"
MAX_DROP = "max_quality_drop_percent"
# The bounds on latencies, by the names of the config and of the metrics.
LATENCIES = {
    "max_ttft_s": ("ttft_s", "time to first token"),
    "max_tpot_s": ("tpot_s", "time per output token"),
    "max_e2e_latency_s": ("e2e_latency_s", "end-to-end latency"),
}

Place = tuple[str, str]  # cell, workload


def recommend(
    rows: Sequence[AggregateRow],
    series: Mapping[Place, Series],
    bounds: Mapping[str, float],
    work: str,
) -> Recommendation:
    """Choose among rows that do the same ``work`` for one model on one backend, in one scope.

    ``series`` are their repeats by place. The others are compared with the chosen one pair by pair,
    and corrected for their number; since the chosen one was picked for being least, a difference
    that is just beyond noise is a little too good.
    """
    least = min((m for row in rows if (m := _mean(row, QUALITY)) is not None), default=None)
    found = [(_candidate(row, least, bounds), row) for row in rows]
    found.sort(key=lambda one: (bool(one[0].refused), one[0].energy_j))
    best = found[0][0] if not found[0][0].refused else None
    against: dict[Place, tuple[str, str]] = {}
    if best:
        chosen = series[best.cell, best.workload]
        others = [series[one.cell, one.workload] for one, _ in found[1:]]
        pairs = [one for other in others if (one := pair("choice", GROSS, chosen, other))]
        against = {
            (one.other.cell, one.other.workload): (one.outcome, one.verdict)
            for one in compare(pairs)[0]
        }
    candidates = [one for one, _ in found]
    ties = tuple(
        (one.cell, one.workload)
        for one in candidates[1:]
        if not one.refused
        and against.get((one.cell, one.workload), ("",))[0]
        in ("not_distinguishable", "too_few_pairs")
    )
    first = rows[0]
    return Recommendation(
        backend=first.backend,
        model=first.model,
        energy_status=first.energy_status,
        components=first.components,
        work=work,
        bounds=dict(bounds),
        best=(best.cell, best.workload) if best else None,
        ties=ties,
        statement=_statement(found, best, ties),
        reasons=tuple(_reasons(candidates, best, ties, bounds, least is not None)),
        candidates=tuple(
            Candidate(
                **{
                    **vars(one),
                    "against_best": against.get((one.cell, one.workload), (None, None))[1],
                }
            )
            for one in candidates
        ),
    )


def _candidate(row: AggregateRow, least: float | None, bounds: Mapping[str, float]) -> Candidate:
    energy, quality = row.statistics[GROSS.name], _mean(row, QUALITY)
    drop = 100 * (quality / least - 1) if least and quality is not None else None
    refused = []
    if drop is not None and drop > bounds.get(MAX_DROP, drop):
        allowed = number(bounds[MAX_DROP])
        refused.append(f"its quality drop of {number(drop)} % is above {allowed} %")
    latencies = {name: m for name, _ in LATENCIES.values() if (m := _mean(row, name)) is not None}
    for bound, (name, words) in LATENCIES.items():
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
    scored: bool,
) -> list[str]:
    kept = sum(not one.refused for one in candidates)
    asked = ", ".join(f"{name} {number(value)}" for name, value in bounds.items())
    told = [f"{kept} of {len(candidates)} candidates keep the bounds ({asked or 'none given'})"]
    if MAX_DROP in bounds and not scored:
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
