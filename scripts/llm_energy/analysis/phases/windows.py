"""The windows of one cell and batch size by the lengths of requests, and weighted sums of them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_energy.analysis.energy.uncertainty import with_intervals
from llm_energy.analysis.grouping.scopes import Scope, Scopes
from llm_energy.analysis.statistics.summary import over_groups
from llm_energy.records import Metrics, Statistic

TERMS = ("request", "input_token", "output_token", "context", "input_squared")
TICKS, LAG = "gross_energy_standard_uncertainty_j", "counter_lag_j"


class Lengths(NamedTuple):
    """The tokens of each request of a window."""

    prompt: int
    output: int

    @property
    def row(self) -> tuple[float, ...]:
        """Return what the terms are multiplied by.

        >>> Lengths(10, 3).row
        (1.0, 10.0, 2.0, 23.0, 100.0)
        """
        later = self.output - 1
        context = self.prompt * later + self.output * later / 2
        return (1.0, float(self.prompt), float(later), context, float(self.prompt**2))


Weights = Mapping[Lengths, float]


@dataclass(frozen=True)
class Windows:
    """The windows of one cell and batch size by lengths and repeat; not empty."""

    found: dict[Lengths, dict[int, Metrics]]
    scopes: Scopes

    @property
    def repeats(self) -> list[int]:
        """Return the repeats of any window."""
        return sorted({repeat for own in self.found.values() for repeat in own})

    @property
    def complete(self) -> list[int]:
        """Return the repeats with a window of every length."""
        return [n for n in self.repeats if all(n in own for own in self.found.values())]

    def mean(self, lengths: Lengths, name: str, repeats: Iterable[int]) -> float | None:
        """Return a number of the windows of one length, per request; None where one lacks it."""
        rows = [self.found[lengths][repeat] for repeat in repeats]
        values = [getattr(row, name) for row in rows]
        if None in values:
            return None
        return statistics.fmean(v / row.requests for v, row in zip(values, rows, strict=True))

    def weighted(self, weights: Weights, repeats: Sequence[int]) -> Statistic:
        """Summarise a weighted sum of the joules per request over repeats with all of its windows.

        What the counters leave open is weighted alike: their ticks by the root of the sum of
        squares, what they are expected to show too little with its sign.
        """
        values = [
            sum(
                weight * self.found[one][repeat].gross_energy_j / self.found[one][repeat].requests
                for one, weight in weights.items()
            )
            for repeat in repeats
        ]
        rows = [self.found[next(iter(weights))][repeat] for repeat in repeats]
        scope: Scope = self.scopes.of(rows)
        found = over_groups(values, [scope.groups.get(row.measurement) for row in rows])
        parts = [
            (weight, *(self.mean(one, name, repeats) for name in (TICKS, LAG)))
            for one, weight in weights.items()
        ]
        if all(None not in part for part in parts):
            window_j = math.hypot(*(weight * tick_j for weight, tick_j, _ in parts))
            lag_j = math.fsum(weight * lag_j for weight, _, lag_j in parts)
            found = with_intervals(found, window=window_j, bias=lag_j)
        return scope.bare(found)


def contrasts(lengths: Iterable[Lengths]) -> dict[str, Weights]:
    """Return by quantity what has to be added up of the joules of some lengths to have its cost.

    The lengths are chosen as far apart as they were measured: prompts at the shortest output,
    outputs at any prompt, and for the context two prompts and two outputs.

    >>> contrasts([Lengths(8, 1), Lengths(16, 1)])["input"][Lengths(16, 1)]
    0.125
    """
    there = sorted(set(lengths))
    found: dict[str, Weights] = {}
    pairs = [*itertools.combinations(there, 2)]
    along_prompt = [(a, b) for a, b in pairs if a.output == b.output]
    along_output = [(a, b) for a, b in pairs if a.prompt == b.prompt]
    if along_prompt:
        a, b = max(along_prompt, key=lambda p: (-p[0].output, p[1].prompt - p[0].prompt))
        found["input"] = _difference(a, b, b.prompt - a.prompt)
    if along_output:
        a, b = max(along_output, key=lambda p: (p[1].output - p[0].output, -p[0].prompt))
        found["output"] = _difference(a, b, b.output - a.output)
    rectangles = [
        (short, long)
        for short, long in itertools.permutations(along_output, 2)
        if short[0].prompt < long[0].prompt and _outputs(short) == _outputs(long)
    ]
    if rectangles:
        short, long = max(rectangles, key=_area)
        per = 1 / _area((short, long))
        found["context"] = {short[0]: per, short[1]: -per, long[0]: -per, long[1]: per}
    return found


def _difference(a: Lengths, b: Lengths, tokens: int) -> Weights:
    return {a: -1 / tokens, b: 1 / tokens}


def _outputs(pair: tuple[Lengths, Lengths]) -> tuple[int, int]:
    return pair[0].output, pair[1].output


def _area(pairs: tuple[tuple[Lengths, Lengths], tuple[Lengths, Lengths]]) -> int:
    short, long = pairs
    return (long[0].prompt - short[0].prompt) * (short[1].output - short[0].output)
