"""How every figure looks: sizes, marks, error bars. An estimated value is hollow.

A figure is as wide as one or two columns of a journal, and can be read in grey: beside
their colours, points differ in shape and bars in pattern.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llm_energy.publish.plots import SHAPES, Look, spans_widely
from llm_energy.records import AggregateRow, Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = dict(zip(SHAPES, ("o", "s", "^", "D", "v", "P", "X"), strict=True))
# What fills a bar, beside its colour.
PATTERNS = dict(zip(SHAPES, (None, "....", "xxxx", "\\\\\\\\", "----", "oo", "++"), strict=True))
HOLLOW, GREY = "hollow: estimated by a model, not measured", Look("#555555", SHAPES[0])
SIMULATED = "SIMULATED: none of these joules was ever drawn."
MOST_NAMED = 14  # names in a legend
SMALLEST_PT = 7
ERROR_BAR = {"color": "#333333", "elinewidth": 1, "capsize": 2}
MOST_DECADES = (1.7, 4.0)  # of an x and a y axis that are labelled with 1, 2 and 5
MOST_ROOM = 3.0  # an axis of energy ends at so many times its largest mean
ONE_COLUMN, TWO_COLUMNS = 3.5, 7.1  # inches, as journals set them
PANELS_A_ROW, PANEL_HEIGHT = 3, 2.3  # inches
LETTER_PT, AXIS_PT = 4.5, 50  # how wide a letter is, and what stands at the left of a panel
RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the bytes are the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # whole TrueType fonts, which journals ask for
    "svg.fonttype": "path",  # letters as outlines: no font is needed to read them
    "svg.hashsalt": "llm-energy",  # ids, else random, are the same on every run
}


def panels(
    titles: Iterable[str], height: float = PANEL_HEIGHT, a_row: int = PANELS_A_ROW
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each title, ``a_row`` in each row, and no empty frame.

    One panel is as wide as one column, several as two. ``height`` of a row is in inches.
    """
    from matplotlib.figure import Figure

    titles = list(titles)
    columns = min(len(titles), a_row)
    rows = math.ceil(len(titles) / columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    letters = int((72 * width / columns - AXIS_PT) / LETTER_PT)
    for own, title in zip(axes, titles, strict=False):
        own.set_title(textwrap.fill(title, letters))
    for spare in axes[len(titles) :]:
        spare.set_axis_off()
    return figure, axes[: len(titles)]


def point(axes: Axes, x: float, statistic: Statistic, look: Look, estimated: bool) -> None:
    """Draw a mean with its 95 % interval; hollow where it is an estimate."""
    axes.errorbar(
        [x],
        [statistic.mean],
        yerr=error_bar(statistic),
        color=look.colour,
        marker=MARKERS[look.shape],
        markerfacecolor="white" if estimated else look.colour,
        linestyle="none",
        elinewidth=1,
        capsize=2,
        zorder=3,
    )


def bar_style(look: Look, estimated: bool) -> dict[str, object]:
    """Return how a bar is filled; hollow where it is an estimate."""
    face, edge = ("white", look.colour) if estimated else (look.colour, "white")
    return {"facecolor": face, "edgecolor": edge, "hatch": PATTERNS[look.shape]}


def error_bar(statistic: Statistic) -> list[list[float]] | None:
    """Return the lengths below and above the mean, none below zero; None without an interval."""
    if statistic.ci_low is None:
        return None
    low = max(statistic.ci_low, min(0.0, statistic.mean))
    return [[statistic.mean - low], [statistic.ci_high - statistic.mean]]


def axis_end(statistics: Sequence[Statistic]) -> float:
    """Return where an axis of energy ends: an interval far wider than its mean leaves it."""
    tops = [s.mean if s.ci_high is None else s.ci_high for s in statistics]
    return min(max(tops), MOST_ROOM * max(s.mean for s in statistics)) or 1.0


def energy_axis(
    axes: Axes, statistics: Sequence[Statistic], label: str, logarithm: bool = True
) -> None:
    """Scale the y axis: from 0, or by logarithm where the values span more than a factor of five.

    An interval that reaches below zero would stretch a logarithmic axis without end, so it is cut.
    """
    means = [s.mean for s in statistics]
    end = axis_end(statistics)
    axes.set_ylabel(label)
    if logarithm and spans_widely(means):
        lows = [s.ci_low for s in statistics if s.ci_low is not None and s.ci_low > min(means) / 3]
        axes.set_yscale("log")
        low, high = min([*means, *lows]) / 1.3, end * 1.3
        plain_numbers(axes.yaxis, math.log10(high / low), MOST_DECADES[1])
        axes.set_ylim(low, high)
    else:
        axes.set_ylim(min(0.0, *means), end * 1.1)


def plain_numbers(axis, decades: float, most: float) -> None:
    """Label a logarithmic axis with 1, 2 and 5 and their tenfolds, written out.

    With 1 and its tenfolds alone where it has more than ``most`` decades.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades <= most else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend(figure: Figure, entries: Sequence[tuple[str, Look]], estimated: bool) -> None:
    """Say once, above all panels, what the colours and shapes mean."""
    from matplotlib.lines import Line2D

    def mark(look: Look, face: str) -> Line2D:
        return Line2D(
            [], [], color=look.colour, marker=MARKERS[look.shape], markerfacecolor=face, ls="none"
        )

    handles = [mark(look, look.colour) for _, look in entries[:MOST_NAMED]]
    labels = [name for name, _ in entries[:MOST_NAMED]]
    if len(entries) > MOST_NAMED:
        handles.append(mark(Look("none", SHAPES[0]), "none"))
        labels.append(f"and {len(entries) - MOST_NAMED} more")
    if estimated:
        handles.append(mark(GREY, "white"))
        labels.append(HOLLOW)
    legend_above(figure, handles, labels, 5)


def legend_above(
    figure: Figure, handles: Sequence[object], labels: Sequence[str], most: int
) -> None:
    """Put a legend above all panels, in as many columns as the figure has room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(min(most, len(labels)), 0, -1):
        found = figure.legend(handles, labels, loc="outside upper center", ncols=columns)
        if columns == 1 or found.get_window_extent(renderer).width < figure.bbox.width:
            return
        found.remove()


def is_estimated(row: AggregateRow) -> bool:
    """Return whether a model of the hardware gave these joules."""
    return row.energy_status == "estimated"


def render(figure: Figure, title: str, note: str) -> dict[str, bytes]:
    """Return a figure as SVG and as PDF; the same figure gives the same bytes."""
    if note:
        letters = int(72 * figure.get_figwidth() / LETTER_PT)
        figure.supxlabel(textwrap.fill(note, letters), fontsize=SMALLEST_PT, color="#B00020")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out by now; each file would do it again
    files = {}
    for suffix, metadata in (
        ("svg", {"Title": title, "Date": None, "Creator": None}),
        ("pdf", {"Title": title, "CreationDate": None, "Creator": None, "Producer": None}),
    ):
        stream = io.BytesIO()
        figure.savefig(stream, format=suffix, metadata=metadata)
        files[suffix] = stream.getvalue()
    return files
