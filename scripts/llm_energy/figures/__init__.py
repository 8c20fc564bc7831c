"""Draw the figures of a sweep as SVG and PDF, and say why one is not drawn.

A figure shows what there is, for one cell as for forty. Past ``MOST_PANELS`` panels it leaves the
rest out, and its caption says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_energy.comparison_records import ParetoFront
from llm_energy.figures import course, energy, load, style
from llm_energy.files import write_bytes, write_json
from llm_energy.records import Aggregate, AggregateRow, Measurement, read_record
from llm_energy.records.metrics import GROSS
from llm_energy.rows import one_per_place, representatives, with_energy
from llm_energy.timeline import timeline

MOST_PANELS, MOST_ROWS = 24, 120
INTERVALS = "Bars are 95 % intervals of the mean over repeats, for comparisons on one board."
SIMULATED = "SIMULATED: none of these joules was ever drawn."
NO_WINDOW = "no cell gave a usable window"


@dataclass(frozen=True)
class Material:
    """What figures are made of: one row a cell and workload, every row, fronts, a repeat a cell."""

    rows: Sequence[AggregateRow]
    every_row: Sequence[AggregateRow]
    pareto: Sequence[ParetoFront]
    repeats: Mapping[str, Measurement]
    root: Path


@dataclass(frozen=True)
class Kind:
    """One figure of the set: ``panels`` gives its data by panel title, ``draw`` draws them."""

    name: str
    title: str
    caption: str
    panels: Callable[[Material], Mapping[str, Any]]
    draw: Callable[[Mapping[str, Any]], Any]
    reason: str = NO_WINDOW


@dataclass(frozen=True)
class Drawn:
    """One figure with its files by suffix, or the reason why there is nothing to draw."""

    name: str
    title: str
    caption: str
    files: dict[str, bytes]
    reason: str | None = None


def _by_cell(material: Material) -> Mapping[str, Measurement]:
    return {cell.replace("--", ", "): repeat for cell, repeat in material.repeats.items()}


def _timelines(material: Material) -> Mapping[str, Any]:
    found = {name: timeline(one, material.root) for name, one in _by_cell(material).items()}
    return {name: one for name, one in found.items() if one.stretches}


def _warmed_up(material: Material) -> Mapping[str, Measurement]:
    return {
        name: repeat
        for name, repeat in _by_cell(material).items()
        if any(map(course.is_warmed_up, repeat.windows))
    }


KINDS = (
    Kind(
        "energy_by_batch",
        "Energy by precision and batch size",
        "Gross joules per output token. Dashed and a little to the right: continuous batching. "
        + INTERVALS,
        lambda m: energy.grouped(load.all_there_at_once(m.rows), "model", "backend"),
        energy.by_batch,
    ),
    Kind(
        "energy_by_backend",
        "Energy by backend",
        f"Gross joules per output token of the same work on each backend. {INTERVALS}",
        lambda m: energy.grouped(energy.on_several_backends(m.rows), "model", "workload"),
        energy.by_backend,
        "no work was measured on two backends",
    ),
    Kind(
        "energy_by_component",
        "Energy by component",
        "Gross joules per output token of boards, processors and memory; each bar is one sum. "
        f"Measured and estimated joules are never added. {INTERVALS}",
        lambda m: energy.grouped(m.every_row, "model", "backend", "precision"),
        energy.by_component,
    ),
    Kind(
        "energy_trade",
        "Energy against throughput and latency",
        "Each grey line is the Pareto front of one piece of work: on it lies what nothing else of "
        f"that work beats in energy and in the other quantity at once. {INTERVALS}",
        lambda m: energy.trades(energy.grouped(m.rows, "model", "backend"), m.pareto),
        energy.trade,
    ),
    Kind(
        "energy_over_load",
        "Energy over load",
        "Gross joules per output token against the rate at which requests arrive, the power of "
        f"waiting included. {INTERVALS}",
        lambda m: energy.grouped(load.timed(m.rows), "model", "backend"),
        load.over_load,
        "no workload has timed traffic",
    ),
    Kind(
        "time_course",
        "Power over one repeat",
        "The first usable repeat of each cell, from its first baseline to its last.",
        _timelines,
        course.time_course,
    ),
    Kind(
        "warm_up",
        "Warm-up",
        "How long each warm-up pass took, as a multiple of the last one of its workload, in the "
        "first usable repeat of each cell.",
        _warmed_up,
        course.warm_up,
        "no repeat had more than one warm-up pass",
    ),
)


def draw(
    aggregates: Sequence[Aggregate], pareto: Sequence[ParetoFront], root: Path = Path()
) -> list[Drawn]:
    """Draw every figure that the aggregates have something for, with the fronts ``pareto``.

    Paths of measurements and power traces are taken relative to ``root``.
    """
    import matplotlib

    rows = one_per_place(with_energy(aggregates))
    chosen = representatives(rows)
    shown = list(chosen)[:MOST_PANELS]
    every_row = [row for aggregate in aggregates for row in aggregate.rows if row.n]
    material = Material(
        _of_lowest_energy(rows),
        _of_lowest_energy(every_row),
        pareto,
        {cell: read_record(Measurement, root / chosen[cell]) for cell in shown},
        root,
    )
    note = SIMULATED if any(row.simulated for row in rows) else ""
    if len(rows) > MOST_ROWS:
        note = (
            f"Of {len(rows)} cells and workloads, the {MOST_ROWS} of lowest energy. {note}".rstrip()
        )
    with matplotlib.rc_context(style.RC):
        return [
            _drawn(kind, kind.panels(material), len(chosen) - len(shown), note) for kind in KINDS
        ]


def _of_lowest_energy(rows: Sequence[AggregateRow]) -> list[AggregateRow]:
    """Give all rows in their order, or of more than a figure can show those of lowest energy."""
    kept = sorted(rows, key=lambda row: row.statistics[GROSS].mean)[:MOST_ROWS]
    places = {id(row) for row in kept}
    return [row for row in rows if id(row) in places]


def _drawn(kind: Kind, panels: Mapping[str, Any], cells_not_read: int, note: str) -> Drawn:
    if not panels:
        return Drawn(kind.name, kind.title, kind.caption, {}, kind.reason)
    shown = dict(list(panels.items())[:MOST_PANELS])
    over = len(panels) - len(shown) + (cells_not_read if kind.panels in PER_CELL else 0)
    caption = kind.caption + (f" {over} more panels are left out." if over else "")
    figure = kind.draw(shown)
    return Drawn(
        kind.name,
        kind.title,
        f"{caption} {note}".rstrip(),
        style.render(figure, kind.title, note),
    )


PER_CELL = (_timelines, _warmed_up)


def write_figures(
    aggregates: Sequence[Aggregate],
    pareto: Sequence[ParetoFront],
    folder: Path,
    root: Path = Path(),
) -> None:
    """Write every figure that can be drawn, and ``index.json``, which names them all.

    Its entries have ``name``, ``title``, ``caption``, ``files`` and ``reason``, which says why a
    figure has no files.
    """
    drawn = draw(aggregates, pareto, root)
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
