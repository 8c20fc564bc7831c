"""Describe the plots of what requests take over how long they are, for figures and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_energy.publish.plots import INTERVALS, NO_WINDOW, Look, looks_of
from llm_energy.records import AggregateRow
from llm_energy.records.phases import Phases

X_LABEL = "output tokens"
NO_STEPS = "no engine of this sweep told its steps"


class Point(NamedTuple):
    """Requests of like lengths of one cell; ``prompts`` says how long their prompts were.

    ``fitted_j`` is what a fit gives there, None where there is none, and so are the ends of the
    interval.
    """

    cell: str
    workload: str
    panel: str
    prompts: str
    output_tokens: float
    energy_j: float
    requests: int | None = None
    low_j: float | None = None
    high_j: float | None = None
    fitted_j: float | None = None

    @property
    def line_j(self) -> float:
        """Return where the line through the points goes: by the fit, or else through them."""
        return self.energy_j if self.fitted_j is None else self.fitted_j


@dataclass(frozen=True)
class LengthPlot:
    """Joules of requests against their output tokens, one look for each length of prompts."""

    name: str
    title: str
    y_label: str
    caption: str
    reason: str
    points: tuple[Point, ...]
    looks: Mapping[str, Look]

    @property
    def panels(self) -> dict[str, list[Sequence[Point]]]:
        """Return by panel its lines: the points of one length of prompts, by output tokens."""
        found: dict[str, dict[str, list[Point]]] = {}
        for point in self.points:
            found.setdefault(point.panel, {}).setdefault(point.prompts, []).append(point)
        return {
            title: [sorted(own, key=lambda p: p.output_tokens) for own in lines.values()]
            for title, lines in found.items()
        }


def length_plots(
    rows: Iterable[AggregateRow], phases: Phases | None = None
) -> dict[str, LengthPlot]:
    """Return the plots by their names."""
    plots = (_requests(rows), _lengths(phases))
    return {plot.name: plot for plot in plots}


def _requests(rows: Iterable[AggregateRow]) -> LengthPlot:
    points = {
        Point(
            row.cell,
            row.workload,
            f"{row.model}, {row.backend}, {row.precision}, {row.workload}",
            _octave(group.prompt_tokens),
            group.output_tokens,
            group.energy_j,
            group.requests,
        ): group.prompt_tokens
        for row in rows
        if row.request_energy
        for group in row.request_energy.groups
    }
    return LengthPlot(
        "requests",
        "Energy of a request by its length",
        "attributed J per request",
        "Attributed joules: shares of each window's joules by the work of the engine's steps, the "
        "mean of all requests whose prompt and output tokens are of the same octave. They have no "
        "interval.",
        NO_STEPS,
        tuple(points),
        _looks(points),
    )


def _lengths(phases: Phases | None) -> LengthPlot:
    points = {
        Point(
            split.cell,
            point.workload,
            f"{split.cell.replace('--', ', ')}, batch of {split.batch_size}"
            + (f", {split.batching}" if split.batching else "")
            + (f" ({split.energy_status})" if split.energy_status != "measured" else ""),
            str(point.prompt_tokens),
            point.output_tokens,
            found.mean,
            None,
            found.ci_low,
            found.ci_high,
            point.fitted_j,
        ): point.prompt_tokens
        for split in (phases.splits if phases else ())
        for point in split.points
        if (found := point.energy_per_request_j).mean is not None
    }
    return LengthPlot(
        "lengths",
        "Energy of a request over its lengths, and the fit",
        "J per request",
        f"Points are windows of requests of one length. {INTERVALS} Lines are the fit that splits "
        "the joules over input and output tokens, and where there is none they join the points.",
        (phases and phases.reason) or NO_WINDOW,
        tuple(points),
        _looks(points),
    )


def _looks(prompt_tokens: Mapping[Point, float]) -> dict[str, Look]:
    """Return the look of each length of prompts, the shortest first."""
    names = {point.prompts: tokens for point, tokens in prompt_tokens.items()}
    return looks_of(sorted(names, key=names.__getitem__))


def _octave(tokens: float) -> str:
    """Name the octave of a prompt's tokens.

    >>> _octave(100.5), _octave(1)
    ('64 to 127', '1')
    """
    low = 2 ** math.floor(math.log2(max(1.0, tokens)))
    return f"{low} to {2 * low - 1}" if low > 1 else "1"
