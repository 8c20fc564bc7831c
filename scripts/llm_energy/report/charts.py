"""Specify the interactive plots as Vega-Lite; the page fills in the rows that its filters leave.

Field names are those of the records of ``content.py`` and ``cells.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_energy.figures.style import COLOURS, COMPONENT_COLOURS, ENERGY_LABEL
from llm_energy.records.metrics import COMPONENTS, GROSS, METRICS, SPEED

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
SPREAD = 5  # values over a wider factor than this are shown on a logarithmic axis
MOST_BARS = 40
FRONTS = (
    "Each grey line is the Pareto front of one piece of work on one backend: on it lies what no "
    "other cell and workload of that work beats in both."
)


def charts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give for each plot its title, what it shows in words, and its spec or the reason for none."""
    import altair as alt

    energies = [row["e"] for row in rows]
    backends = {row["backend"] for row in rows}
    no_rows = None if rows else "no cell gave a usable window"
    shared = len({(r["model"], r["precision"], r["workload"]) for r in rows}) < len(rows)
    one_backend = None if len(backends) > 1 and shared else "no work was measured on two backends"
    found = {
        "batch": (
            "Energy by precision and batch size",
            "Mean gross joules per output token with 95 % intervals. A hollow point is an "
            "estimate, a dashed line continuous batching.",
            no_rows,
            lambda: _batch(alt, rows, _axis(alt, ENERGY_LABEL, energies)),
        ),
        "backend": (
            "Energy by backend",
            "Mean gross joules per output token of the same work on each backend, with 95 % "
            f"intervals; of the rows shown, the {MOST_BARS} of lowest energy.",
            no_rows or one_backend,
            lambda: _backend(alt, rows, _axis(alt, ENERGY_LABEL, energies)),
        ),
        "throughput": (
            "Energy against throughput",
            "Down and to the right is better. " + FRONTS,
            no_rows,
            lambda: _trade(alt, rows, "tps", METRICS[SPEED].axis),
        ),
        "latency": (
            "Energy against latency",
            "Down and to the left is better. " + FRONTS,
            no_rows or (None if any(row["e2e"] for row in rows) else "no latency was recorded"),
            lambda: _trade(alt, rows, "e2e", METRICS["e2e_latency_s"].axis),
        ),
        "components": (
            "Energy by component",
            f"Joules per output token of boards, processors and memory; of the rows "
            f"shown, the {MOST_BARS} of lowest energy. A pale bar is an estimate.",
            no_rows,
            lambda: _components(alt, [c for c in COMPONENTS if any(r[c] for r in rows)]),
        ),
        "repeats": (
            "How far repeats scatter",
            "Each point is one window: its joules per output token against the mean of its cell "
            "and workload, in the order of the repeats.",
            no_rows,
            lambda: _repeats(alt),
        ),
    }
    return {
        name: {
            "title": title,
            "caption": caption,
            "reason": reason,
            "spec": None if reason else make().properties(width="container").to_dict(),
        }
        for name, (title, caption, reason, make) in found.items()
    }


def cell_chart() -> dict[str, Any]:
    """Give the spec of a cell's timeline: its metered stretches, and the sampled power."""
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


def _batch(alt, rows: Sequence[Mapping[str, Any]], energy: Mapping[str, Any]):
    sizes = sorted({row["batch"] for row in rows})
    chosen, opacity = _legend(alt)
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X(
            "batch:Q",
            title="batch size",
            scale=alt.Scale(type="log", base=2, nice=False, padding=25),
            axis=alt.Axis(values=sizes, format="d"),
        ),
        y=alt.Y("e:Q", **energy),
        color=_colour(alt, rows),
        opacity=opacity,
    )
    lines = base.mark_line().encode(
        detail=["model:N", "backend:N", "series:N"],
        strokeDash=alt.condition(
            "datum.batching == 'continuous'", alt.value([5, 3]), alt.value([1, 0])
        ),
    )
    return (
        alt.layer(lines, _bars(alt, base), _points(alt, base, rows))
        .add_params(chosen)
        .properties(height=300)
    )


def _backend(alt, rows: Sequence[Mapping[str, Any]], energy: Mapping[str, Any]):
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    colour = alt.Color("backend:N", scale=alt.Scale(domain=backends, range=list(COLOURS)))
    base = (
        alt.Chart(alt.NamedData("rows"))
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
            color=colour,
        )
    )
    return alt.layer(
        base.mark_rule().encode(x="lo:Q", x2="hi:Q"),
        base.mark_point(filled=True, size=60).encode(tooltip=_tooltip(alt)),
    ).properties(height=alt.Step(14))


def _trade(alt, rows: Sequence[Mapping[str, Any]], field: str, title: str):
    known = [row for row in rows if row[field]]
    chosen, opacity = _legend(alt)
    base = (
        alt.Chart(alt.NamedData("rows"))
        .transform_filter(f"isValid(datum.{field})")
        .encode(
            x=alt.X(f"{field}:Q", **_axis(alt, title, [row[field] for row in known])),
            y=alt.Y("e:Q", **_axis(alt, ENERGY_LABEL, [row["e"] for row in known])),
            color=_colour(alt, rows),
            opacity=opacity,
        )
    )
    # What lies on no front is a line of one point, so that a scale has points without any front.
    place = "datum.cell + ' ' + datum.workload"
    front = (
        alt.Chart(alt.NamedData("rows"))
        .transform_filter(f"isValid(datum.{field})")
        .transform_calculate(front=f"isValid(datum.{field}_front) ? datum.{field}_front : {place}")
        .mark_line(color="#999999", strokeWidth=1)
        .encode(x=f"{field}:Q", y="e:Q", detail="front:N")
    )
    return (
        alt.layer(front, _bars(alt, base), _points(alt, base, rows))
        .add_params(chosen)
        .properties(height=300)
    )


def _components(alt, names: Sequence[str]):
    parts = alt.Scale(domain=names, range=[COMPONENT_COLOURS[name] for name in names])
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


def _points(alt, base, rows: Sequence[Mapping[str, Any]]):
    precisions = _precisions(rows)
    shapes = [SHAPES[k % len(SHAPES)] for k in range(len(precisions))]
    return base.mark_point(size=70, strokeWidth=1.5).encode(
        shape=alt.Shape("precision:N", scale=alt.Scale(domain=precisions, range=shapes)),
        fill=alt.condition(
            "datum.status == 'estimated'", alt.value("transparent"), _colour(alt, rows)
        ),
        tooltip=_tooltip(alt),
    )


def _bars(alt, base):
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


def _colour(alt, rows: Sequence[Mapping[str, Any]]):
    precisions = _precisions(rows)
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(precisions))]
    return alt.Color("precision:N", scale=alt.Scale(domain=precisions, range=colours))


def _precisions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["precision"] for row in rows))


def _legend(alt):
    """Let a click on the legend single a precision out."""
    chosen = alt.selection_point(fields=["precision"], bind="legend")
    return chosen, alt.condition(chosen, alt.value(1), alt.value(0.12))


def _axis(alt, title: str, values: Sequence[float]) -> dict[str, Any]:
    """Give title, scale and ticks of an axis: logarithmic where its values span a wide range."""
    if not values or min(values) <= 0 or max(values) <= SPREAD * min(values):
        return {"title": title, "scale": alt.Scale(zero=True)}
    first, last = (math.floor(math.log10(edge)) for edge in (min(values), max(values)))
    ticks = [digit * 10.0**power for power in range(first, last + 2) for digit in (1, 2, 5)]
    return {
        "title": title,
        "scale": alt.Scale(type="log", nice=False, padding=20),
        "axis": alt.Axis(values=ticks, format="~g"),
    }
