"""Draw the figures of a sweep as SVG and PDF, and say why one is not drawn.

A figure shows what there is, for one cell as for forty. Past ``MOST_PANELS`` panels it leaves the
rest out, and its caption says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llm_energy.analysis.grouping.rows import one_per_place, representatives, with_energy
from llm_energy.core.files import write_bytes, write_json
from llm_energy.publish import style
from llm_energy.publish.figures import energy, lengths, over_time
from llm_energy.publish.length_plots import LengthPlot, length_plots
from llm_energy.publish.plots import INTERVALS, NO_WINDOW, Plot, describe
from llm_energy.publish.timeline import timeline
from llm_energy.records import Aggregate, AggregateRow, Measurement, read_record
from llm_energy.records.comparison import ParetoFront
from llm_energy.records.phases import Phases
from llm_energy.records.registry.metrics import GROSS

MOST_PANELS, MOST_ROWS = 24, 120
# By figure: the plots that it shows, and what draws their panels.
FROM_PLOTS = {
    "energy_by_batch": (("batch",), energy.points),
    "energy_by_backend": (("backend",), energy.by_backend),
    "energy_by_component": (("components",), energy.by_component),
    "energy_trade": (("throughput", "latency"), energy.points),
    "energy_over_load": (("load",), energy.points),
}


@dataclass(frozen=True)
class Kind:
    """One figure of the set: its data by panel title, what draws them, and how many are left out.

    ``reason`` says why there is nothing to draw where there is no panel.
    """

    name: str
    title: str
    caption: str
    panels: Mapping[str, Any]
    draw: Callable[[Mapping[str, Any]], Any]
    reason: str = NO_WINDOW
    left_out: int = 0


@dataclass(frozen=True)
class Drawn:
    """One figure with its files by suffix, or the reason why there is nothing to draw."""

    name: str
    title: str
    caption: str
    files: dict[str, bytes]
    reason: str | None = None


def _from_plots(plots: Mapping[str, Plot]) -> Iterator[Kind]:
    for name, (names, drawing) in FROM_PLOTS.items():
        first, *others = own = [plots[one] for one in names]
        title = " and ".join([first.title, *(plot.name for plot in others)])
        captions = dict.fromkeys([*(plot.caption for plot in own), INTERVALS])
        panels = energy.panels_of(own)
        yield Kind(name, title, " ".join(captions), panels, drawing, first.reason)


def _from_lengths(plots: Mapping[str, LengthPlot]) -> Iterator[Kind]:
    for name, own in (("energy_by_request", "requests"), ("energy_over_lengths", "lengths")):
        plot = plots[own]
        drawing = partial(lengths.by_length, plot=plot)
        yield Kind(name, plot.title, plot.caption, plot.panels, drawing, plot.reason)


def _from_repeats(repeats: Mapping[str, Measurement], root: Path, left_out: int) -> Iterator[Kind]:
    by_cell = {cell.replace("--", ", "): repeat for cell, repeat in repeats.items()}
    timelines = {name: timeline(repeat, root) for name, repeat in by_cell.items()}
    yield Kind(
        "time_course",
        "Power over one repeat",
        "The first usable repeat of each cell, from its first baseline to its last.",
        {name: one for name, one in timelines.items() if one.stretches},
        over_time.time_course,
        left_out=left_out,
    )
    warmed = {
        name: repeat
        for name, repeat in by_cell.items()
        if any(map(over_time.is_warmed_up, repeat.windows))
    }
    yield Kind(
        "warm_up",
        "Warm-up",
        "How long each warm-up pass took, as a multiple of the last one of its workload, in the "
        "first usable repeat of each cell.",
        warmed,
        over_time.warm_up,
        "no repeat had more than one warm-up pass",
        left_out,
    )


def draw(
    aggregates: Sequence[Aggregate],
    pareto: Sequence[ParetoFront],
    root: Path = Path(),
    phases: Phases | None = None,
) -> list[Drawn]:
    """Draw every figure that the records have something for, with the fronts ``pareto``.

    Paths of measurements and power traces are taken relative to ``root``.
    """
    import matplotlib

    rows = one_per_place(with_energy(aggregates))
    chosen = representatives(rows)
    shown = list(chosen)[:MOST_PANELS]
    every_row = [row for aggregate in aggregates for row in aggregate.rows if row.n]
    repeats = {cell: read_record(Measurement, root / chosen[cell]) for cell in shown}
    plots = describe(_of_lowest_energy(rows), _of_lowest_energy(every_row), pareto)
    kinds = [
        *_from_plots(plots),
        *_from_lengths(length_plots(every_row, phases)),
        *_from_repeats(repeats, root, len(chosen) - len(shown)),
    ]
    note = style.SIMULATED if any(row.simulated for row in rows) else ""
    if len(rows) > MOST_ROWS:
        note = (
            f"Of {len(rows)} cells and workloads, the {MOST_ROWS} of lowest energy. {note}".rstrip()
        )
    with matplotlib.rc_context(style.RC):
        return [_drawn(kind, note) for kind in kinds]


def _of_lowest_energy(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Return all rows in their order, or of more than a figure can show those of lowest energy."""
    kept = sorted(rows, key=lambda row: row.statistics[GROSS].mean)[:MOST_ROWS]
    places = {id(row) for row in kept}
    return [row for row in rows if id(row) in places]


def _drawn(kind: Kind, note: str) -> Drawn:
    if not kind.panels:
        return Drawn(kind.name, kind.title, kind.caption, {}, kind.reason)
    shown = dict(list(kind.panels.items())[:MOST_PANELS])
    over = len(kind.panels) - len(shown) + kind.left_out
    caption = kind.caption + (f" {over} more panels are left out." if over else "")
    figure = kind.draw(shown)
    return Drawn(
        kind.name,
        kind.title,
        f"{caption} {note}".rstrip(),
        style.render(figure, kind.title, note),
    )


def write_figures(
    aggregates: Sequence[Aggregate],
    pareto: Sequence[ParetoFront],
    folder: Path,
    root: Path = Path(),
    phases: Phases | None = None,
) -> None:
    """Write every figure that can be drawn, and ``index.json``, which names them all.

    Its entries have ``name``, ``title``, ``caption``, ``files`` and ``reason``, which says why a
    figure has no files.
    """
    drawn = draw(aggregates, pareto, root, phases)
    for figure in drawn:
        for suffix, content in figure.files.items():
            write_bytes(folder / f"{figure.name}.{suffix}", content)
    index = [
        {
            "name": figure.name,
            "title": figure.title,
            "caption": figure.caption,
            "files": [f"{figure.name}.{suffix}" for suffix in figure.files],
            "reason": figure.reason,
        }
        for figure in drawn
    ]
    write_json(folder / "index.json", index)
