"""Find the cell and workload of lowest energy for a piece of work, within bounds or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.compare.series import Series, pair
from llm_energy.analysis.grouping.rows import Place, place
from llm_energy.analysis.statistics.format import significant, with_interval
from llm_energy.records import AggregateRow
from llm_energy.records.comparison import UNTOLD, Comparison
from llm_energy.records.recommendation import Candidate, Lowest, Recommendation
from llm_energy.records.registry.metrics import GROSS, METRICS, TTFT, ttft_of

QUALITY = "nll_per_token"
MAX_DROP = "max_quality_drop_percent"
# The bounds on latencies, by the names of the config and of the metrics.
LATENCIES = {
    "max_ttft_s": TTFT,
    "max_tpot_s": "tpot_s",
    "max_e2e_latency_s": "e2e_latency_s",
}

MOST_NAMED = 3  # of those that cannot be told apart


@dataclass(frozen=True)
class Choice:
    """All that do one piece of work, those that keep the bounds first, by rising energy.

    ``compared`` has, for each, its comparison with the first, None for the first itself.
    ``in_order`` names them in the order of the config. ``same_model`` says that the backend did
    other work for the model too.
    """

    work: str
    same_model: bool
    candidates: tuple[Candidate, ...]
    rows: tuple[AggregateRow, ...]
    compared: tuple[Comparison | None, ...]
    in_order: tuple[Place, ...]
    bounds: Mapping[str, float]

    @property
    def best(self) -> Candidate | None:
        """Return the one of lowest energy within the bounds, None where none keeps them."""
        return None if self.candidates[0].refused else self.candidates[0]

    def that(self, *outcomes: str) -> list[int]:
        """Return the numbers of the candidates that compare so with the best."""
        return [k for k, one in enumerate(self.compared) if one and one.outcome in outcomes]

    @property
    def ties(self) -> tuple[Place, ...]:
        """Return those within the bounds that cannot be told from the best."""
        found = (self.candidates[k] for k in self.that(*UNTOLD))
        return tuple(_place(one) for one in found if not one.refused)

    @property
    def tied(self) -> list[AggregateRow]:
        """Return the rows of the ties."""
        return [row for row in self.rows if place(row) in self.ties]


def choices(
    groups: Sequence[tuple[str, Sequence[AggregateRow]]],
    series: Callable[[AggregateRow], Series],
    bounds: Mapping[str, float],
) -> list[Choice]:
    """Choose within each group, whose rows do the same work for one model, backend and scope.

    A group is its work in words and its rows; ``series`` gives a row's repeats. The others of a
    group are compared with the chosen one pair by pair, and corrected for their number over the
    groups of a model and backend. Since the chosen one was picked for being lowest, a difference
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
    owners = Counter((rows[0].backend, rows[0].model) for _, rows in groups)
    return [
        Choice(
            work=work,
            same_model=owners[found[0][1].backend, found[0][1].model] > 1,
            candidates=tuple(candidate for candidate, _ in found),
            rows=tuple(row for _, row in found),
            compared=tuple(against.get((*_place(found[0][0]), *_place(one))) for one, _ in found),
            in_order=tuple(map(place, rows)),
            bounds=bounds,
        )
        for (work, rows), found in zip(groups, ordered, strict=True)
    ]


def recommendation(choice: Choice) -> Recommendation:
    """Recommend the one of lowest energy within the bounds, with what came after it and why."""
    first, best = choice.rows[0], choice.best
    candidates = [
        replace(one, against_best=other and other.verdict)
        for one, other in zip(choice.candidates, choice.compared, strict=True)
    ]
    return Recommendation(
        backend=first.backend,
        model=first.model,
        energy_status=first.energy_status,
        components=first.components,
        work=choice.work,
        bounds=dict(choice.bounds),
        best=_place(best) if best else None,
        ties=choice.ties,
        statement=_statement(choice),
        reasons=tuple(_reasons(candidates, best, choice.ties, choice.bounds)),
        candidates=tuple(candidates),
    )


def lowest(choice: Choice, bounded: Choice) -> Lowest:
    """Name the one of lowest energy of a choice without bounds; ``bounded`` is that with them."""
    row, following = choice.rows[0], choice.compared[1] if len(choice.rows) > 1 else None
    against = dict(zip(map(place, choice.rows), choice.compared, strict=True))
    first = against[next(one for one in choice.in_order if one[1] == row.workload)]
    refused = {_place(one): one.refused for one in bounded.candidates}
    return Lowest(
        backend=row.backend,
        model=row.model,
        energy_status=row.energy_status,
        components=row.components,
        work=choice.work,
        cell=row.cell,
        workload=row.workload,
        rows=len(choice.rows),
        ties=choice.ties,
        not_comparable=tuple(_place(choice.candidates[k]) for k in choice.that("not_comparable")),
        refused=refused[place(row)],
        against_next=following and following.verdict,
        against_first=first.verdict if first and first is not following else None,
        statement=_statement(choice),
    )


def _candidates(
    rows: Sequence[AggregateRow], bounds: Mapping[str, float]
) -> list[tuple[Candidate, AggregateRow]]:
    """Return the rows as candidates, those that keep the bounds first, by rising energy."""
    least = min((m for row in rows if (m := _mean(row, QUALITY)) is not None), default=None)
    found = [(_candidate(row, least, bounds), row) for row in rows]
    return sorted(found, key=lambda one: (bool(one[0].refused), one[0].energy_j))


def _candidate(row: AggregateRow, least: float | None, bounds: Mapping[str, float]) -> Candidate:
    energy, quality = row.statistics[GROSS], _mean(row, QUALITY)
    drop = 100 * (quality / least - 1) if least and quality is not None else None
    refused = []
    if drop is not None and drop > bounds.get(MAX_DROP, drop):
        allowed = significant(bounds[MAX_DROP])
        refused.append(f"its quality drop of {significant(drop)} % is above {allowed} %")
    names = LATENCIES | {"max_ttft_s": ttft_of(row.traffic)}
    latencies = {name: m for name in names.values() if (m := _mean(row, name)) is not None}
    for bound, name in names.items():
        words = METRICS[name].label
        if bound in bounds and name not in latencies:
            refused.append(f"its {words} is not known")
        elif bound in bounds and latencies[name] > bounds[bound]:
            found_s, allowed_s = significant(latencies[name]), significant(bounds[bound])
            refused.append(f"its {words} of {found_s} s is above {allowed_s} s")
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


def _statement(choice: Choice) -> str:
    row, best = choice.rows[0], choice.best
    work = f" ({choice.work})" if choice.same_model else ""
    if best is None:
        return f"On {row.backend} no cell of {row.model} keeps the bounds{work}"
    joules = with_interval(best.energy_j, best.energy_ci_low_j, best.energy_ci_high_j)
    estimated = "estimated " if row.energy_status == "estimated" else ""
    within = " within the bounds" if choice.bounds else ""
    energy = f"the lowest {estimated}energy for {row.model}{within}{work}"
    named = [f"{one.precision} at {one.workload}" for one in choice.tied]
    if not named:
        return (
            f"On {row.backend}, {row.precision} at {row.workload} has {energy}: {joules} J per "
            f"output token (n = {row.n})"
        )
    if len(named) + 1 == len(choice.rows) > MOST_NAMED:
        count = len(choice.rows)
        return f"On {row.backend}, {energy} cannot be told among all {count} (n = {row.n})"
    named = [f"{row.precision} at {row.workload}", *named]
    rest = len(named) - MOST_NAMED
    told = [*named[:MOST_NAMED], f"{rest} more"] if rest > 0 else named
    return (
        f"On {row.backend}, {energy} is that of {', '.join(told[:-1])} or {told[-1]}, which cannot "
        f"be told apart (n = {row.n})"
    )


def _reasons(
    candidates: Sequence[Candidate],
    best: Candidate | None,
    ties: Sequence[Place],
    bounds: Mapping[str, float],
) -> list[str]:
    kept = sum(not one.refused for one in candidates)
    asked = ", ".join(f"{name} {significant(value)}" for name, value in bounds.items())
    told = [f"{kept} of {len(candidates)} candidates keep the bounds ({asked or 'none given'})"]
    if MAX_DROP in bounds and all(one.quality_drop_percent is None for one in candidates):
        told.append("quality was not measured, so no candidate was refused for it")
    if best is None:
        return told
    if best.quality_drop_percent is not None:
        told.append(f"its quality drop is {significant(best.quality_drop_percent)} %")
    if ties:
        told.append(f"{len(ties)} of them cannot be told from it: {_places(ties)}")
    lower = [one for one in candidates if one.refused and one.energy_j < best.energy_j]
    told += [f"{one.cell} at {one.workload} uses less, but {one.refused[0]}" for one in lower[:3]]
    return told


def _places(places: Sequence[Place]) -> str:
    shown = ", ".join(f"{cell} at {workload}" for cell, workload in places[:3])
    return shown if len(places) <= 3 else f"{shown} and {len(places) - 3} more"


def _place(one: Candidate) -> Place:
    return one.cell, one.workload


def _mean(row: AggregateRow, name: str) -> float | None:
    statistic = row.statistics.get(name)
    return statistic.mean if statistic else None
