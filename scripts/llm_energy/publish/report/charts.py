"""Set the plots in Vega-Lite, for the page; it fills in the rows that its filters leave.

Field names are those of the records of ``content.py`` and ``cells.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_energy.publish.length_plots import X_LABEL, LengthPlot
from llm_energy.publish.plots import (
    BATCH,
    COLOURS,
    ENERGY_LABEL,
    FRONT_COLOUR,
    INTERVALS,
    NO_WINDOW,
    Plot,
    spans_widely,
)
from llm_energy.records.registry.metrics import COMPONENTS, GROSS, METRICS, SPEED

MOST_BARS = 40
ESTIMATES = "What is hollow or pale is an estimate."
FEWEST_JOULES = f"Of the rows shown, the {MOST_BARS} of lowest energy."


def charts(
    plots: Mapping[str, Plot], by_length: Mapping[str, LengthPlot]
) -> dict[str, dict[str, Any]]:
    """Return for each plot its title, what it shows in words, and its spec or why it has none."""
    import altair as alt

    found = {name: _chart(alt, plot) for name, plot in plots.items()}
    for name, plot in by_length.items():
        found[name] = {
            "title": plot.title,
            "caption": plot.caption,
            "reason": None if plot.points else plot.reason,
            "spec": _spec(_lengths(alt, plot)) if plot.points else None,
        }
    measured = any(plot.rows for plot in plots.values())
    found["repeats"] = {
        "title": "How far repeats scatter",
        "caption": "Each point is one window: its joules per output token against the mean of its "
        "cell and workload, in the order of the repeats.",
        "reason": None if measured else NO_WINDOW,
        "spec": _spec(_repeats(alt)) if measured else None,
    }
    return found


def _chart(alt, plot: Plot) -> dict[str, Any]:
    render = {"backend": _backend, "components": _components}.get(plot.name, _points)
    captions = [plot.caption, INTERVALS] if plot.by != "component" else [plot.caption]
    captions += [FEWEST_JOULES] if plot.x is None else []
    return {
        "title": plot.title,
        "caption": " ".join([*captions, ESTIMATES]),
        "reason": None if plot.rows else plot.reason,
        "spec": _spec(render(alt, plot)) if plot.rows else None,
    }


def _spec(chart) -> dict[str, Any]:
    return chart.properties(width="container").to_dict()


def cell_chart() -> dict[str, Any]:
    """Return the spec of a cell's timeline: its metered stretches, and the sampled power."""
    import altair as alt

    kinds = alt.Scale(domain=["idle", "load", "window"], range=["#999999", "#F0E442", "#56B4E9"])
    stretches = alt.Chart(alt.NamedData("stretches"))
    bands = stretches.mark_rect(opacity=0.3).encode(
        x=alt.X("start:Q", title="time in the repeat (s)", scale=alt.Scale(nice=False)),
        x2="end:Q",
        color=alt.Color("kind:N", title="metered", scale=kinds),
        tooltip=[
            "name:N",
            "kind:N",
            alt.Tooltip("start:Q", format=".1f"),
            alt.Tooltip("end:Q", format=".1f"),
        ],
    )
    means = stretches.mark_rule(strokeWidth=2).encode(
        x="start:Q",
        x2="end:Q",
        y=alt.Y("w:Q", title="power (W)", scale=alt.Scale(zero=True)),
        strokeDash=alt.StrokeDash(
            "status:N",
            title="mean power",
            scale=alt.Scale(domain=["measured", "estimated"], range=[[1, 0], [4, 3]]),
        ),
        tooltip=[
            "name:N",
            "status:N",
            "parts:N",
            alt.Tooltip("w:Q", title="mean power (W)", format=".3s"),
        ],
    )
    names = (
        stretches.transform_filter("datum.kind == 'window'")
        .mark_text(baseline="top", dy=2, fontSize=10)
        .encode(x=alt.X("middle:Q"), y=alt.value(0), text="name:N")
    )
    sampled = (
        alt.Chart(alt.NamedData("trace"))
        .mark_line(strokeWidth=1, color=COLOURS[0])
        .encode(x="t:Q", y="w:Q")
    )
    chart = alt.layer(bands, sampled, means, names).properties(width="container", height=220)
    return chart.to_dict()


def _points(alt, plot: Plot):
    """Draw energy against a second quantity, with the lines that join rows."""
    chosen, opacity = _legend(alt)
    place, line, front = (f"{plot.name}_{part}" for part in ("x", "line", "front"))
    energy = _axis(alt, ENERGY_LABEL, [row.statistics[GROSS].mean for row in plot.rows])
    at = {"x": alt.X(f"{place}:Q", **_x_axis(alt, plot)), "y": alt.Y("e:Q", **energy)}
    base = (
        alt.Chart(alt.NamedData("rows"))
        .transform_filter(f"isValid(datum.{place})")
        .encode(color=_colour(alt, plot), opacity=opacity, **at)
    )
    fronts = (
        _joined(alt.Chart(alt.NamedData("rows")).transform_filter(f"isValid(datum.{place})"), front)
        .mark_line(color=FRONT_COLOUR, strokeWidth=1)
        .encode(detail="joined:N", **at)
    )
    lines = (
        _joined(base, line)
        .mark_line()
        .encode(
            detail="joined:N",
            strokeDash=alt.condition(
                "datum.batching == 'continuous'", alt.value([5, 3]), alt.value([1, 0])
            ),
        )
    )
    kinds = {one.kind == "front" for one in plot.lines}
    joined = [chart for chart, kind in ((fronts, True), (lines, False)) if kind in kinds]
    return (
        alt.layer(*joined, _bars(base), _marks(alt, base, plot))
        .add_params(chosen)
        .properties(height=300)
    )


def _backend(alt, plot: Plot):
    energy = _axis(alt, ENERGY_LABEL, [row.statistics[GROSS].mean for row in plot.rows])
    base = (
        alt.Chart(alt.NamedData("rows"))
        .transform_filter(f"datum.in_{plot.name}")
        .transform_calculate(work="datum.model + ' ' + datum.precision + ' ' + datum.workload")
        .transform_joinaggregate(least="min(e)", groupby=["work"])
        .transform_window(rank="dense_rank()", sort=[alt.SortField("least"), alt.SortField("work")])
        .transform_filter(f"datum.rank <= {MOST_BARS}")
        .encode(
            y=alt.Y(
                "work:N", title=None, sort=alt.SortField("least"), axis=alt.Axis(labelLimit=200)
            ),
            yOffset="backend:N",
            x=alt.X("e:Q", **energy),
            color=_colour(alt, plot),
        )
    )
    return alt.layer(
        base.mark_rule().encode(x="lo:Q", x2="hi:Q"),
        base.mark_point(filled=True, size=60).encode(tooltip=_tooltip(alt)),
    ).properties(height=alt.Step(14))


def _components(alt, plot: Plot):
    names = [name for name in plot.looks if any(name in row.components for row in plot.rows)]
    parts = alt.Scale(domain=names, range=[plot.looks[name].colour for name in names])
    words = json.dumps(COMPONENTS)
    legend = alt.Legend(labelExpr=f"{words}[datum.label]")
    return (
        alt.Chart(alt.NamedData("parts"))
        .transform_window(rank="dense_rank()", sort=[alt.SortField("e"), alt.SortField("label")])
        .transform_filter(f"datum.rank <= {MOST_BARS}")
        .transform_fold(names, as_=["component", "j"])
        .transform_filter("isValid(datum.j)")
        .transform_calculate(part=f"{words}[datum.component]")
        .mark_bar()
        .encode(
            x=alt.X("sum(j):Q", title=ENERGY_LABEL),
            y=alt.Y("label:N", title=None, sort=alt.SortField("e"), axis=alt.Axis(labelLimit=200)),
            color=alt.Color("component:N", title=None, scale=parts, sort=names, legend=legend),
            order=alt.Order("component:N", sort="descending"),
            opacity=alt.condition("datum.status == 'estimated'", alt.value(0.45), alt.value(1)),
            tooltip=[
                "label:N",
                alt.Tooltip("part:N", title="component"),
                "status:N",
                alt.Tooltip("j:Q", title=METRICS[GROSS].head, format=".3"),
            ],
        )
        .properties(height=alt.Step(18))
    )


def _lengths(alt, plot: LengthPlot):
    looks = plot.looks
    prompts = {
        "scale": alt.Scale(domain=[*looks], range=[look.colour for look in looks.values()]),
        "legend": alt.Legend(title="prompt tokens"),
    }
    shapes = alt.Scale(domain=[*looks], range=[look.shape for look in looks.values()])
    energy = _axis(alt, plot.y_label, [point.energy_j for point in plot.points])
    base = alt.Chart(alt.NamedData(plot.name)).encode(
        x=alt.X("out:Q", **_axis(alt, X_LABEL, [point.output_tokens for point in plot.points])),
        y=alt.Y("j:Q", **energy),
        color=alt.Color("prompts:N", **prompts),
        tooltip=[
            *(f"{name}:N" for name in ("panel", "workload", "prompts")),
            alt.Tooltip("out:Q", title=X_LABEL, format=".0f"),
            alt.Tooltip("n:Q", title="requests"),
            alt.Tooltip("j:Q", title=plot.y_label, format=".3"),
        ],
    )
    lines = base.mark_line(strokeWidth=1).encode(
        y=alt.Y("line:Q", **energy), detail=["panel:N", "prompts:N"]
    )
    points = base.mark_point(filled=True, size=50).encode(
        shape=alt.Shape("prompts:N", scale=shapes)
    )
    bars = [_bars(base)] if any(point.low_j is not None for point in plot.points) else []
    return alt.layer(lines, *bars, points).properties(height=300)


def _repeats(alt):
    return (
        alt.Chart(alt.NamedData("windows"))
        .mark_circle(size=45, opacity=0.6)
        .encode(
            x=alt.X("repeat:O", title="repeat", axis=alt.Axis(labelAngle=0)),
            xOffset="jitter:Q",
            y=alt.Y("off:Q", title="difference from the mean (%)"),
            color=alt.Color(
                "verdict:N",
                scale=alt.Scale(domain=["valid", "degraded"], range=[COLOURS[0], COLOURS[3]]),
            ),
            tooltip=[
                "cell:N",
                "workload:N",
                "repeat:O",
                "verdict:N",
                alt.Tooltip("off:Q", title="difference (%)", format="+.2f"),
            ],
        )
        .properties(height=220)
    )


def _joined(base, line: str):
    """Number the lines; what lies on none is one of a single point, so that a scale has points."""
    place = "datum.cell + ' ' + datum.workload"
    return base.transform_calculate(joined=f"isValid(datum.{line}) ? datum.{line} : {place}")


def _marks(alt, base, plot: Plot):
    names, shapes = _used(plot), [plot.looks[name].shape for name in _used(plot)]
    return base.mark_point(size=70, strokeWidth=1.5).encode(
        shape=alt.Shape(f"{plot.by}:N", scale=alt.Scale(domain=names, range=shapes)),
        fill=alt.condition(
            "datum.status == 'estimated'", alt.value("transparent"), _colour(alt, plot)
        ),
        tooltip=_tooltip(alt),
    )


def _bars(base):
    return (
        base.transform_filter("isValid(datum.lo)")
        .mark_rule(strokeWidth=1.5)
        .encode(y="lo:Q", y2="hi:Q")
    )


def _tooltip(alt) -> list:
    return [
        "model:N",
        "backend:N",
        "precision:N",
        "workload:N",
        alt.Tooltip("gross:N", title=METRICS[GROSS].head),
        alt.Tooltip("rate:N", title=METRICS[SPEED].head),
        alt.Tooltip("n:Q", title="repeats"),
        alt.Tooltip("status:N", title="energy"),
    ]


def _colour(alt, plot: Plot):
    names, colours = _used(plot), [plot.looks[name].colour for name in _used(plot)]
    return alt.Color(f"{plot.by}:N", scale=alt.Scale(domain=names, range=colours))


def _used(plot: Plot) -> list[str]:
    """Return the names in a plot's legend, in the order of its looks."""
    there = {getattr(row, plot.by) for row in plot.rows}
    return [name for name in plot.looks if name in there]


def _legend(alt):
    """Let a click on the legend single a precision out."""
    chosen = alt.selection_point(fields=["precision"], bind="legend")
    return chosen, alt.condition(chosen, alt.value(1), alt.value(0.12))


def _x_axis(alt, plot: Plot) -> dict[str, Any]:
    if plot.x != BATCH:
        return _axis(alt, plot.x_label, [plot.x_of(row) for row in plot.rows])
    sizes = sorted({row.batch_size for row in plot.rows})
    return {
        "title": plot.x_label,
        "scale": alt.Scale(type="log", base=2, nice=False, padding=25),
        "axis": alt.Axis(values=sizes, format="d"),
    }


def _axis(alt, title: str, values: Sequence[float]) -> dict[str, Any]:
    """Return title, scale and ticks of an axis: logarithmic where its values span a wide range."""
    if not spans_widely(values):
        return {"title": title, "scale": alt.Scale(zero=True)}
    first, last = (math.floor(math.log10(edge)) for edge in (min(values), max(values)))
    ticks = [digit * 10.0**power for power in range(first, last + 2) for digit in (1, 2, 5)]
    return {
        "title": title,
        "scale": alt.Scale(type="log", nice=False, padding=20),
        "axis": alt.Axis(values=ticks, format="~g"),
    }
