"""Figure of what requests took, by how long they were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llm_energy.publish import style
from llm_energy.publish.plots import Look, spans_widely
from llm_energy.publish.request_plot import X_LABEL, Y_LABEL, Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_length(panels: Mapping[str, Sequence[Sequence[Point]]], looks: Mapping[str, Look]) -> Figure:
    """Draw attributed joules against output tokens, a line for each length of prompts."""
    figure, drawn = style.panels(len(panels))
    for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
        axes.set_title(title)
        for points in lines:
            look = looks[points[0].prompts]
            axes.plot(
                [point.group.output_tokens for point in points],
                [point.group.energy_j for point in points],
                color=look.colour,
                marker=style.MARKERS[look.shape],
                linewidth=0.8,
            )
        groups = [point.group for points in lines for point in points]
        for name, most, values in (
            ("x", style.MOST_DECADES[0], [group.output_tokens for group in groups]),
            ("y", style.MOST_DECADES[1], [group.energy_j for group in groups]),
        ):
            low, high = min(values) / 1.3, max(values) * 1.3
            if spans_widely(values):
                axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
                style.plain_numbers(getattr(axes, f"{name}axis"), math.log10(high / low), most)
            else:
                axes.set(**{f"{name}lim": (0, high)})
        axes.set_xlabel(X_LABEL)
        axes.set_ylabel(Y_LABEL)
    used = {point.prompts for lines in panels.values() for points in lines for point in points}
    entries = [(f"prompt of {n} tokens", look) for n, look in looks.items() if n in used]
    style.legend(figure, entries, estimated=False)
    return figure
