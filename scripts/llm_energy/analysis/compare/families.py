"""Compare the cells of a sweep, where they may be compared, and say what is beyond noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from llm_energy.analysis.compare.series import Pair
from llm_energy.analysis.grouping.comparability import in_words
from llm_energy.analysis.statistics.format import (
    change,
    interval,
    too_wide,
    used,
    visible,
)
from llm_energy.analysis.statistics.paired import (
    ALPHA,
    Ratio,
    Tested,
    family_noise,
    holm,
    ratio_of,
    smallest_detectable_percent,
    tested,
)
from llm_energy.records.comparison import Comparison, ComparisonOutcome, Difference, Family, Side

TITLES = {
    "precision": "between precisions",
    "batch_size": "from one batch size to the next",
    "model": "between models",
    "backend": "between backends",
    "choice": "against the chosen one",
}
TOGETHER = (
    "Raise protocol.repeats: the added blocks measure both cells in one session. A cell that is "
    "added later takes an anchor, one of the earlier cells, that is measured again beside it"
)
REMEDIES = {
    "session": TOGETHER,
    "block": TOGETHER,
    "prompt_lengths": "Give their workloads the same requests, or synthetic prompts",
}


def compare(pairs: Iterable[Pair]) -> tuple[list[Comparison], list[Family]]:
    """Test every pair against a ratio of 1, family by family."""
    families: dict[str, list[Pair]] = {}
    for pair in pairs:
        families.setdefault(family_id(pair), []).append(pair)
    found: list[Comparison] = []
    described = []
    for id, members in families.items():
        comparisons, family = _family(id, members)
        found += comparisons
        described.append(family)
    return found, described


def family_id(pair: Pair) -> str:
    """Name the question that a pair helps to answer: one contrast, place, metric and scope."""
    side, contrast = pair.reference, pair.contrast
    shared = {
        "precision": (side.model, side.backend),
        "batch_size": (side.model, side.backend),
        "model": (side.backend,),
        "backend": (side.model,),
        "choice": (side.model, side.backend),
    }[contrast]
    scope = (side.status, "+".join(side.components)) if pair.metric.energy else ()
    return "/".join((contrast, *shared, pair.metric.name, *scope))


def _family(id: str, members: Sequence[Pair]) -> tuple[list[Comparison], Family]:
    ratios = [ratio_of(list(pair.independent.values())) if pair.logs else None for pair in members]
    # Sessions lie further apart than the blocks of one, so that neither lends the other its noise.
    several = [len(pair.sessions) > 1 for pair in members]
    of_blocks, of_sessions = (
        family_noise(
            _independent(
                [pair for pair, one in zip(members, several, strict=True) if one == wanted],
                [ratio for ratio, one in zip(ratios, several, strict=True) if one == wanted],
            )
        )
        for wanted in (False, True)
    )
    noises = [of_sessions if one else of_blocks for one in several]
    tests = [
        ratio and tested(ratio, noise, pair.shared)
        for pair, ratio, noise in zip(members, ratios, noises, strict=True)
    ]
    values = [test.p for test in tests if test]
    adjusted = iter(holm(values))
    comparisons = [
        _comparison(id, pair, ratio, test, next(adjusted) if test else None, len(values))
        for pair, ratio, test in zip(members, ratios, tests, strict=True)
    ]
    first = members[0]
    noise = of_sessions if of_sessions.degrees > 0 else of_blocks
    known = noise.degrees > 0
    place = " on ".join(id.split("/")[1:3] if first.contrast not in ("model", "backend") else [])
    title = f"{first.metric.label} {TITLES[first.contrast]}"
    return comparisons, Family(
        id=id,
        contrast=first.contrast,
        title=f"{title} of {place}" if place else title,
        metric=first.metric.name,
        energy_status=first.reference.status if first.metric.energy else None,
        components=first.reference.components if first.metric.energy else (),
        comparisons=len(values),
        found=sum(one.outcome in ("less", "more") for one in comparisons),
        noise_percent=100 * math.sqrt(noise.variance) if known else None,
        noise_degrees_of_freedom=None if math.isinf(noise.degrees) else noise.degrees,
    )


def _independent(members: Sequence[Pair], ratios: Sequence[Ratio | None]) -> list[Ratio]:
    """Leave out each pair that follows from those before it, as b : c does from a : b and a : c."""
    joined: dict[tuple[str, str], tuple[str, str]] = {}

    def root(place: tuple[str, str]) -> tuple[str, str]:
        while joined.get(place, place) != place:
            place = joined[place]
        return place

    found = []
    for pair, ratio in zip(members, ratios, strict=True):
        ends = [root((side.cell, side.workload)) for side in (pair.reference, pair.other)]
        if ratio and ends[0] != ends[1]:
            joined[ends[1]] = ends[0]
            found.append(ratio)
    return found


def _comparison(
    family: str,
    pair: Pair,
    ratio: Ratio | None,
    test: Tested | None,
    adjusted: float | None,
    compared: int,
) -> Comparison:
    metric = pair.metric
    centre = math.exp(ratio.mean) if ratio else None
    outcome: ComparisonOutcome = "too_few_pairs"
    if pair.differs:
        outcome = "not_comparable"
    elif test:
        outcome = "not_distinguishable"
        if adjusted < ALPHA:
            outcome = "less" if ratio.mean < 0 else "more"
    found = Comparison(
        contrast=pair.contrast,
        family=family,
        metric=metric.name,
        energy_status=pair.reference.status if metric.energy else None,
        components=pair.reference.components if metric.energy else (),
        reference=pair.reference.side(metric),
        other=pair.other.side(metric),
        outcome=outcome,
        verdict="",
        n=len(pair.logs),
        blocks=tuple(pair.logs),
        left_out=pair.left_out,
        differs=pair.differs,
        ratio=centre,
        ci_low=math.exp(ratio.mean - test.half_width) if test else None,
        ci_high=math.exp(ratio.mean + test.half_width) if test else None,
        p=test.p if test else None,
        p_adjusted=adjusted,
        smallest_detectable_percent=(
            smallest_detectable_percent(test, ratio.n, compared) if test else None
        ),
        scope="sessions" if len(pair.sessions) > 1 else "session" if test else None,
        log_sd=math.sqrt(ratio.variance) if ratio and ratio.degrees else None,
        degrees_of_freedom=test.degrees if test else None,
        notes=tuple(_notes(pair)),
    )
    return replace(found, verdict=verdict(found, metric.verb, metric.label, compared))


def verdict(found: Comparison, verb: str, unit: str, compared: int) -> str:
    """Say in one sentence what a comparison, one of so many ``compared``, found."""
    reference, other = (_name_of(side, found.contrast) for side in (found.reference, found.other))
    if found.outcome == "not_comparable":
        told = "; ".join(map(in_words, found.differs))
        remedies = (REMEDIES.get(one.field) for one in found.differs)
        told = ". ".join([told, *dict.fromkeys(filter(None, remedies))])
        return f"{reference} and {other} are not comparable: {told}"
    if found.outcome == "too_few_pairs":
        lacking = "their repeats do not scatter at all" if found.n > 1 else "an interval takes two"
        return f"{other} and {reference} share {found.n} usable blocks, and {lacking}"
    given, wide = interval(found.ci_low, found.ci_high), too_wide(found.ci_low, found.ci_high)
    if found.outcome == "not_distinguishable":
        by_itself = not found.ci_low <= 1 <= found.ci_high
        corrected = f" after the correction for {compared} comparisons" if by_itself else ""
        moved = change(found.ratio, found.ci_low, found.ci_high)
        told = "the ratio is too noisy to be given" if wide else f"{moved}, {given}"
        return (
            f"{other} and {reference} are not distinguishable at n = {found.n}{corrected} "
            f"in {unit} ({told}); {visible(found.smallest_detectable_percent)}"
        )
    told = f"{other} {verb} {used(unit, reference, found.ratio, found.ci_low, found.ci_high)}"
    return told if wide else f"{told}, {given}"


def _name_of(side: Side, contrast: str) -> str:
    """Name a side by that in which the two differ."""
    if contrast == "batch_size":
        return f"batch size {side.batch_size}"
    if contrast == "choice":
        return f"{side.precision} at {side.workload}"
    return str(getattr(side, contrast))


def _notes(pair: Pair) -> Iterable[str]:
    """Return what a reader must know of the joules, the repeats and the GPUs behind a ratio."""
    if pair.metric.energy and "estimated" in (pair.reference.status, pair.other.status):
        yield "estimated by a model of the hardware, not measured"
    if any(row.simulated for row in pair.reference.rows.values()):
        yield "simulated: no joule was ever drawn"
    if pair.contrast == "backend":
        yield from _entries(pair)
    for series in (pair.reference, pair.other):
        used = [k for k in pair.logs if series.rows[k].verdict == "degraded"]
        if used:
            flags = sorted({flag for k in used for flag in series.rows[k].flags})
            share = f"{len(used)} of {len(pair.logs)} repeats degraded"
            yield f"{series.cell}: {share} ({', '.join(flags)})"
        for k in series.outliers(pair.metric):
            yield f"{series.cell}: repeat {k} is an outlier"
    if len(pair.sessions) > 1:
        yield f"over {len(pair.sessions)} sessions, of which each counts once"
    gpus = {pair.reference.conditions[k].get("boards") for k in pair.logs}
    if len(gpus) > 1:
        yield f"blocks of {len(gpus)} different sets of GPUs"


def _entries(pair: Pair) -> Iterable[str]:
    """Name in what two entries of the config differ beside the engine's own ways."""
    first, second = (
        next(iter(side.conditions.values()), {}) for side in (pair.reference, pair.other)
    )
    for name in ("arguments", "flow", "batching"):
        before, after = first.get(name, "none"), second.get(name, "none")
        of_one_engine = name != "flow" or "none" not in (before, after)
        if before != after and of_one_engine:
            yield in_words(Difference(name, before, after))
