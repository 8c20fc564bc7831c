"""Answer what each choice of a sweep changes, in energy, speed, latency, quality and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llm_energy.analysis.compare.families import compare
from llm_energy.analysis.compare.pairs import Place, axes, lines
from llm_energy.analysis.compare.series import Series, matched, pair
from llm_energy.analysis.grouping.rows import one_per_place, place, visible
from llm_energy.analysis.statistics.format import (
    FEW_TIMES,
    MANY_TIMES,
    change,
    interval,
    significant,
    too_wide,
    used,
)
from llm_energy.analysis.statistics.paired import MOST_REPEATS, repeats_to_tell
from llm_energy.records import Aggregate, AggregateRow, Plan
from llm_energy.records.comparison import Answer, Comparison, Contrast, Family, Figure
from llm_energy.records.registry.metrics import (
    GPU_MEMORY,
    GROSS,
    METRICS,
    PER_BYTE,
    PER_REQUEST,
    QUALITY,
    SPEED,
    WEIGHTS,
    ttft_of,
)

SAME = 5e-4  # a relative difference that is none in words
# Two models may cut text into other tokens; then energy is compared by what both share.
ENERGIES = {"model": (GROSS, PER_BYTE, PER_REQUEST)}

Found = Mapping[tuple[str, Place, Place], Comparison]  # by metric, reference, other


def answers(
    series: Sequence[Series],
    aggregates: Sequence[Aggregate],
    compared: Sequence[Comparison],
    families: Iterable[Family],
    plan: Plan,
) -> list[Answer]:
    """Hold each entry of an axis against the first one of the config that gave something.

    What the comparisons of the sweep have already is taken from them; latencies, quality and what
    lies further apart is compared here, with a correction of its own.
    """
    places: dict[Place, list[Series]] = {}
    for one in series:
        places.setdefault((one.model, one.backend, one.precision, one.workload), []).append(one)
    rows = {_of_row(row): row for row in one_per_place(visible(aggregates))}
    asked = list(_asked(places, rows, plan))
    found = {_key(one): one for one in reversed(_measured_first(compared))}
    more = []
    for contrast, first, other in asked:
        for name in _metrics(contrast, rows[first]):
            key = (name, first, other)
            if key not in found and first in places and other in places:
                ends = next(matched(places[first], places[other], METRICS[name]))
                if one := pair(contrast, METRICS[name], *ends):
                    more.append(one)
    own, own_families = compare(more)
    found |= {_key(one): one for one in own if _key(one) not in found}
    sizes = {one.id: one.comparisons for one in (*own_families, *families)}
    several = len({first[0] for first in rows}) > 1
    return [_answer(c, rows[a], rows[b], a, b, found, sizes, several) for c, a, b in asked]


def _asked(
    places: Mapping[Place, Sequence[Series]],
    rows: Mapping[Place, AggregateRow],
    plan: Plan,
) -> Iterator[tuple[Contrast, Place, Place]]:
    """Return the pairs: each axis's entries, and a cell's batch sizes, against the first."""
    groups = [(contrast, group) for contrast, group in axes(plan)]
    groups += [
        ("batch_size", [(s[0].model, s[0].backend, s[0].precision, s[0].workload) for s in line])
        for line in lines(places, plan)
    ]
    for contrast, group in groups:
        known = [one for one in group if one in rows]
        known.sort(key=lambda one: not rows[one].n)  # stable: the first that gave joules leads
        for other in known[1:]:
            if rows[known[0]].statistics and rows[other].statistics:
                yield contrast, known[0], other


def _metrics(contrast: Contrast, row: AggregateRow) -> tuple[str, ...]:
    """Return what two places are compared in, energy first."""
    latencies = (ttft_of(row.traffic), "tpot_s", "e2e_latency_s")
    return (*ENERGIES.get(contrast, (GROSS,)), SPEED, *latencies, QUALITY, GPU_MEMORY, WEIGHTS)


def _measured_first(compared: Iterable[Comparison]) -> list[Comparison]:
    return sorted(compared, key=lambda one: one.energy_status == "estimated")


def _key(one: Comparison) -> tuple[str, Place, Place]:
    ends = ((s.model, s.backend, s.precision, s.workload) for s in (one.reference, one.other))
    return one.metric, *ends


def _of_row(row: AggregateRow) -> Place:
    return row.model, row.backend, row.precision, row.workload


def _answer(
    contrast: Contrast,
    reference: AggregateRow,
    other: AggregateRow,
    first: Place,
    second: Place,
    found: Found,
    sizes: Mapping[str, int],
    several_models: bool,
) -> Answer:
    energies = ENERGIES.get(contrast, (GROSS,))
    known = [found.get((name, first, second)) for name in energies]
    told = next((one for one in known if one and one.outcome != "not_comparable"), known[0])
    energy = told.metric if told else GROSS
    names = [energy, *(n for n in _metrics(contrast, reference) if n not in energies)]
    compared = {name: found.get((name, first, second)) for name in names}
    figures = {name: _figure(name, reference, other, compared[name]) for name in names}
    needed = _needed(told, sizes)
    where = _where(contrast, reference, several_models)
    clauses = [_energy(contrast, reference, other, told, needed), *_beside(contrast, figures)]
    return Answer(
        contrast=contrast,
        reference=place(reference),
        other=place(other),
        energy_status=told.energy_status if told else None,
        components=told.components if told else (),
        figures=tuple(
            f for f in figures.values() if f.reference is not None or f.other is not None
        ),
        repeats_needed=needed,
        statement=f"{where}, {'; '.join(clauses)}",
    )


def _figure(
    name: str, reference: AggregateRow, other: AggregateRow, found: Comparison | None
) -> Figure:
    first, second = _mean(reference, name), _mean(other, name)
    if found:
        return Figure(
            *(name, first, second, found.n, found.ratio, found.ci_low, found.ci_high),
            found.outcome,
        )
    # Of what was measured beside invalid joules no block is paired, yet the means stand.
    ratio = second / first if first and second else None
    return Figure(name, first, second, 0, ratio, None, None, None)


def _mean(row: AggregateRow, name: str) -> float | None:
    statistic = row.statistics.get(name)
    return statistic.mean if statistic else None


def _needed(found: Comparison | None, sizes: Mapping[str, int]) -> int | None:
    """Return how many repeats would tell a ratio like this one, None where that can't be said."""
    if not found or found.outcome != "not_distinguishable" or not found.log_sd:
        return None
    needed = repeats_to_tell(math.log(found.ratio), found.log_sd, sizes[found.family])
    return needed and max(needed, found.n + 1)


def _where(contrast: Contrast, row: AggregateRow, several_models: bool) -> str:
    """Name what the two sides share."""
    model = f"For {row.model} o" if several_models and contrast != "model" else "O"
    words = {
        "precision": f"{model}n {row.backend} at {row.workload}",
        "batch_size": f"{model}n {row.backend} in {row.precision}",
        "model": f"On {row.backend} in {row.precision} at {row.workload}",
        "backend": f"In {row.precision} at {row.workload}",
    }[contrast]
    return f"For {row.model} i{words[1:]}" if contrast == "backend" and several_models else words


def name_of(contrast: Contrast, row: AggregateRow) -> str:
    """Name a side by that in which the two differ."""
    return row.workload if contrast == "batch_size" else str(getattr(row, contrast))


def _energy(
    contrast: Contrast,
    reference: AggregateRow,
    other: AggregateRow,
    found: Comparison | None,
    needed: int | None,
) -> str:
    """Say what became of the joules."""
    first, second = name_of(contrast, reference), name_of(contrast, other)
    for name, row in ((first, reference), (second, other)):
        if not row.n:
            return f"the energy of {name} is not known ({row.reason or row.outcome})"
    if found is None:
        return f"{second} and {first} have no kind of joules in common"
    if found.outcome == "not_comparable":
        return found.verdict
    estimated = "estimated " if found.energy_status == "estimated" else ""
    energy = f"{estimated}{METRICS[found.metric].label.replace('J per', 'energy per')}"
    repeats = f"{found.n} repeat{'s' * (found.n != 1)}"
    moved = f"{second} used {used(energy, first, found.ratio, found.ci_low, found.ci_high)}"
    if found.outcome == "too_few_pairs":
        few = "measure three or more to tell it from noise" if found.n < 2 else "all alike"
        return f"{moved} in {repeats}: {few}"
    if found.outcome == "not_distinguishable":
        count = f"about {needed}" if needed else f"more than {MOST_REPEATS}"
        return (
            f"{second} and {first} cannot be told apart in {energy} with {repeats}; {count} "
            "repeats would be needed for a difference like the one seen"
        )
    if too_wide(found.ci_low, found.ci_high):
        return moved
    given = interval(found.ci_low, found.ci_high).replace("95 % CI", "95 %:")
    return f"{moved} ({given})"


def _beside(contrast: Contrast, figures: Mapping[str, Figure]) -> Iterator[str]:
    """Say what became of speed, where that is beyond noise, and of quality."""
    speed, quality = figures[SPEED], figures[QUALITY]
    if speed.outcome in ("less", "more") and not too_wide(speed.ci_low, speed.ci_high):
        more = change(speed.ratio).replace("much", "many").replace("less", "fewer")
        yield f"it gave {more} output tokens/s"
    untold = quality.outcome in ("not_comparable", "not_distinguishable")
    if contrast == "batch_size" or quality.ratio is None or untold:
        return
    if abs(quality.ratio - 1) < SAME:
        yield "perplexity is the same"
    elif quality.ratio >= MANY_TIMES or quality.ratio <= FEW_TIMES:
        yield f"perplexity is {change(quality.ratio)}"
    else:
        word = "rose" if quality.ratio > 1 else "fell"
        yield f"perplexity {word} by {significant(100 * abs(quality.ratio - 1))} %"
