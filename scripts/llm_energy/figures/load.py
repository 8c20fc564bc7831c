"""Energy over load: joules per token against the rate at which requests arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_energy.figures import style
from llm_energy.records import AggregateRow
from llm_energy.records.metrics import GROSS, METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE = "arrival_rate_per_s"


def timed(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Give the rows of timed traffic that have a rate and an energy."""
    needed = (RATE, GROSS)
    return [
        row
        for row in rows
        if row.traffic
        and all(s is not None and s.mean is not None for s in map(row.statistics.get, needed))
    ]


def all_there_at_once(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Give the rows whose energy is that of a busy engine: all but those of timed traffic."""
    return [row for row in rows if not row.traffic]


def over_load(panels: Mapping[str, Sequence[AggregateRow]]) -> Figure:
    """Draw energy per output token at each rate of arrivals, one line a precision."""
    every = [row for rows in panels.values() for row in rows]
    looks = style.looks(row.precision for row in every)
    figure, drawn = style.panels(len(panels))
    for axes, (title, rows) in zip(drawn, panels.items(), strict=True):
        axes.set_title(title)
        for precision, look in looks.items():
            own = sorted(
                (row for row in rows if row.precision == precision),
                key=lambda row: row.statistics[RATE].mean,
            )
            ends = [(row.statistics[RATE].mean, row.statistics[GROSS].mean) for row in own]
            if ends:
                axes.plot(*zip(*ends, strict=True), color=look.colour, linewidth=0.8, zorder=1)
            for (rate_per_s, _), row in zip(ends, own, strict=True):
                estimated = style.is_estimated(row)
                style.point(axes, rate_per_s, row.statistics[GROSS], look, estimated)
        axes.set_xlabel(METRICS[RATE].axis)
        style.energy_axis(axes, [row.statistics[GROSS] for row in rows], style.ENERGY_LABEL)
    style.legend(figure, list(looks.items()), any(map(style.is_estimated, every)))
    return figure
