"""Say how far each cell is from the floor, the roofline and the peak rates of its hardware."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from llm_energy.analysis.compare.series import Series
from llm_energy.records.comparison import Limits


def limits(series: Iterable[Series]) -> list[Limits]:
    """Return the limits of each cell and workload, as means over its repeats.

    A window has the same limits whichever joules are looked at, so each cell and workload counts
    once. A fault in any repeat is a fault.
    """
    found: dict[tuple[str, str], Limits] = {}
    for one in series:
        found.setdefault((one.cell, one.workload), _limits(one))
    return list(found.values())


def _limits(series: Series) -> Limits:
    rows = list(series.rows.values())

    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return fmean(values) if values else None

    energy_j, floor_j, roofline_j = (
        mean(f"{name}_energy_per_output_token_j") for name in ("limited", "floor", "roofline")
    )
    sources = dict.fromkeys(row.limits_source for row in rows if row.limits_source)
    reasons = dict.fromkeys(row.limits_reason for row in rows if row.limits_reason)
    faults = dict.fromkeys(row.limits_fault for row in rows if row.limits_fault)
    return Limits(
        cell=series.cell,
        workload=series.workload,
        n=len(rows),
        energy_j=energy_j,
        floor_j=floor_j,
        roofline_j=roofline_j,
        times_floor=_times(energy_j, floor_j),
        times_roofline=_times(energy_j, roofline_j),
        mbu=mean("mbu"),
        mfu=mean("mfu"),
        rates="; ".join(sources) or None,
        reason="; ".join(reasons) or _lacking(energy_j, floor_j),
        fault="; ".join(faults) or None,
    )


def _times(energy_j: float | None, limit_j: float | None) -> float | None:
    return energy_j / limit_j if energy_j is not None and limit_j else None


def _lacking(energy_j: float | None, floor_j: float | None) -> str | None:
    if energy_j is None and floor_j is not None:
        return "the joules of what did the work were not all measured"
    return None
