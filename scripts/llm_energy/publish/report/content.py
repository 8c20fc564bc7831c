"""Turn the records of a sweep into the compact data that the page's tables and plots show."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from llm_energy.analysis.grouping.rows import key, place
from llm_energy.analysis.statistics.format import (
    bias,
    mean_only,
    percent_or_more,
    quantity,
    with_ends,
)
from llm_energy.core.files import canonical_json
from llm_energy.publish import answers
from llm_energy.publish.length_plots import LengthPlot
from llm_energy.publish.plots import Plot
from llm_energy.publish.report.sources import Sources, listed
from llm_energy.records import AggregateRow, Metrics, Statistic, Verdict
from llm_energy.records.comparison import Comparison, Limits
from llm_energy.records.registry.metrics import (
    GROSS,
    METRICS,
    NET,
    OF_COMPONENT,
    PER_REQUEST,
    SERVICE_TTFT,
    SPEED,
)

MOST_ANSWERS = 100
AXES = ("model", "backend", "precision")
DRAWN_FLOOR = 20  # an interval that reaches below zero is drawn down to a twentieth of its mean


def row_records(sources: Sources, plots: Mapping[str, Plot]) -> list[dict[str, Any]]:
    """Return one record for each cell and workload, those without joules included.

    ``<plot>_x`` says where a row stands in a plot of points, ``<plot>_line`` and ``<plot>_front``
    number the line and the front that join it, and ``in_<plot>`` says that bars show it.
    """
    fields = _plot_fields(plots)
    shown = {place(row): row for row in sources.rows}
    rows = {place(row): shown.get(place(row), row) for row in sources.every_row}
    return [row_record(row) | fields.get(key(row), {}) for row in rows.values()]


def _plot_fields(plots: Mapping[str, Plot]) -> dict[tuple, dict[str, Any]]:
    found: dict[tuple, dict[str, Any]] = defaultdict(dict)
    for name, plot in plots.items():
        for row in plot.rows:
            where = {f"in_{name}": True} if plot.x is None else {f"{name}_x": short(plot.x_of(row))}
            found[key(row)] |= where
        for number, line in enumerate(plot.lines):
            kind = "front" if line.kind == "front" else "line"
            for row in line.rows:
                found[key(row)][f"{name}_{kind}"] = number
    return found


def row_record(row: AggregateRow) -> dict[str, Any]:
    """Return what tables and plots show of one cell and workload."""

    def statistic(name: str) -> Statistic:
        return row.statistics.get(name) or Statistic(0, None, None, None, None)

    gross = statistic(GROSS)
    return {
        "cell": row.cell,
        "model": row.model,
        "backend": row.backend,
        "precision": row.precision,
        "workload": row.workload,
        "batch": row.batch_size,
        "batching": row.batching,
        "outcome": row.outcome,
        "reason": row.reason,
        "status": row.energy_status,
        "components": " + ".join(row.components),
        "n": row.n,
        "degraded": bias(row.bias_bound_percent) if row.degraded else "",
        "flags": list(row.flags),
        "excluded": len(row.excluded),
        "outliers": [
            f"repeat {listed(map(str, found.repeats))} far from the others; without: "
            f"{quantity(found.without)} {METRICS[GROSS].unit}"
            for found in row.outliers
            if found.metric == GROSS
        ],
        "e": short(gross.mean),
        "lo": None if gross.ci_low is None else short(max(gross.ci_low, gross.mean / DRAWN_FLOOR)),
        "hi": short(gross.ci_high),
        "gross": quantity(gross),
        "net": quantity(statistic(NET)),
        "net_j": short(statistic(NET).mean),
        "request": quantity(statistic(PER_REQUEST)),
        "request_j": short(statistic(PER_REQUEST).mean),
        "rate": mean_only(statistic(SPEED)),
        "tps": short(statistic(SPEED).mean),
        "ttft_text": mean_only(statistic(SERVICE_TTFT)),
        "ttft": short(statistic(SERVICE_TTFT).mean),
        "e2e_text": mean_only(statistic("e2e_latency_s")),
        "e2e": short(statistic("e2e_latency_s").mean),
        **{part: short(statistic(name).mean) for part, name in OF_COMPONENT.items()},
    }


def length_records(plot: LengthPlot) -> list[dict[str, Any]]:
    """Return a record for each point of a plot over lengths."""
    return [
        {
            "cell": point.cell,
            "workload": point.workload,
            "panel": point.panel,
            "prompts": point.prompts,
            "out": short(point.output_tokens),
            "j": short(point.energy_j),
            "n": point.requests,
            "lo": short(point.low_j),
            "hi": short(point.high_j),
            "line": short(point.line_j),
        }
        for point in plot.points
    ]


def part_records(sources: Sources) -> list[dict[str, Any]]:
    """Return the split by component of every sum of joules, measured and estimated apart."""
    varied = [axis for axis in AXES if len({getattr(r, axis) for r in sources.every_row}) > 1]
    return [
        {
            "cell": row.cell,
            "workload": row.workload,
            "label": " ".join([*(getattr(row, axis) for axis in varied), row.workload])
            + (" (estimated)" if row.energy_status == "estimated" else ""),
            "status": row.energy_status,
            "e": short(row.statistics[GROSS].mean),
            **{
                part: short(row.statistics[name].mean)
                for part, name in OF_COMPONENT.items()
                if name in row.statistics
            },
        }
        for row in sources.every_row
        if row.n
    ]


class Flags:
    """Hold each different flag once and name it by its number: most windows share theirs."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.records: list[dict[str, Any]] = []

    def number(self, flag: Any) -> int:
        """Return the number of a flag, a new one where it was never seen."""
        record = dataclasses.asdict(flag)
        del record["title"]  # the page has it once for each check
        key = canonical_json(record)
        if key not in self._numbers:
            self._numbers[key] = len(self.records)
            record["evidence"] = evidence(flag.evidence)
            self.records.append(record)
        return self._numbers[key]


WINDOW_COLUMNS = (
    *("cell", "workload", "repeat", "verdict", "outcome", "status"),
    *("e", "power_w", "duration_s", "tps", "hash", "flags"),
)


def window_table(sources: Sources, flags: Flags) -> dict[str, Any]:
    """Return all windows as columns; cells, workloads and words are indices of lists of names."""
    known: dict[tuple[str, str, int], list[Metrics]] = {}
    for metrics in sources.windows:
        known.setdefault((metrics.cell, metrics.workload, metrics.repeat), []).append(metrics)
    names: dict[str, int] = {}

    def number(text: str | None) -> int:
        return names.setdefault(text or "", len(names))

    columns: dict[str, list[Any]] = {name: [] for name in WINDOW_COLUMNS}
    for verdict in sources.judged:
        rows = known.get((verdict.cell, verdict.workload, verdict.repeat), [])
        marks = [flags.number(flag) for flag in verdict.flags]
        for metrics in rows or [None]:
            values = _window(verdict, metrics)
            for name in ("cell", "workload", "verdict", "outcome", "status"):
                columns[name].append(number(values[name]))
            for name in ("repeat", "e", "power_w", "duration_s", "tps", "hash"):
                columns[name].append(values[name])
            columns["flags"].append(marks)
    return {"names": list(names), "columns": columns}


def _window(verdict: Verdict, metrics: Metrics | None) -> dict[str, Any]:
    outcome = verdict.outcome if verdict.reason is None else f"{verdict.outcome}: {verdict.reason}"
    values = {
        "cell": verdict.cell,
        "workload": verdict.workload,
        "repeat": verdict.repeat,
        "verdict": verdict.verdict,
        "outcome": outcome,
        "status": metrics and metrics.energy_status,
        "e": metrics and short(metrics.energy_per_output_token_j),
        "power_w": metrics and short(metrics.mean_power_w),
        "duration_s": metrics and short(metrics.duration_s),
        "tps": metrics and short(metrics.output_tokens_per_s),
        "hash": (verdict.measurement_sha256 or "")[:16],
    }
    return values


def comparison_records(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return what the table of comparisons shows, the ones that could be told apart first."""
    return [
        {
            "contrast": c.contrast.replace("_", " "),
            "metric": METRICS[c.metric].head,
            "reference": f"{c.reference.cell} {c.reference.workload}",
            "other": f"{c.other.cell} {c.other.workload}",
            "outcome": c.outcome.replace("_", " "),
            "verdict": c.verdict,
            "n": c.n,
            "ratio": short(c.ratio),
            "ratio_text": with_ends(c.ratio, c.ci_low, c.ci_high)[0],
            "p": c.p_adjusted,
            "seen": short(c.smallest_detectable_percent),
            "seen_text": percent_or_more(c.smallest_detectable_percent),
            "differs": [f"{d.field}: {d.reference} and {d.other}" for d in c.differs],
            "notes": [*c.notes, *(f"block {o.block} left out: {o.reason}" for o in c.left_out)],
        }
        for c in comparisons
    ]


def answer_records(sources: Sources) -> list[dict[str, Any]]:
    """Return each answer with its lines, for the page itself; more are in the tables."""
    rows = answers.rows_by_place(sources.aggregates)
    return [
        {
            "title": " against ".join("/".join(end) for end in (one.other, one.reference)),
            "statement": f"{one.statement}.",
            "figures": [list(cells.values()) for _, cells in answers.figures(one, rows)],
        }
        for one in sources.comparisons.answers[:MOST_ANSWERS]
    ]


def limit_records(limits: Sequence[Limits]) -> list[dict[str, Any]]:
    """Return what the table of limits shows; what is physically impossible comes first."""
    return [
        {
            "cell": one.cell,
            "workload": one.workload,
            "e": short(one.energy_j),
            "floor": short(one.floor_j),
            "roofline": short(one.roofline_j),
            "times_floor": short(one.times_floor),
            "times_roofline": short(one.times_roofline),
            "mbu": short(one.mbu),
            "mfu": short(one.mfu),
            "remark": one.fault or one.reason or one.rates,
        }
        for one in sorted(limits, key=lambda one: one.fault is None)
    ]


def evidence(found: Mapping[str, Any]) -> str:
    """Write the evidence of a flag on one line."""
    return "; ".join(f"{name}: {_plain(value)}" for name, value in found.items())


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else canonical_json(value)


def short(value: float | None) -> float | None:
    """Round to five significant digits: more than any plot shows, and half the bytes.

    >>> short(0.123456789)
    0.12346
    """
    return None if value is None else float(f"{value:.5g}")
