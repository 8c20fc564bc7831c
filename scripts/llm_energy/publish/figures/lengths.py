"""Figure of what requests took, by how long they were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_energy.publish import style
from llm_energy.publish.length_plots import X_LABEL, LengthPlot, Point
from llm_energy.publish.plots import spans_widely

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_length(panels: Mapping[str, Sequence[Sequence[Point]]], plot: LengthPlot) -> Figure:
    """Draw joules against output tokens, a line for each length of prompts."""
    figure, drawn = style.panels(panels)
    shown = [point for lines in panels.values() for points in lines for point in points]
    for axes, lines in zip(drawn, panels.values(), strict=True):
        for points in lines:
            look = plot.looks[points[0].prompts]
            tokens = [point.output_tokens for point in points]
            axes.plot(tokens, [point.line_j for point in points], color=look.colour, linewidth=0.8)
            axes.plot(
                tokens,
                [point.energy_j for point in points],
                color=look.colour,
                marker=style.MARKERS[look.shape],
                linestyle="",
            )
            known = [point for point in points if point.low_j is not None]
            axes.vlines(
                [point.output_tokens for point in known],
                [point.low_j for point in known],
                [point.high_j for point in known],
                color=look.colour,
                linewidth=0.8,
            )
        for name, most, values in (
            ("x", style.MOST_DECADES[0], [point.output_tokens for point in shown]),
            ("y", style.MOST_DECADES[1], [point.energy_j for point in shown]),
        ):
            low, high = min(values) / 1.3, max(values) * 1.3
            if spans_widely(values):
                axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
                style.plain_numbers(getattr(axes, f"{name}axis"), math.log10(high / low), most)
            else:
                axes.set(**{f"{name}lim": (0, high)})
        axes.set_xlabel(X_LABEL)
        axes.set_ylabel(plot.y_label)
    used = {point.prompts for point in shown}
    entries = [(f"prompt of {n} tokens", look) for n, look in plot.looks.items() if n in used]
    style.legend(figure, entries, estimated=False)
    return figure
