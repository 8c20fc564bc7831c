"""Figures of what a token costs: points against a second quantity, and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from llm_energy.publish import style
from llm_energy.publish.plots import (
    BATCH,
    ENERGY_LABEL,
    FRONT_COLOUR,
    Line,
    Look,
    Plot,
    spans_widely,
)
from llm_energy.records import AggregateRow, Statistic
from llm_energy.records.registry.metrics import COMPONENTS, GROSS, OF_COMPONENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


class Panel(NamedTuple):
    """The part of a plot that stands in one panel."""

    plot: Plot
    rows: Sequence[AggregateRow]
    lines: Sequence[Line]


Panels = Mapping[str, Panel]  # by their titles, which several plots in one figure make unique


def panels_of(plots: Sequence[Plot]) -> dict[str, Panel]:
    """Put the rows and lines of plots into their panels, those of one title side by side."""
    rows: dict[tuple[str, str], list[AggregateRow]] = {}
    lines: dict[tuple[str, str], list[Line]] = {}
    for plot in plots:
        for row in plot.rows:
            rows.setdefault((plot.panel_of(row), plot.name), []).append(row)
        for line in plot.lines:
            lines.setdefault((plot.panel_of(line.rows[0]), plot.name), []).append(line)
    places = [(title, plot) for title in dict.fromkeys(t for t, _ in rows) for plot in plots]
    return {
        f"{title}: {plot.name}" if len(plots) > 1 else title: Panel(
            plot, rows[title, plot.name], lines.get((title, plot.name), ())
        )
        for title, plot in places
        if (title, plot.name) in rows
    }


def points(panels: Panels) -> Figure:
    """Draw energy against a second quantity, with the lines that join rows."""
    kinds = {panel.plot.name for panel in panels.values()}
    a_row = len(kinds) if len(kinds) > 1 else style.PANELS_A_ROW  # those of one title side by side
    titles = [plot.panel_of(rows[0]) for plot, rows, _ in panels.values()]
    figure, drawn = style.panels(titles, a_row=a_row)
    every = _all(panels)
    for axes, (plot, rows, lines) in zip(drawn, panels.values(), strict=True):
        for line in lines:
            _line(axes, plot, line)
        for row in rows:
            _point(axes, plot, row)
        if plot.x == BATCH:
            _batch_axis(axes, sorted({row.batch_size for row in every}))
        else:
            alike = [panel.rows for panel in panels.values() if panel.plot.name == plot.name]
            _x_axis(axes, [row.statistics[plot.x] for own in alike for row in own])
        axes.set_xlabel(plot.x_label)
        style.energy_axis(axes, [row.statistics[GROSS] for row in every], ENERGY_LABEL)
    looks = {}
    for plot, rows, _ in panels.values():
        looks |= {getattr(row, plot.by): plot.look(row) for row in rows}
    style.legend(figure, list(looks.items()), any(map(style.is_estimated, every)))
    if any(line.kind == "front" for *_, lines in panels.values() for line in lines):
        _name_all(figure, list(zip(drawn, panels.values(), strict=True)))
    return figure


def by_backend(panels: Panels) -> Figure:
    """Draw bars of energy by precision, one per backend."""
    figure, drawn = style.panels(panels)
    looks = next(iter(panels.values())).plot.looks
    width = 0.8 / len(looks)
    of_workload: dict[str, list[Statistic]] = {}
    for row in _all(panels):
        of_workload.setdefault(row.workload, []).append(row.statistics[GROSS])
    for axes, (_, own, _) in zip(drawn, panels.values(), strict=True):
        places = {name: k for k, name in enumerate(dict.fromkeys(row.precision for row in own))}
        for row in own:
            shift = (list(looks).index(row.backend) - (len(looks) - 1) / 2) * width
            _bar(axes, places[row.precision] + shift, 0.9 * width, row, looks[row.backend])
        axes.set_xticks(list(places.values()), list(places))
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.grid(False, axis="x")
        alike = of_workload[own[0].workload]
        style.energy_axis(axes, alike, ENERGY_LABEL, logarithm=False)
    _bar_legend(figure, looks, _all(panels))
    return figure


def by_component(panels: Panels) -> Figure:
    """Draw bars split by GPU, CPU and memory, measured and estimated each in a bar of its own."""
    rows = _all(panels)
    figure, drawn = style.panels(panels)
    end = style.axis_end([row.statistics[GROSS] for row in rows])
    looks = next(iter(panels.values())).plot.looks
    for axes, (_, own, _) in zip(drawn, panels.values(), strict=True):
        for place, row in enumerate(own):
            base = 0.0
            for name, look in looks.items():
                part = row.statistics.get(OF_COMPONENT[name])
                if part is None or part.mean is None:
                    continue
                axes.barh(
                    place,
                    part.mean,
                    left=base,
                    **style.bar_style(look, style.is_estimated(row)),
                )
                base += part.mean
            whole = row.statistics[GROSS]
            axes.errorbar(
                [whole.mean],
                [place],
                xerr=style.error_bar(whole),
                **style.ERROR_BAR,
            )
        axes.set_yticks(range(len(own)), [_component_label(row) for row in own])
        axes.set_xlim(0, 1.05 * end)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel(ENERGY_LABEL)
    used = {
        COMPONENTS[name]: look
        for name, look in looks.items()
        if any(name in row.components for row in rows)
    }
    _bar_legend(figure, used, rows)
    return figure


def _all(panels: Panels) -> list[AggregateRow]:
    return [row for panel in panels.values() for row in panel.rows]


def _line(axes, plot: Plot, line: Line) -> None:
    ends = [(plot.x_of(row), row.statistics[GROSS].mean) for row in line.rows]
    front = line.kind == "front"
    axes.plot(
        *zip(*ends, strict=True),
        "--" if line.kind == "dashed" else "-",
        color=FRONT_COLOUR if front else plot.look(line.rows[0]).colour,
        linewidth=0.8 if front else 1,
        zorder=1 if front else 2,
    )


def _name_all(figure: Figure, drawn: Sequence[tuple[Axes, Panel]]) -> None:
    """Name every point by its workload, or none where two names or a name and a point collide."""
    figure.draw_without_rendering()  # places are known once it is laid out
    renderer = figure.canvas.get_renderer()
    names: list[Text] = []
    free = True
    for axes, (plot, rows, _) in drawn:
        ends = [(plot.x_of(row), row.statistics[GROSS].mean) for row in rows]
        dots = axes.transData.transform(ends)
        own = [_name(axes, row.workload, end) for row, end in zip(rows, ends, strict=True)]
        boxes = [text.get_window_extent(renderer) for text in own]
        free = free and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        free = free and not any(box.count_contains(dots) for box in boxes)
        names += own
    if not free:
        for text in names:
            text.remove()


def _name(axes: Axes, text: str, end: tuple[float, float]) -> Text:
    """Write a name beside a point, to that side of it where there is room."""
    from matplotlib.patheffects import withStroke

    across, _ = axes.transAxes.inverted().transform(axes.transData.transform(end))
    side = -1 if across > 0.5 else 1
    return axes.annotate(
        text,
        end,
        xytext=(5 * side, 3),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        fontsize=style.SMALLEST_PT,
        color="#333333",
        path_effects=[withStroke(linewidth=2, foreground="white")],
        zorder=4,
        in_layout=False,
    )


def _point(axes, plot: Plot, row: AggregateRow) -> None:
    look, across = plot.look(row), row.statistics.get(plot.x)
    style.point(axes, plot.x_of(row), row.statistics[GROSS], look, style.is_estimated(row))
    if across and across.ci_low is not None:
        energy_j = row.statistics[GROSS].mean
        (below,), (above,) = style.error_bar(across)
        ends = (across.mean - below, across.mean + above)
        axes.hlines(energy_j, *ends, color=look.colour, linewidth=1)


def _x_axis(axes, statistics: Sequence[Statistic]) -> None:
    """Scale the x axis to the means; an interval far wider than they are leaves it."""
    values = [statistic.mean for statistic in statistics]
    if spans_widely(values):
        axes.set_xscale("log")
        low, high = min(values) / 2, max(values) * 2
        style.plain_numbers(axes.xaxis, math.log10(high / low), style.MOST_DECADES[0])
        axes.set_xlim(low, high)
    else:
        left = min(s.mean if s.ci_low is None else s.ci_low for s in statistics)
        right = style.axis_end(statistics)
        room = 0.08 * (right - max(0.0, left)) or 0.5 * right
        axes.set_xlim(max(0.0, left - room), right + room)


def _batch_axis(axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xlabel("batch size")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)


def _bar(axes, place: float, width: float, row: AggregateRow, look: Look) -> None:
    statistic = row.statistics[GROSS]
    axes.bar(
        place,
        statistic.mean,
        width,
        **style.bar_style(look, style.is_estimated(row)),
    )
    axes.errorbar(
        [place],
        [statistic.mean],
        yerr=style.error_bar(statistic),
        **style.ERROR_BAR,
    )


def _bar_legend(figure: Figure, looks: Mapping[str, Look], rows: Sequence[AggregateRow]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(**style.bar_style(look, False)) for look in looks.values()]
    labels = list(looks)
    if any(map(style.is_estimated, rows)):
        handles.append(Patch(**style.bar_style(style.GREY, True)))
        labels.append(style.HOLLOW)
    style.legend_above(figure, handles, labels, 4)


def _component_label(row: AggregateRow) -> str:
    return f"{row.workload} (est.)" if style.is_estimated(row) else row.workload
