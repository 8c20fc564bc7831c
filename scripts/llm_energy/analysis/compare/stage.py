"""Put together all that is said of a sweep across its cells (the compare stage)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_energy.analysis.compare import rankings
from llm_energy.analysis.compare.answers import answers
from llm_energy.analysis.compare.crossovers import crossovers
from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.compare.limits import limits
from llm_energy.analysis.compare.pairs import pairs_of
from llm_energy.analysis.compare.recommend import choices, lowest, recommendation
from llm_energy.analysis.compare.series import Series, collect
from llm_energy.analysis.grouping.comparability import FIELDS, UNRECORDED
from llm_energy.analysis.grouping.rows import key, with_energy
from llm_energy.analysis.grouping.sessions import sessions
from llm_energy.analysis.statistics.format import change, significant
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import SCHEMA_VERSION, Aggregate, AggregateRow, MetricsTable, Plan
from llm_energy.records.comparison import Comparison, Comparisons, Crossover, HeldFixed
from llm_energy.records.recommendation import Recommendation
from llm_energy.records.registry.metrics import GROSS, METRICS

# The work of a request, as far as two choices for it must agree in it.
WORK = ("prompt_lengths", "output_lengths", "decoding", "traffic", "sharding")


def comparisons(
    tables: Sequence[MetricsTable], aggregates: Sequence[Aggregate], plan: Plan
) -> Comparisons:
    """Compare the cells of a sweep and show them in order.

    ``tables`` and ``aggregates`` are of the plan's backends, one each, never pooled. The plan's
    ``recommendation`` has the bounds. Raises LlmEnergyError for another sweep's records.
    """
    strange = {record.sweep for record in (*tables, *aggregates)} - {plan.sweep}
    if strange:
        raise LlmEnergyError(
            f"records of sweep '{min(strange)}' do not belong to the plan of '{plan.sweep}'"
        )
    series = collect(tables)
    pairs = list(pairs_of(series, plan))
    compared, families = compare(pairs)
    crossed = crossovers(compared, pairs)
    rows = with_energy(aggregates)
    by_row = {(one.cell, one.workload, *one.kind): one for one in series}
    groups = _groups(rows, by_row)
    bounds = {k: v for k, v in plan.recommendation.items() if v is not None}
    chosen = choices(groups, lambda row: by_row[key(row)], {})
    bounded = choices(groups, lambda row: by_row[key(row)], bounds) if bounds else chosen
    recommended = [recommendation(choice) for choice in bounded]
    return Comparisons(
        schema_version=SCHEMA_VERSION,
        sweep=plan.sweep,
        simulated=any(row.simulated for row in rows),
        findings=tuple(findings(rows, compared, crossed, recommended)),
        held_fixed=tuple(held_fixed(tables)),
        families=tuple(families),
        comparisons=tuple(compared),
        crossovers=tuple(crossed),
        rankings=tuple(rankings.rankings(rows)),
        pareto=tuple(rankings.fronts(groups)),
        limits=tuple(limits(series)),
        recommendations=tuple(recommended),
        answers=tuple(answers(series, aggregates, compared, families, plan)),
        lowest=tuple(lowest(*pair) for pair in zip(chosen, bounded, strict=True)),
    )


def _groups(
    rows: Iterable[AggregateRow], by_row: dict[tuple, Series]
) -> list[tuple[str, list[AggregateRow]]]:
    """Put rows together that do the same work for one model on one backend, in one scope."""
    groups: dict[tuple, list[AggregateRow]] = {}
    for row in rows:
        conditions = next(iter(by_row[key(row)].conditions.values()))
        work = tuple(conditions.get(name, UNRECORDED) for name in WORK)
        scope = (row.backend, row.model, row.energy_status, row.components)
        groups.setdefault((*scope, work), []).append(row)
    return [(_work_in_words(key[-1]), group) for key, group in groups.items()]


def _work_in_words(values: Sequence[str]) -> str:
    named = dict(zip(WORK, values, strict=True))
    lengths = [f"{named.pop(f'{end}_lengths')} {end} tokens" for end in ("prompt", "output")]
    rest = [value for value in named.values() if value not in (UNRECORDED, "none")]
    return "; ".join([*lengths, *rest])


def held_fixed(tables: Sequence[MetricsTable]) -> list[HeldFixed]:
    """Return every condition with the values that it took over the sweep."""
    found: dict[str, dict[str, None]] = {name: {} for name in FIELDS}
    for table in tables:
        for conditions in table.conditions.values():
            for name in FIELDS:
                found[name][conditions.get(name, UNRECORDED)] = None
    if measured_in := sessions(row for table in tables for row in table.rows):
        found["session"] = dict.fromkeys(measured_in.values())
    return [HeldFixed(name, field.title, tuple(found[name])) for name, field in FIELDS.items()]


def findings(
    rows: Sequence[AggregateRow],
    compared: Sequence[Comparison],
    crossed: Sequence[Crossover],
    recommended: Sequence[Recommendation],
) -> Iterable[str]:
    """Say what matters most: how joules are known, what has the lowest energy, and by how much."""
    statuses = {row.energy_status for row in rows}
    if not rows:
        yield "No cell gave a usable measurement"
        return
    if any(row.simulated for row in rows):
        yield "Simulated: no joule here was ever drawn"
    elif statuses == {"estimated"}:
        yield "Every joule is estimated by a model of the hardware; none was measured"
    elif "estimated" in statuses:
        yield "Some joules are estimated by a model of the hardware; they are never added to others"
    for one in recommended:
        runner_up = _runner_up(one)
        yield f"{one.statement}; {runner_up}" if runner_up else one.statement
    yield from (one.statement for one in crossed)
    yield from _of_backends(compared)
    refused = sum(one.outcome == "not_comparable" for one in compared)
    if refused:
        yield f"{refused} of {len(compared)} pairs are not comparable; each says in what it differs"
    undecided = [
        one for one in compared if one.outcome == "not_distinguishable" and one.metric == GROSS
    ]
    if undecided:
        least = max(one.smallest_detectable_percent for one in undecided)
        missed = "even a doubling" if least >= 100 else f"a difference of {significant(least)} %"
        yield (
            f"{len(undecided)} pairs cannot be told apart in {METRICS[GROSS].label}; {missed} may "
            "have been missed"
        )


def _runner_up(one: Recommendation) -> str | None:
    """Say how the next best that keeps the bounds stands against the best, if that can be told."""
    if one.ties:
        return None
    kept = [c for c in one.candidates if not c.refused and (c.cell, c.workload) != one.best]
    return kept[0].against_best if kept and one.best else None


def _of_backends(compared: Sequence[Comparison]) -> Iterable[str]:
    """Sum up each pair of backends over all that they both did."""
    pairs: dict[tuple[str, str, str], list[Comparison]] = {}
    for one in compared:
        if one.contrast == "backend" and one.metric == GROSS:
            key = (one.reference.model, one.reference.backend, one.other.backend)
            pairs.setdefault(key, []).append(one)
    for (model, reference, other), found in pairs.items():
        less, more = (sum(one.outcome == word for one in found) for word in ("less", "more"))
        ratios = [one.ratio for one in found if one.outcome in ("less", "more")]
        if not ratios:
            continue
        ends = " to ".join(dict.fromkeys(change(ratio) for ratio in (min(ratios), max(ratios))))
        yield (
            f"For {model}, {other} uses less energy than {reference} in {less} and more in {more} "
            f"of {len(found)} pairs ({ends})"
        )
