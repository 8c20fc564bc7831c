"""Figures of what a token costs: by batch size, by backend, by component, against speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llm_energy.comparison_records import ParetoFront
from llm_energy.figures import style
from llm_energy.records import AggregateRow
from llm_energy.records.metrics import COMPONENTS, GROSS, METRICS, OF_COMPONENT, SPEED
from llm_energy.rows import key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTINUOUS, ASIDE = "continuous", 1.1  # how far beside the others, as a factor of the batch size
TRADES = (SPEED, "e2e_latency_s")


Groups = Mapping[str, Sequence[AggregateRow]]  # rows by the title of their panel


def by_batch(groups: Groups) -> Figure:
    """Draw energy against batch size: a panel per model and backend, a line per precision."""
    rows = _all(groups)
    looks = style.looks(row.precision for row in rows)
    figure, panels = style.panels(len(groups))
    for axes, (title, own) in zip(panels, groups.items(), strict=True):
        axes.set_title(title)
        for joined in series(own):
            look, continuous = looks[joined[0].precision], joined[0].batching == CONTINUOUS
            sizes = [row.batch_size * (ASIDE if continuous else 1) for row in joined]
            means = [row.statistics[GROSS].mean for row in joined]
            axes.plot(sizes, means, "--" if continuous else "-", color=look.colour, linewidth=1)
            for size, row in zip(sizes, joined, strict=True):
                style.point(axes, size, row.statistics[GROSS], look, style.is_estimated(row))
        _batch_axis(axes, sorted({row.batch_size for row in own}))
        style.energy_axis(axes, [row.statistics[GROSS] for row in own], style.ENERGY_LABEL)
    style.legend(figure, list(looks.items()), any(map(style.is_estimated, rows)))
    return figure


def by_backend(groups: Groups) -> Figure:
    """Draw bars of energy by precision, one per backend: a panel per model and workload."""
    rows = _all(groups)
    looks = style.looks(row.backend for row in rows)
    figure, panels = style.panels(len(groups))
    width = 0.8 / len(looks)
    for axes, (title, own) in zip(panels, groups.items(), strict=True):
        axes.set_title(title)
        places = {name: k for k, name in enumerate(dict.fromkeys(row.precision for row in own))}
        for row in own:
            shift = (list(looks).index(row.backend) - (len(looks) - 1) / 2) * width
            _bar(axes, places[row.precision] + shift, 0.9 * width, row, looks[row.backend].colour)
        axes.set_xticks(list(places.values()), list(places))
        axes.set_xlim(-0.6, len(places) - 0.4)
        axes.grid(False, axis="x")
        axes.set_ylabel(style.ENERGY_LABEL)
    _bar_legend(figure, {name: look.colour for name, look in looks.items()}, rows)
    return figure


def by_component(groups: Groups) -> Figure:
    """Draw bars split by GPU, CPU and memory, measured and estimated each in a bar of its own."""
    rows = _all(groups)
    figure, panels = style.panels(len(groups), (3.1, 2.2))
    for axes, (title, own) in zip(panels, groups.items(), strict=True):
        axes.set_title(title)
        for place, row in enumerate(own):
            base = 0.0
            for name in COMPONENTS:
                part = row.statistics.get(OF_COMPONENT[name])
                if part is None or part.mean is None:
                    continue
                axes.barh(
                    place,
                    part.mean,
                    left=base,
                    color=style.COMPONENT_COLOURS[name],
                    edgecolor="white",
                    hatch=style.HATCH if style.is_estimated(row) else None,
                )
                base += part.mean
            whole = row.statistics[GROSS]
            axes.errorbar(
                [whole.mean], [place], xerr=style.error_bar(whole), color="#333333", capsize=2
            )
        axes.set_yticks(range(len(own)), [_component_label(row) for row in own])
        axes.set_xlim(0, None)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel(style.ENERGY_LABEL)
    used = {
        label: style.COMPONENT_COLOURS[name]
        for name, label in COMPONENTS.items()
        if any(name in row.components for row in rows)
    }
    _bar_legend(figure, used, rows)
    return figure


def trade(panels: Mapping[str, Trade]) -> Figure:
    """Draw energy against throughput and latency with the fronts of the compare stage."""
    from matplotlib.patheffects import withStroke

    rows = [row for one in panels.values() for row in one.rows]
    looks = style.looks(row.precision for row in rows)
    figure, drawn = style.panels(len(panels))
    for axes, (title, (own, fronts, name, label, less_is_better)) in zip(
        drawn, panels.items(), strict=True
    ):
        axes.set_title(title.partition(":")[0])
        for row in own:
            statistic = row.statistics[name]
            style.point(
                axes,
                statistic.mean,
                row.statistics[GROSS],
                looks[row.precision],
                style.is_estimated(row),
            )
            if statistic.ci_low is not None:
                axes.hlines(
                    row.statistics[GROSS].mean,
                    statistic.ci_low,
                    statistic.ci_high,
                    color=looks[row.precision].colour,
                    linewidth=1,
                )
        for best in fronts:
            ends = [(row.statistics[name].mean, row.statistics[GROSS].mean) for row in best]
            axes.plot(*zip(*ends, strict=True), color="#999999", linewidth=0.8, zorder=1)
            for row, end in zip(best, ends, strict=True):
                axes.annotate(
                    f"{row.precision} {row.workload}",
                    end,
                    xytext=(5, 4),
                    textcoords="offset points",
                    fontsize=6,
                    color="#333333",
                    path_effects=[withStroke(linewidth=2, foreground="white")],
                    zorder=4,
                )
        values = [row.statistics[name].mean for row in own]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
            style.plain_numbers(axes.xaxis)
        axes.set_xlabel(f"{label}, {'less' if less_is_better else 'more'} is better")
        style.energy_axis(axes, [row.statistics[GROSS] for row in own], style.ENERGY_LABEL)
    style.legend(figure, list(looks.items()), any(map(style.is_estimated, rows)))
    return figure


class Trade(NamedTuple):
    """The rows of one panel that have a second quantity, their fronts, and which quantity it is."""

    rows: Sequence[AggregateRow]
    fronts: Sequence[Sequence[AggregateRow]]
    name: str
    label: str
    less_is_better: bool


def trades(groups: Groups, pareto: Sequence[ParetoFront]) -> dict[str, Trade]:
    """Return for each group a panel per quantity to trade energy against, where it is known.

    A front of ``pareto`` is drawn through those of its rows that the panel shows.
    """
    found = {}
    for title, own in groups.items():
        for metric in (METRICS[name] for name in TRADES):
            name = metric.name
            rows = [row for row in own if row.statistics[name].mean is not None]
            if rows:
                shown = {key(row): row for row in rows}
                fronts = [
                    [shown[p] for p in front.places if p in shown]
                    for front in pareto
                    if front.against == name
                ]
                less = metric.better == "less"
                found[f"{title}: {name}"] = Trade(
                    rows, [f for f in fronts if f], name, metric.axis, less
                )
    return found


def grouped(rows: Iterable[AggregateRow], *fields: str) -> dict[str, list[AggregateRow]]:
    """Group rows by these fields, under a title that names their values."""
    found: dict[str, list[AggregateRow]] = {}
    for row in rows:
        found.setdefault(", ".join(getattr(row, field) for field in fields), []).append(row)
    return found


def on_several_backends(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Give the rows of what more than one backend was asked to do."""
    groups = grouped(rows, "model", "precision", "workload").values()
    return [r for own in groups if len({r.backend for r in own}) > 1 for r in own]


def _all(groups: Groups) -> list[AggregateRow]:
    return [row for own in groups.values() for row in own]


def series(rows: Sequence[AggregateRow]) -> list[list[AggregateRow]]:
    """Give the rows to connect: one precision, one way of batching, in the order of batch size.

    Workloads that share a batch size differ in something else, so each is in a series of its own.
    """
    found: dict[tuple[str, str | None, int], list[AggregateRow]] = {}
    seen: Counter[tuple[str, str | None, int]] = Counter()
    for row in sorted(rows, key=lambda row: row.batch_size):
        rank = seen[row.precision, row.batching, row.batch_size]
        seen[row.precision, row.batching, row.batch_size] += 1
        found.setdefault((row.precision, row.batching, rank), []).append(row)
    return list(found.values())


def _batch_axis(axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xlabel("batch size")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)


def _bar(axes, place: float, width: float, row: AggregateRow, colour: str) -> None:
    statistic = row.statistics[GROSS]
    axes.bar(
        place,
        statistic.mean,
        width,
        color=colour,
        edgecolor="white",
        hatch=style.HATCH if style.is_estimated(row) else None,
    )
    axes.errorbar(
        [place], [statistic.mean], yerr=style.error_bar(statistic), color="#333333", capsize=2
    )


def _bar_legend(figure: Figure, colours: dict[str, str], rows: Sequence[AggregateRow]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, edgecolor="white") for colour in colours.values()]
    labels = list(colours)
    if any(map(style.is_estimated, rows)):
        handles.append(Patch(facecolor="#999999", edgecolor="white", hatch=style.HATCH))
        labels.append("hatched: estimated by a model, not measured")
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)))


def _component_label(row: AggregateRow) -> str:
    return f"{row.workload} (est.)" if style.is_estimated(row) else row.workload
