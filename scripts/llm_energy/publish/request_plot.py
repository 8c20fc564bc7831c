"""Describe the plot of what requests took, by how long they were, for figures and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_energy.publish.plots import Look, looks_of
from llm_energy.records import AggregateRow, RequestGroup

X_LABEL, Y_LABEL = "output tokens", "attributed J per request"
NO_STEPS = "no engine of this sweep told its steps"


class Point(NamedTuple):
    """Requests of like lengths of one cell and workload; ``prompts`` says how long those were."""

    row: AggregateRow
    group: RequestGroup
    prompts: str


@dataclass(frozen=True)
class RequestPlot:
    """Joules of requests against their output tokens, one look for each octave of prompt tokens."""

    points: tuple[Point, ...]
    looks: Mapping[str, Look]
    reason: str = NO_STEPS
    name: str = "requests"
    title: str = "Energy of a request by its length"
    caption: str = (
        "Attributed joules: shares of each window's joules by the work of the engine's steps, the "
        "mean of all requests whose prompt and output tokens are of the same octave. They have no "
        "interval."
    )

    @property
    def panels(self) -> dict[str, list[Sequence[Point]]]:
        """Return by panel its lines: the points of one octave of prompts, by output tokens."""
        found: dict[str, dict[str, list[Point]]] = {}
        for point in self.points:
            row = point.row
            title = f"{row.model}, {row.backend}, {row.precision}, {row.workload}"
            found.setdefault(title, {}).setdefault(point.prompts, []).append(point)
        by_output = {
            title: [sorted(own, key=lambda p: p.group.output_tokens) for own in lines.values()]
            for title, lines in found.items()
        }
        return by_output


def describe_requests(rows: Iterable[AggregateRow]) -> RequestPlot:
    """Return the plot of the rows whose requests' joules are known."""
    points = [
        Point(row, group, _octave(group.prompt_tokens))
        for row in rows
        if row.request_energy
        for group in row.request_energy.groups
    ]
    names = {point.prompts: point.group.prompt_tokens for point in points}
    return RequestPlot(tuple(points), looks_of(sorted(names, key=names.__getitem__)))


def _octave(tokens: float) -> str:
    """Name the octave of a prompt's tokens.

    >>> _octave(100.5), _octave(1)
    ('64 to 127', '1')
    """
    low = 2 ** math.floor(math.log2(max(1.0, tokens)))
    return f"{low} to {2 * low - 1}" if low > 1 else "1"
