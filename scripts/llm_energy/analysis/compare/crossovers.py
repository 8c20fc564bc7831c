"""Find the batch size from which a precision saves energy, or up to which it does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from llm_energy.analysis.compare.families import family_id
from llm_energy.analysis.compare.series import Pair, Series
from llm_energy.analysis.statistics.format import significant
from llm_energy.analysis.statistics.intervals import serial_guard, t_quantile
from llm_energy.records.comparison import UNTOLD, Comparison, Crossover, CrossoverPoint, Side
from llm_energy.records.registry.metrics import GROSS

Kind = Literal["saves", "costs", "starts_saving", "stops_saving", "several", "undecided"]
STEPS = 400  # between two batch sizes; far finer than any interval
WORDS = {
    "less": "less",
    "more": "more",
    "not_distinguishable": "no telling",
    "too_few_pairs": "too few repeats",
}

# A batch size, its log-ratio, and that of each repeat (of each session, where there are several).
Point = tuple[float, float, Mapping[Hashable, float]]


def crossovers(comparisons: Iterable[Comparison], pairs: Iterable[Pair]) -> list[Crossover]:
    """Follow each precision against the first one of its model, backend and scope.

    ``pairs`` are what the comparisons were made from.
    """
    logs = {
        _key(family_id(pair), pair.reference, pair.other): pair.independent
        for pair in pairs
        if pair.contrast == "precision" and pair.metric.name == GROSS
    }
    lines: dict[tuple, list[Comparison]] = {}
    for one in comparisons:
        if one.contrast == "precision" and one.metric == GROSS and one.ratio is not None:
            side = one.reference
            # Pairs stand in the order of the plan, so each line begins at the first precision.
            key = (one.family, side.precision, one.other.precision)
            lines.setdefault(key, []).append(one)
    firsts: dict[str, str] = {}
    found = []
    for (family, reference, _), line in lines.items():
        sizes = {one.reference.batch_size for one in line}
        if firsts.setdefault(family, reference) == reference and len(sizes) == len(line) > 1:
            line.sort(key=lambda one: one.reference.batch_size)
            found.append(_crossover(line, [_point(one, logs) for one in line]))
    return found


def _key(family: str, reference: Side | Series, other: Side | Series) -> tuple[str, ...]:
    return family, reference.cell, reference.workload, other.cell, other.workload


def _crossover(line: Sequence[Comparison], points: Sequence[Point]) -> Crossover:
    first = line[0]
    kind = kind_of([one.outcome for one in line])
    size = low = high = None
    if kind in ("starts_saving", "stops_saving"):
        size, low, high = where(points)
    return Crossover(
        model=first.reference.model,
        backend=first.reference.backend,
        reference_precision=first.reference.precision,
        precision=first.other.precision,
        metric=first.metric,
        energy_status=first.energy_status,
        components=first.components,
        points=tuple(
            CrossoverPoint(
                batch_size=one.reference.batch_size,
                workload=one.reference.workload,
                n=one.n,
                ratio=one.ratio,
                ci_low=one.ci_low,
                ci_high=one.ci_high,
                outcome=one.outcome,
            )
            for one in line
        ),
        kind=kind,
        batch_size=size,
        ci_low=low,
        ci_high=high,
        statement=_statement(line, kind, size, low, high),
    )


def kind_of(outcomes: Sequence[str]) -> Kind:
    """Say what the outcomes show along the batch size, taking only what is beyond noise.

    >>> kind_of(["more", "not_distinguishable", "less"])
    'starts_saving'
    >>> kind_of(["less", "not_distinguishable"])
    'undecided'
    """
    if set(outcomes) == {"less"}:
        return "saves"
    if set(outcomes) == {"more"}:
        return "costs"
    decided = [outcome for outcome in outcomes if outcome in ("less", "more")]
    changes = [pair for pair in itertools.pairwise(decided) if pair[0] != pair[1]]
    if len(changes) > 1:
        return "several"
    if len(changes) == 1:
        return "starts_saving" if changes[0][1] == "less" else "stops_saving"
    return "undecided"


def where(points: Sequence[Point]) -> tuple[float | None, float | None, float | None]:
    """Return the batch size at which the ratio is 1, and the ends of its 95 % interval.

    The log-ratio is interpolated in the logarithm of the batch size. The interval are the batch
    sizes around the crossing at which a ratio of 1 is not refuted (E. C. Fieller, Journal of the
    Royal Statistical Society B 16, 1954). The windows of one repeat share a process, so that
    neighbours err alike: each repeat has a curve of its own, and how far these lie apart is the
    error between two batch sizes as well. An end beyond the batch sizes measured is None. So is
    everything where the ratio crosses 1 not at all or more than once, and the interval where two
    neighbours share fewer than two repeats.
    """
    crossed = [k for k, (a, b) in enumerate(itertools.pairwise(points)) if (a[1] < 0) != (b[1] < 0)]
    if len(crossed) != 1:
        return None, None, None
    left, right = points[crossed[0]], points[crossed[0] + 1]
    share = left[1] / (left[1] - right[1])
    size = left[0] * (right[0] / left[0]) ** share
    if any(len(a[2].keys() & b[2].keys()) < 2 for a, b in itertools.pairwise(points)):
        return size, None, None
    band = list(_band(points))
    below = [b for b, m, h in band if b <= size and abs(m) > h]
    above = [b for b, m, h in band if b >= size and abs(m) > h]
    return size, max(below, default=None), min(above, default=None)


def _band(points: Sequence[Point]) -> Iterator[tuple[float, float, float]]:
    """Interpolate the log-ratio and half its interval in small steps of the batch size."""
    for (b1, m1, of_first), (b2, m2, of_second) in itertools.pairwise(points):
        common = [name for name in of_first if name in of_second]
        n = len(common)
        first, second = (_around_mean([of[k] for k in common]) for of in (of_first, of_second))
        of_one, of_other = _products(first, first), _products(second, second)
        together = _products(first, second)
        times = t_quantile(n - 1) * serial_guard(n) / math.sqrt(n * (n - 1))
        for step in range(STEPS + 1):
            share = step / STEPS
            scatter = (1 - share) ** 2 * of_one + share**2 * of_other
            half = times * math.sqrt(max(0.0, scatter + 2 * share * (1 - share) * together))
            yield b1 * (b2 / b1) ** share, (1 - share) * m1 + share * m2, half


def _around_mean(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def _products(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


def _point(one: Comparison, logs: Mapping[tuple[str, ...], Mapping[Hashable, float]]) -> Point:
    own = logs[_key(one.family, one.reference, one.other)]
    return one.reference.batch_size, math.log(one.ratio), own


def _statement(
    line: Sequence[Comparison],
    kind: Kind,
    size: float | None,
    low: float | None,
    high: float | None,
) -> str:
    first, last = line[0], line[-1]
    names = f"{first.other.precision} on {first.reference.backend}"
    reference = f"than {first.reference.precision}"
    sizes = f"{first.reference.batch_size} to {last.reference.batch_size}"
    if kind in ("saves", "costs"):
        word = "less" if kind == "saves" else "more"
        return f"{names} uses {word} energy {reference} at every batch size measured ({sizes})"
    if kind in ("starts_saving", "stops_saving") and size is not None:
        ends = (
            f"below {first.reference.batch_size}" if low is None else significant(low),
            f"beyond {last.reference.batch_size}" if high is None else significant(high),
        )
        word = "from" if kind == "starts_saving" else "up to"
        return (
            f"{names} uses less energy {reference} {word} a batch size of about "
            f"{significant(size)} (95 % CI {ends[0]} to {ends[1]})"
        )
    if {one.outcome for one in line} <= set(UNTOLD):
        precision = first.reference.precision
        return f"{names} cannot be told from {precision} at any batch size measured ({sizes})"
    told = ", ".join(
        f"{WORDS.get(one.outcome, one.outcome)} at {one.reference.batch_size}" for one in line
    )
    return f"{names} against {first.reference.precision} by batch size: {told}"
