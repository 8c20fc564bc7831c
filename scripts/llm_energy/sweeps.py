"""Compare two sweeps: what another day, machine or version changed, beyond noise or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm_energy.comparability import FIELDS, UNRECORDED, differences, in_words
from llm_energy.errors import LlmEnergyError
from llm_energy.paired import ALPHA, CONFIDENCE, holm
from llm_energy.records import MetricsTable
from llm_energy.series import GROSS, SPEED, Metric, Series, collect
from llm_energy.wording import change, interval, number

METRICS = (GROSS, SPEED)


@dataclass(frozen=True)
class Changed:
    """One cell and workload in two sweeps, for one metric.

    ``ratio`` is later over earlier, with its 95 % interval by itself; ``p_adjusted`` is corrected
    by Holm over all rows of the metric. ``beyond_noise`` is None where that cannot be said, and
    ``remark`` then says why; else it names what was different around the measurements.
    """

    cell: str
    workload: str
    metric: str
    energy_status: str
    n: tuple[int, int]
    ratio: float | None
    ci_low: float | None
    ci_high: float | None
    p_adjusted: float | None
    beyond_noise: bool | None
    remark: str


def compare_sweeps(earlier: Sequence[MetricsTable], later: Sequence[MetricsTable]) -> list[Changed]:
    """Compare every cell, workload and kind of joules that both sweeps have.

    Repeats of two sweeps share no block, so they are compared by Welch's t test on the logarithms
    (scipy). Raises LlmEnergyError where the sweeps have no cell in common.
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
    for metric in METRICS:
        places = {(k[0], k[1]): k for k in reversed(common)}  # a rate counts once
        keys = common if metric.energy else list(reversed(places.values()))
        found = [_changed(first[key], second[key], metric) for key in keys]
        adjusted = iter(holm([p for _, p in found if p is not None]))
        rows += [_concluded(row, next(adjusted) if p is not None else None) for row, p in found]
    return rows


def _changed(first: Series, second: Series, metric: Metric) -> tuple[Changed, float | None]:
    """Give a row without its verdict, and its p-value."""
    logs = [[math.log(v) for v in side.values(metric).values()] for side in (first, second)]
    names = list(_differing(first, second, metric))
    blank = {
        "cell": first.cell,
        "workload": first.workload,
        "metric": metric.name,
        "energy_status": first.status if metric.energy else "",
        "n": (len(logs[0]), len(logs[1])),
        "p_adjusted": None,
        "beyond_noise": None,
    }
    nothing = {"ratio": None, "ci_low": None, "ci_high": None}
    if names:
        told = f"not comparable: {'; '.join(names)}"
        return Changed(**blank, **nothing, remark=told), None
    if not all(logs):
        return Changed(**blank, **nothing, remark="one sweep has no value"), None
    ratio = math.exp(sum(logs[1]) / len(logs[1]) - sum(logs[0]) / len(logs[0]))
    remark = "; ".join(_surroundings(first, second))
    if min(map(len, logs)) < 2 or all(len(set(side)) == 1 for side in logs):
        few = "an interval takes two repeats that differ in each sweep"
        given = nothing | {"ratio": ratio}
        return Changed(**blank, **given, remark="; ".join(filter(None, (few, remark)))), None
    from scipy.stats import ttest_ind

    test = ttest_ind(logs[1], logs[0], equal_var=False)
    low, high = (math.exp(end) for end in test.confidence_interval(CONFIDENCE))
    row = Changed(**blank, ratio=ratio, ci_low=low, ci_high=high, remark=remark)
    return row, float(test.pvalue)


def _concluded(row: Changed, adjusted: float | None) -> Changed:
    if adjusted is None:
        return row
    return Changed(
        **{**vars(row), "p_adjusted": adjusted, "beyond_noise": adjusted < ALPHA},
    )


def _differing(first: Series, second: Series, metric: Metric) -> Iterable[str]:
    one, other = (next(iter(side.conditions.values())) for side in (first, second))
    for found in differences("sweep", one, other, energy=metric.energy):
        yield in_words(found)


def _surroundings(first: Series, second: Series) -> Iterable[str]:
    """Name what may differ between sweeps and does: the first place to look for a cause."""
    for name, field in FIELDS.items():
        if "sweep" in field.varies:
            before, after = (
                ", ".join(dict.fromkeys(c.get(name, UNRECORDED) for c in side.conditions.values()))
                for side in (first, second)
            )
            if before != after:
                yield f"{field.title}: {before}, then {after}"


HEAD = ("Cell", "Workload", "", "n", "Change", "Beyond noise", "What else changed")
UNITS = {metric.name: metric.unit for metric in METRICS}


def to_text(rows: Sequence[Changed], earlier: str, later: str) -> str:
    """Give a short table for the terminal, and one sentence that sums it up."""
    from tabulate import tabulate

    words = {True: "yes", False: "no", None: "-"}
    table = [
        (
            row.cell,
            row.workload,
            f"{row.energy_status} {UNITS[row.metric]}".strip(),
            f"{row.n[0]}, {row.n[1]}",
            _change(row),
            words[row.beyond_noise],
            row.remark,
        )
        for row in rows
    ]
    beyond = [row for row in rows if row.beyond_noise]
    told = [row for row in rows if row.beyond_noise is not None]
    summary = (
        f"{len(beyond)} of {len(told)} changed beyond noise (Holm's correction, each metric by "
        f"itself); {len(rows) - len(told)} of {len(rows)} cannot be said."
    )
    return f"From {earlier} to {later}\n\n{tabulate(table, HEAD)}\n\n{summary}\n"


def _change(row: Changed) -> str:
    if row.ratio is None:
        return "-"
    if row.ci_low is None:
        return f"{number(100 * (row.ratio - 1))} %"
    return f"{change(row.ratio)}, {interval(row.ci_low, row.ci_high)}"
