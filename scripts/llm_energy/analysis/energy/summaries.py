"""Summarise each metric over the repeats of a row, with what its counters leave open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from llm_energy.analysis.energy.uncertainty import (
    SENSOR_RELATIVE,
    drift_standard,
    with_intervals,
    without_drift,
)
from llm_energy.analysis.statistics.outliers import outlying
from llm_energy.analysis.statistics.summary import over_groups
from llm_energy.records import Metrics, Outlier, Statistic
from llm_energy.records.registry.metrics import (
    FACILITY,
    GROSS,
    METRICS,
    NET,
    OF_COMPONENT,
    PER_REQUEST,
    PER_TOTAL_TOKEN,
    SPEED,
)

Groups = Mapping[str, str]
SEARCHED = (GROSS, NET, SPEED)
# What the joules of a window are divided by.
COUNTS: dict[str, Callable[[Metrics], int]] = {
    **dict.fromkeys([GROSS, NET, FACILITY, *OF_COMPONENT.values()], lambda row: row.output_tokens),
    PER_TOTAL_TOKEN: lambda row: row.prompt_tokens + row.output_tokens,
    PER_REQUEST: lambda row: row.requests,
}


def by_name(
    repeats: Sequence[Mapping[str, float]], groups: Sequence[str | None] = ()
) -> dict[str, Statistic]:
    """Summarise each name over the repeats that have it."""
    groups = groups or [None] * len(repeats)
    found = {}
    for name in dict.fromkeys(name for one in repeats for name in one):
        own = [(one[name], of) for one, of in zip(repeats, groups, strict=True) if name in one]
        found[name] = over_groups([value for value, _ in own], [of for _, of in own])
    return found


def summarised(rows: Sequence[Metrics], name: str, groups: Groups) -> Statistic:
    """Summarise one metric over repeats; measured energies get what their counters leave open.

    ``groups`` names by measurement the session or machine of each, and is empty where all are of
    one.
    """
    rows = [row for row in rows if getattr(row, name) is not None]
    if rows and name == OF_COMPONENT.get("+".join(rows[0].components)):
        name = GROSS  # the only component's joules are all there are, with the same interval
    found = over_groups(values_of(rows, name), [groups.get(row.measurement) for row in rows])
    if not rows or any(row.counter_lag_j is None or not row.gross_energy_j for row in rows):
        return found
    kind = METRICS[name].kind
    if kind == "steady_state":  # it begins and ends amid the same work, so no lag is expected of it
        return with_intervals(found, sensor_relative=SENSOR_RELATIVE)
    if kind == "gross":
        scales = [getattr(row, name) / row.gross_energy_j for row in rows]
        standards_j = [row.gross_energy_standard_uncertainty_j for row in rows]
        drifts_j = excesses_j = [0.0] * len(rows)
    elif kind == "net":
        scales = [1.0 if name == "net_energy_j" else 1 / row.output_tokens for row in rows]
        drifts_j = [(row.loaded_idle_drift_w or 0.0) * row.duration_s for row in rows]
        excesses_j = [(row.loaded_idle_excess_w or 0.0) * row.duration_s for row in rows]
        standards_j = [
            without_drift(row.net_energy_standard_uncertainty_j, drift_j)
            for row, drift_j in zip(rows, drifts_j, strict=True)
        ]
    else:
        return found
    lag = _mean_of([row.counter_lag_j for row in rows], scales)
    scaled = [standard_j * scale for standard_j, scale in zip(standards_j, scales, strict=True)]
    return with_intervals(
        found,
        window=math.hypot(*scaled) / math.sqrt(len(rows)),
        drift=drift_standard(_mean_of(drifts_j, scales)),
        bias=lag - _mean_of(excesses_j, scales),  # a counter too small, an idle power too small
        sensor_relative=SENSOR_RELATIVE,
    )


def values_of(rows: Sequence[Metrics], name: str) -> list[float]:
    """Return one value a repeat, whose mean is the cell's.

    Windows of timed traffic hold unequal numbers of tokens, and the mean of their quotients is more
    than what traffic of the kind takes in the long run: the one with few tokens weighs as much as
    the others. There the mean is all joules over all tokens, and a repeat's value is that mean plus
    what its joules are above it, over the mean tokens, so that their scatter is that of the ratio
    (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, section 6.4).
    """
    values = [getattr(row, name) for row in rows]
    counts = COUNTS.get(name)
    if counts is None or not rows or rows[0].traffic is None:
        return values
    weights = [counts(row) for row in rows]
    mean_count = math.fsum(weights) / len(weights)
    ratio = math.fsum(v * n for v, n in zip(values, weights, strict=True)) / math.fsum(weights)
    return [ratio + (v - ratio) * n / mean_count for v, n in zip(values, weights, strict=True)]


def outliers(rows: Sequence[Metrics], groups: Groups) -> Iterator[Outlier]:
    """Flag repeats far from the others, with the summary that the others alone would give."""
    if len({row.repeat for row in rows}) < len(rows):
        return  # pooled backends, whose repeats are of unlike systems
    for name in SEARCHED:
        values = {row.repeat: v for row in rows if (v := getattr(row, name)) is not None}
        if far := outlying(values):
            rest = [row for row in rows if row.repeat not in far]
            yield Outlier(name, far, summarised(rest, name, groups))


def _mean_of(values_j: Sequence[float], scales: Sequence[float]) -> float:
    return math.fsum(v * s for v, s in zip(values_j, scales, strict=True)) / len(scales)
