"""Figures of how a repeat went: its power over time with the baselines, and its warm-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_energy.publish import style
from llm_energy.publish.plots import COLOURS, looks_of
from llm_energy.publish.timeline import Timeline, thinned
from llm_energy.records import Measurement, Window
from llm_energy.records.files.names import numeric_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How each kind of stretch is shaded, so that they differ in grey, too.
SHADES = {
    "idle": {"facecolor": "#BBBBBB", "alpha": 0.3},
    "load": {"facecolor": "#F0E442", "alpha": 0.5, "hatch": "////", "edgecolor": "white"},
    "window": {"facecolor": "#56B4E9", "alpha": 0.6},
}
LINES = {"measured": "--", "estimated": ":"}  # of a mean; what was sampled is drawn through
MOST_POINTS = 600


def time_course(timelines: Mapping[str, Timeline]) -> Figure:
    """Draw the power of one repeat of each cell over time, every metered stretch shaded.

    The GPUs' sampled power where it was sampled, else the mean power of each stretch.
    """
    figure, panels = style.panels(timelines)
    for axes, timeline in zip(panels, timelines.values(), strict=True):
        for stretch in timeline.stretches:
            axes.axvspan(stretch.start_s, stretch.end_s, linewidth=0, **SHADES[stretch.kind])
            if stretch.kind == "window":
                axes.annotate(
                    stretch.name,
                    ((stretch.start_s + stretch.end_s) / 2, 0.04),
                    xycoords=("data", "axes fraction"),
                    rotation=90,
                    ha="center",
                    va="bottom",
                    fontsize=style.SMALLEST_PT,
                )
            for status, line in LINES.items():
                power_w = stretch.total_w(status)
                if power_w is not None:
                    axes.hlines(
                        power_w, stretch.start_s, stretch.end_s, "#333333", line, linewidth=1
                    )
        if timeline.trace:
            points = thinned(timeline.trace, MOST_POINTS)
            axes.plot(*zip(*points, strict=True), color=COLOURS[0], linewidth=0.7)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("power (W)")
    end = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, end * 1.05)
    _legend(figure, list(timelines.values()))
    return figure


def is_warmed_up(window: Window) -> bool:
    """Return whether a window has two warm-up passes to compare, or more."""
    durations_s = window.warmup_durations_s
    return len(durations_s) > 1 and durations_s[-1] > 0


def warm_up(measurements: Mapping[str, Measurement]) -> Figure:
    """Draw how long each warm-up pass took against the last of its workload, cell by cell."""
    figure, panels = style.panels(measurements)
    names = [w.workload for m in measurements.values() for w in m.windows if is_warmed_up(w)]
    looks = looks_of(sorted(names, key=numeric_order))
    for axes, measurement in zip(panels, measurements.values(), strict=True):
        for window in filter(is_warmed_up, measurement.windows):
            durations_s, look = window.warmup_durations_s, looks[window.workload]
            axes.plot(
                range(1, len(durations_s) + 1),
                [duration_s / durations_s[-1] for duration_s in durations_s],
                color=look.colour,
                marker=style.MARKERS[look.shape],
                markersize=3,
                linewidth=0.8,
            )
        axes.axhline(1, color="#999999", linewidth=0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("warm-up pass")
        axes.set_ylabel("duration / that of the last")
    limits = [(*axes.get_xlim(), *axes.get_ylim()) for axes in panels]
    left, right, low, high = zip(*limits, strict=True)
    for axes in panels:
        axes.set(xlim=(min(left), max(right)), ylim=(min(low), max(high)))
    style.legend(figure, list(looks.items()), estimated=False)
    return figure


def _legend(figure: Figure, timelines: Sequence[Timeline]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = {
        kind: Patch(linewidth=0, **shade)
        for kind, shade in SHADES.items()
        if any(s.kind == kind for t in timelines for s in t.stretches)
    }
    if any(t.trace for t in timelines):
        entries["GPUs, sampled"] = Line2D([], [], color=COLOURS[0], linewidth=1)
    for status, line in LINES.items():
        if any(s.total_w(status) is not None for t in timelines for s in t.stretches):
            entries[f"mean of all that is {status}"] = Line2D([], [], color="#333333", ls=line)
    style.legend_above(figure, list(entries.values()), list(entries), 3)
