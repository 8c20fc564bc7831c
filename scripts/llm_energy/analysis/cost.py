"""Say before a sweep runs how long it takes, what energy it needs, and how many repeats it lacks.

Times and powers come from what the sweep has already measured; what was never measured is bounded
from below by what the protocol asks for, and says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_energy.analysis.energy.accounting import sums
from llm_energy.analysis.statistics.format import significant
from llm_energy.analysis.statistics.intervals import serial_guard, t_quantile
from llm_energy.core.units import kilowatt_hours_from_joules, readable_duration
from llm_energy.inputs.currency import current
from llm_energy.records import (
    Measurement,
    MetricsTable,
    Plan,
    PlannedCell,
    Protocol,
    Spec,
    Workload,
    read_record,
)

MOST_REPEATS = 99
LATEST = 3  # repeats of a cell that its time and power are taken from


@dataclass(frozen=True)
class CellCost:
    """What is left of one cell. ``repeat_s`` is the time of a repeat, ``at_least`` if only a bound.

    ``energy_j`` is what the repeats that are left will draw, by status (``measured``,
    ``estimated``, or ``given`` where the power was), empty where nothing is known of it.
    """

    cell: str
    done: int
    left: int
    repeat_s: float
    at_least: bool
    energy_j: Mapping[str, float]

    @property
    def left_s(self) -> float:
        """Return the seconds that the repeats that are left will take."""
        return self.left * self.repeat_s


def least_repeat_s(spec: Spec) -> float:
    """Return the shortest time of a repeat: its baselines and windows, without load and warm-up."""
    protocol = spec.protocol
    return (
        protocol.deep_idle_duration_s
        + 2 * protocol.loaded_idle_duration_s
        + math.fsum(_window_s(workload, protocol) for workload in spec.workloads)
    )


def _window_s(workload: Workload, protocol: Protocol) -> float:
    """Return the least time of one window, with its rest, the ramp of its traffic and hot idle."""
    traffic = workload.parameters.get("traffic_simulation")
    lasts_s = protocol.window_min_duration_s
    if traffic:
        lasts_s = traffic["ramp_s"] + traffic["horizon_s"]
    return lasts_s + protocol.cooldown_duration_s + protocol.hot_idle_duration_s


def sweep_costs(plan: Plan, power_w: float | None = None) -> list[CellCost]:
    """Return what is left of every cell of ``plan.json`` that can be measured.

    A cell takes as long, and draws as much, as its last repeats did; while it has none, as those of
    the other cells on its backend. ``power_w``, if given, replaces the power that they had.
    """
    cells = plan.planned
    done = {c.cell: current(zip(c.measurements, c.specs, strict=True)) for c in cells}
    latest = {cell: [_read(path) for path in paths[-LATEST:]] for cell, paths in done.items()}
    return [
        _cell_cost(
            read_record(Spec, cell.specs[0]),
            len(cell.specs),
            len(done[cell.cell]),
            latest[cell.cell] or _of_backend(cells, latest, cell.backend),
            power_w,
        )
        for cell in cells
    ]


def _read(path: Path) -> Measurement:
    return read_record(Measurement, path)


def _of_backend(
    cells: Sequence[PlannedCell], latest: Mapping[str, list[Measurement]], backend: str
) -> list[Measurement]:
    return [m for cell in cells if cell.backend == backend for m in latest[cell.cell]]


def _cell_cost(
    spec: Spec, planned: int, done: int, known: Sequence[Measurement], power_w: float | None
) -> CellCost:
    known = [m for m in known if m.outcome == "ok"]
    repeat_s = least_repeat_s(spec)
    if known:
        repeat_s = statistics.fmean(m.end_s - m.clock.monotonic_s for m in known)
    powers = _mean_powers_w(known) if power_w is None else {"given": power_w}
    energy = {status: power * repeat_s * (planned - done) for status, power in powers.items()}
    return CellCost(spec.cell, done, planned - done, repeat_s, not known, energy)


def _mean_powers_w(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Return the mean power over everything that was metered, by status."""
    joules: dict[str, float] = {}
    metered_s = 0.0
    for measurement in measurements:
        intervals = [*measurement.baselines, measurement.load]
        intervals += [window.interval for window in measurement.windows]
        for interval in intervals:
            if interval is not None:
                metered_s += interval.duration_s
                for status, total in sums(interval).items():
                    joules[status] = joules.get(status, 0.0) + total.energy_j
    return {status: energy_j / metered_s for status, energy_j in joules.items() if metered_s > 0}


def repeats_needed(values: Sequence[float], target_percent: float) -> int | None:
    """Return how many repeats make half the 95 % t-interval narrower than the target.

    ``values`` are a quantity of the repeats so far; their coefficient of variation stands for that
    of all. None with fewer than two values, or where MOST_REPEATS are not enough. The smallest n
    with t(n - 1) g CV / sqrt(n) <= target, where g guards against serial correlation.

    >>> repeats_needed([0.99, 1.0, 1.01], 2.0)
    4
    """
    if len(values) < 2 or not (mean := statistics.fmean(values)):
        return None
    cv = statistics.stdev(values) / abs(mean)
    wanted = target_percent / 100
    enough = (
        n
        for n in range(2, MOST_REPEATS + 1)
        if t_quantile(n - 1) * serial_guard(n) * cv / math.sqrt(n) <= wanted
    )
    return next(enough, None)


def report(costs: Sequence[CellCost], sweep: str) -> str:
    """Say it in lines for a terminal, the sum first."""
    left = [cost for cost in costs if cost.left]
    bound = "at least " if any(cost.at_least for cost in left) else "about "
    repeats, total_s = sum(cost.left for cost in left), sum(cost.left_s for cost in left)
    if not left:
        return f"Sweep {sweep}: every repeat is there."
    lines = [f"Sweep {sweep}: {repeats} repeats left, {bound}{readable_duration(total_s)}."]
    for status in sorted({status for cost in left for status in cost.energy_j}):
        energy_j = sum(cost.energy_j.get(status, 0.0) for cost in left)
        kilowatt_hours = kilowatt_hours_from_joules(energy_j)
        lines.append(f"  energy ({status} power): {bound}{significant(kilowatt_hours)} kWh")
    for cost in costs:
        about = "at least" if cost.at_least else "about"
        each = f"{about} {readable_duration(cost.repeat_s)} each"
        lines.append(f"  {cost.cell}: {cost.done} done, {cost.left} left, {each}")
    return "\n".join(lines)


def needed_lines(metrics: MetricsTable, target_percent: float) -> list[str]:
    """Say for each cell and workload how many repeats the target takes, from those so far."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in metrics.rows:
        if row.energy_per_output_token_j is not None:
            key = (row.cell, row.workload, row.energy_status)
            values.setdefault(key, []).append(row.energy_per_output_token_j)
    lines = []
    for (cell, workload, status), found in values.items():
        count = repeats_needed(found, target_percent)
        if len(found) < 2:
            said = "one repeat says nothing about the spread"
        elif count is None:
            said = f"more than {MOST_REPEATS}"
        else:
            said = f"{count} (there are {len(found)})"
        lines.append(f"  {cell}, {workload}, {status}: {said}")
    return lines
