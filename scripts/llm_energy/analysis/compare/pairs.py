"""List what a sweep lets be compared: pairs of cells and workloads that differ in one thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llm_energy.analysis.compare.series import Pair, Series, matched, pair
from llm_energy.analysis.grouping.comparability import UNRECORDED
from llm_energy.records import Plan
from llm_energy.records.comparison import Contrast
from llm_energy.records.registry.metrics import GROSS, METRICS, NET, PER_BYTE, PER_REQUEST, SPEED

COMPARED: dict[Contrast, tuple[str, ...]] = {
    "precision": (GROSS, NET, SPEED),
    "batch_size": (GROSS, NET, SPEED),
    "model": (GROSS, NET, PER_REQUEST, PER_BYTE, SPEED),
    "backend": (GROSS, NET, SPEED),
}
# On an axis with more entries each is compared with the first alone, so that the number of pairs
# grows no faster than the sweep.
MOST_WITH_EACH_OTHER = 8
# What tells one line of batch sizes from another: the work of a request.
WORK = ("output_lengths", "token_rule", "decoding", "traffic", "sharding", "batching")

Place = tuple[str, str, str, str]  # model, backend, precision, workload


def pairs_of(series: Iterable[Series], plan: Plan) -> Iterator[Pair]:
    """Return every pair of a sweep, each metric of it, in the order of the plan.

    Of precisions, models and backends each one is compared with each other, or with the first where
    there are many; of batch sizes each with the next smaller one.
    """
    places: dict[Place, list[Series]] = {}
    for one in series:
        place = (one.model, one.backend, one.precision, one.workload)
        places.setdefault(place, []).append(one)
    for contrast, planned in axes(plan):
        group = [place for place in planned if place in places]
        pairs = itertools.combinations(group, 2)
        if len(group) > MOST_WITH_EACH_OTHER:
            pairs = ((group[0], other) for other in group[1:])
        for first, second in pairs:
            yield from _pairs(contrast, places[first], places[second])
    for line in lines(places, plan):
        for first, second in itertools.pairwise(line):
            yield from _pairs("batch_size", first, second)


def axes(plan: Plan) -> Iterator[tuple[Contrast, list[Place]]]:
    """Return the places that differ in one axis alone, in the order of the plan."""
    ordered = _ordered(plan)
    for contrast, axis in (("precision", 2), ("model", 0), ("backend", 1)):
        groups: dict[tuple[str, ...], list[Place]] = {}
        for place in ordered:
            groups.setdefault(place[:axis] + place[axis + 1 :], []).append(place)
        yield from ((contrast, group) for group in groups.values())


def lines(places: Mapping[Place, list[Series]], plan: Plan) -> Iterator[list[list[Series]]]:
    """Return the workloads of each cell that differ in their batch size, the smallest first."""
    cells: dict[tuple[str, ...], list[list[Series]]] = {}
    for place in _ordered(plan):
        if place in places:
            cells.setdefault(place[:3], []).append(places[place])
    for own in cells.values():
        yield from _lines(own)


def _ordered(plan: Plan) -> list[Place]:
    cells = [(cell.model, cell.backend, cell.precision) for cell in plan.cells]
    workloads = list(dict.fromkeys(w for cell in plan.cells for w in cell.workloads))
    return [(*cell, workload) for cell in cells for workload in workloads]


def _pairs(
    contrast: Contrast, reference: Sequence[Series], other: Sequence[Series]
) -> Iterator[Pair]:
    for metric in (METRICS[name] for name in COMPARED[contrast]):
        for first, second in matched(reference, other, metric):
            if found := pair(contrast, metric, first, second):
                yield found


def _lines(workloads: list[list[Series]]) -> Iterator[list[list[Series]]]:
    """Put the workloads of a cell that ask the same of a request in the order of their batch size.

    Where that leaves two with one batch size, they are told apart by their prompts' lengths too.
    """
    lines: dict[tuple[str, ...], list[list[Series]]] = {}
    for one in workloads:
        lines.setdefault(_conditions(one, WORK), []).append(one)
    for line in lines.values():
        parts = {(): line}
        if len({one[0].batch_size for one in line}) < len(line):
            parts = {}
            for one in line:
                parts.setdefault(_conditions(one, ("prompt_lengths",)), []).append(one)
        for part in parts.values():
            yield sorted(part, key=lambda one: one[0].batch_size)


def _conditions(series: Sequence[Series], names: Iterable[str]) -> tuple[str, ...]:
    first = next(iter(series[0].conditions.values()))
    return tuple(first.get(name, UNRECORDED) for name in names)
