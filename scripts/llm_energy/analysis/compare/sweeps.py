"""Compare two sweeps: what another day, machine or version changed, beyond noise or not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llm_energy.analysis.compare.series import Series, collect, shared_by
from llm_energy.analysis.energy.uncertainty import SENSOR_RELATIVE
from llm_energy.analysis.grouping.comparability import FIELDS, UNRECORDED, differences, in_words
from llm_energy.analysis.statistics.intervals import Term, serial_guard
from llm_energy.analysis.statistics.paired import ALPHA, holm, t_test_with
from llm_energy.core.errors import LlmEnergyError
from llm_energy.records import MetricsTable
from llm_energy.records.registry.metrics import GROSS, METRICS, NET, SPEED, Metric

COMPARED = (GROSS, NET, SPEED)


@dataclass(frozen=True)
class Changed:
    """One cell and workload in two sweeps, for one metric.

    ``ratio`` is later over earlier, with its 95 % interval by itself; ``p_adjusted`` is corrected
    by Holm over all rows of the metric. ``beyond_noise`` is None where that cannot be said;
    ``remarks`` say why, and what was different around the measurements.
    """

    cell: str
    workload: str
    metric: str
    energy_status: str
    n: tuple[int, int]
    ratio: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_adjusted: float | None = None
    beyond_noise: bool | None = None
    remarks: tuple[str, ...] = ()


def compare_sweeps(earlier: Sequence[MetricsTable], later: Sequence[MetricsTable]) -> list[Changed]:
    """Compare every cell, workload and kind of joules that both sweeps have.

    Repeats of two sweeps share no block, so they are compared by Welch's t test on the logarithms,
    with what repeats do not show as further terms: the drift of the idle power in net energy, and
    the sensors' own error where two sweeps were not metered by the same ones. Raises LlmEnergyError
    where the sweeps have no cell in common.
    """
    first, second = (
        {(s.cell, s.workload, *s.kind): s for s in collect(tables)} for tables in (earlier, later)
    )
    common = [key for key in first if key in second]
    if not common:
        raise LlmEnergyError(
            f"the sweeps '{earlier[0].sweep}' and '{later[0].sweep}' have no cell, workload and "
            "kind of joules in common"
        )
    rows: list[Changed] = []
    for metric in (METRICS[name] for name in COMPARED):
        places = {(k[0], k[1]): k for k in reversed(common)}  # a rate counts once
        keys = common if metric.energy else list(reversed(places.values()))
        found = [_changed(first[key], second[key], metric) for key in keys]
        adjusted = iter(holm([p for _, p in found if p is not None]))
        rows += [_concluded(row, next(adjusted) if p is not None else None) for row, p in found]
    return rows


def _changed(first: Series, second: Series, metric: Metric) -> tuple[Changed, float | None]:
    """Return a row without its verdict, and its p-value."""
    status = first.status if metric.energy else ""
    counts = (len(first.values(metric)), len(second.values(metric)))
    row = Changed(first.cell, first.workload, metric.name, status, counts)
    if undefined := first.without_logarithm(metric) or second.without_logarithm(metric):
        return replace(row, remarks=(in_words(undefined[0]),)), None
    logs = [[math.log(v) for v in side.values(metric).values()] for side in (first, second)]
    if names := list(_differing(first, second, metric)):
        return replace(row, remarks=(f"not comparable: {'; '.join(names)}",)), None
    if not all(logs):
        return replace(row, remarks=("one sweep has no value",)), None
    log_ratio = sum(logs[1]) / counts[1] - sum(logs[0]) / counts[0]
    sensors = list(_other_sensors(first, second, metric))
    row = replace(row, ratio=math.exp(log_ratio), remarks=(*sensors, *_surroundings(first, second)))
    if min(counts) < 2 or all(len(set(side)) == 1 for side in logs):
        few = "an interval takes two repeats that differ in each sweep"
        return replace(row, remarks=(few, *row.remarks)), None
    repeats = [_of_repeats(side) for side in logs]
    shared = shared_by(first, second, metric)
    if sensors:
        error = math.hypot(shared.standard, SENSOR_RELATIVE, SENSOR_RELATIVE)
        shared = replace(shared, standard=error)
    half, p = t_test_with(log_ratio, repeats, shared)
    ends = {"ci_low": math.exp(log_ratio - half), "ci_high": math.exp(log_ratio + half)}
    return replace(row, **ends), p


def _of_repeats(logs: Sequence[float]) -> Term:
    """Return the standard uncertainty of the mean of logarithms, and its degrees of freedom."""
    n = len(logs)
    return serial_guard(n) * statistics.stdev(logs) / math.sqrt(n), n - 1


def _concluded(row: Changed, adjusted: float | None) -> Changed:
    if adjusted is None:
        return row
    return replace(row, p_adjusted=adjusted, beyond_noise=adjusted < ALPHA)


def _differing(first: Series, second: Series, metric: Metric) -> Iterable[str]:
    one, other = (next(iter(side.conditions.values())) for side in (first, second))
    for found in differences("sweep", one, other, energy=metric.energy):
        yield in_words(found)


def _other_sensors(first: Series, second: Series, metric: Metric) -> Iterable[str]:
    """Name what brought its own sensors to each sweep: GPUs, or hosts for CPU and memory.

    A sensor's error cancels only where both sweeps were metered by it; no such error is known of
    estimates.
    """
    if not metric.energy or first.status != "measured":
        return
    for name in dict.fromkeys("boards" if c == "gpu" else "host" for c in first.components):
        noun = "GPUs" if name == "boards" else "hosts"
        if _recorded(first, name) != _recorded(second, name):
            yield (
                f"the {noun} differ: the absolute error of each one's sensors, "
                f"about {100 * SENSOR_RELATIVE:g} %, counts as noise"
            )


def _surroundings(first: Series, second: Series) -> Iterable[str]:
    """Name what may differ between sweeps and does: the first place to look for a cause."""
    for name, field in FIELDS.items():
        if "sweep" in field.varies:
            before, after = (_recorded(side, name) for side in (first, second))
            if before != after:
                yield f"{field.title}: {before}, then {after}"


def _recorded(side: Series, name: str) -> str:
    """Return the values of one condition over all repeats."""
    return ", ".join(sorted({c.get(name, UNRECORDED) for c in side.conditions.values()}))
