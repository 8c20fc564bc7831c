"""Energy over load: the joules at each rate of arrivals, and the line through them."""

from __future__ import annotations

from collections.abc import Iterator

from llm_energy.analysis.statistics.format import ABSENT, mean_only, quantity, three_digits
from llm_energy.publish.tables.cell_rows import (
    CELL,
    ENERGY,
    Frame,
    N,
    block_title,
    framed,
    place,
    remarks,
)
from llm_energy.publish.tables.writers.table import Column, Footnotes, Line, Results, Table, row_id
from llm_energy.records import Aggregate, AggregateRow
from llm_energy.records.load_curve import LoadFit, LoadPoint
from llm_energy.records.registry.metrics import GROSS, METRICS, PER_REQUEST, SPEED

Key = tuple[str, str, str, tuple[str, ...]]

WRITTEN = {
    "arrival_rate_per_s": mean_only,
    "requests_per_s": mean_only,
    SPEED: mean_only,
    "mean_power_w": quantity,
    GROSS: quantity,
    PER_REQUEST: quantity,
}
COLUMNS = (
    *CELL,
    Column("traffic", "Traffic"),
    Column("utilisation", "Utilisation", "number"),
    *(Column(name, METRICS[name].head, "number") for name in WRITTEN),
    Column("marginal", f"one more token ({METRICS[GROSS].unit})", "number"),
    N,
    ENERGY,
)
EXPLANATION = (
    "The window of timed traffic begins when the ramp ends and lasts a fixed time. What is drawn "
    "while the engine waits is in its joules, and only tokens that came inside count: at a low "
    "rate each token carries more of the power of waiting. Utilisation is the rate of arrivals "
    "over the requests per second that the same cell serves when all are there (offline). Values "
    "are means over n repeats ± half their 95 % intervals. One more token: how much more power was "
    "drawn than at the next lower rate, over how many more tokens per second. Each repeat has its "
    "own draw of arrivals, the same for all cells, unless a note says otherwise."
)
FIT = (
    Column("cell", "Cell"),
    Column("traffic", "Traffic"),
    Column("loaded", "P_loaded (W)", "number"),
    Column("marginal", f"e ({METRICS[GROSS].unit})", "number"),
    Column("idle", METRICS["loaded_idle_power_w"].head, "number"),
    Column("awake", "P_awake (W)", "number"),
    Column("awake_marginal", f"e awake ({METRICS[GROSS].unit})", "number"),
    Column("awake_residual", "Residual of it", "number"),
    N,
    Column("windows", "Windows", "number"),
    Column("r_squared", "R²", "number"),
    Column("residual", "Residual", "number"),
    ENERGY,
)
FIT_EXPLANATION = (
    "E = P_loaded T + e k, k output tokens in T seconds, fitted to the windows of each repeat as "
    "mean power over output tokens per second (ordinary least squares). P_loaded is where the line "
    "begins; e is what one more output token costs at these lengths, its share of the prompt "
    "included. Both are means over n repeats without an interval, since a bend that no residual "
    "shows would lie outside of it. R² is the share of the variance inside repeats that their "
    "lines explain. Residual is the largest distance of a window from the line of its repeat: "
    "where it is large, a token's cost depends on the load and one e does not describe it. Two "
    "windows in a repeat show neither. Where one rate lies further off the lines than P_loaded is "
    "uncertain, or P_loaded lies above the measured idle power by more than three standard "
    "uncertainties, there is no line. P_awake and its e are of the curve that begins at the "
    "measured idle power, for Poisson arrivals: what is drawn on top of it while any request is "
    "served, and what one more token costs then. That is one shape of several, so they have no "
    "interval either; what one more token costs from rate to rate is in the table of energy over "
    "load. Windows that fell behind their traffic (E28) are left out."
)
AWAKE = (
    "awake_power_w",
    "awake_marginal_energy_per_output_token_j",
    "awake_worst_residual",
)
ONE_REPEAT = "Of one repeat, which says nothing of what another would give."
TOO_FEW_RATES = "its windows are at too few rates for a line"
NOTHING = "Nothing to show: no workload of this sweep has timed traffic."


def points(results: Results) -> Table:
    """Return one row a cell, workload and energy status, where the cell has timed traffic."""
    notes = Footnotes()
    found = {} if results.load is None else {_key(point): point for point in results.load.points}
    blocks = [
        (
            block_title(aggregate),
            tuple(
                _line(row, found[key], notes.marks(remarks(row, results.titles)))
                for key, row in _rows(aggregate, found)
            ),
        )
        for aggregate in results.aggregates
    ]
    values = [
        _values(row, found[key])
        for aggregate in results.aggregates
        for key, row in _rows(aggregate, found)
    ]
    heads = ["backend", "cell", "workload", "traffic", "energy_status", "components", "simulated"]
    heads += ["n", "utilisation", "requested_rate_per_s", "achieved_rate_per_s"]
    every = (*WRITTEN, "marginal_energy_per_output_token_j")
    heads += [f"{name}_{part}" for name in every for part in ("mean", "ci_low", "ci_high")]
    told = "Joules per token at each rate are of that rate and these lengths alone."
    frame = Frame("load", "Energy over load", told, EXPLANATION, COLUMNS, NOTHING)
    return framed(results, frame, blocks, notes.texts, heads, values)


def fits(results: Results) -> Table:
    """Return one row a line: what is drawn while the engine waits, and what a token costs."""
    found, notes = results.load.fits if results.load else (), Footnotes()
    backends = dict.fromkeys(fit.backend for fit in found)
    blocks = [
        (backend, tuple(_fit(fit, notes) for fit in found if fit.backend == backend))
        for backend in backends
    ]
    heads = ["backend", "cell", "traffic", "energy_status", "components", "workloads"]
    heads += ["n", "windows", "excluded"]
    heads += ["loaded_power_w_value", "marginal_energy_per_output_token_j_value"]
    heads += ["r_squared", "worst_residual", "loaded_idle_power_w", "reason", *AWAKE]
    told = "The power of waiting and the joules of one more token."
    subject = "The idle floor and the marginal joule"
    frame = Frame("load-fit", subject, told, FIT_EXPLANATION, FIT, NOTHING)
    return framed(results, frame, blocks, notes.texts, heads, map(_fit_values, found))


def _key(one: LoadPoint | AggregateRow) -> Key:
    return one.cell, one.workload, one.energy_status, one.components


def _rows(aggregate: Aggregate, found: dict[Key, LoadPoint]) -> Iterator[tuple[Key, AggregateRow]]:
    return ((key, row) for row in aggregate.rows if (key := _key(row)) in found)


def _line(row: AggregateRow, point: LoadPoint, marks: tuple[int, ...]) -> Line:
    source = (row.cell, row.workload)
    cells = place(row) | {
        "traffic": row.traffic or "offline",
        "utilisation": ABSENT if point.utilisation is None else f"{point.utilisation:.0%}",
    }
    for name, write in WRITTEN.items():
        statistic = row.statistics.get(name)
        cells[name] = write(statistic) if statistic else ABSENT
    marginal = point.marginal_energy_per_output_token_j
    cells["marginal"] = quantity(marginal) if marginal else ABSENT
    return Line(row_id(source), cells, (source,), marks)


def _values(row: AggregateRow, point: LoadPoint) -> list[object]:
    statistics = [row.statistics.get(name) for name in WRITTEN]
    statistics.append(point.marginal_energy_per_output_token_j)
    rates = [row.statistics.get(f"{name}_rate_per_s") for name in ("requested", "achieved")]
    return [
        *(row.backend, row.cell, row.workload, row.traffic, row.energy_status),
        *(" ".join(row.components), row.simulated, row.n, point.utilisation),
        *(rate and rate.mean for rate in rates),
        *(one and getattr(one, p) for one in statistics for p in ("mean", "ci_low", "ci_high")),
    ]


def _fit(fit: LoadFit, notes: Footnotes) -> Line:
    cells = {
        "cell": fit.cell,
        "traffic": fit.traffic,
        "loaded": three_digits(fit.loaded_power_w and fit.loaded_power_w.value),
        "marginal": three_digits(
            fit.marginal_energy_per_output_token_j and fit.marginal_energy_per_output_token_j.value
        ),
        "idle": three_digits(fit.loaded_idle_power_w),
        "awake": three_digits(fit.awake_power_w),
        "awake_marginal": three_digits(fit.awake_marginal_energy_per_output_token_j),
        "awake_residual": _percent(fit.awake_worst_residual),
        "n": str(len(fit.repeats)),
        "windows": str(fit.windows),
        "r_squared": three_digits(fit.r_squared),
        "residual": _percent(fit.worst_residual),
        "energy": f"{fit.energy_status}: {', '.join(fit.components)}",
    }
    sources = tuple((fit.cell, workload) for workload in fit.workloads)
    told = [f"No line: {fit.reason}."] if fit.reason else []
    if len(fit.repeats) == 1:
        told.append(ONE_REPEAT)
    told += [f"Repeat {repeat} left out: {TOO_FEW_RATES}" for repeat in fit.without_line]
    return Line(f"{fit.cell} {fit.traffic}", cells, sources, notes.marks(told))


def _percent(share: float | None) -> str:
    return ABSENT if share is None else f"{share:.1%}"


def _fit_values(fit: LoadFit) -> list[object]:
    estimates = (fit.loaded_power_w, fit.marginal_energy_per_output_token_j)
    return [
        *(fit.backend, fit.cell, fit.traffic, fit.energy_status, " ".join(fit.components)),
        *(" ".join(fit.workloads), len(fit.repeats), fit.windows),
        "; ".join(f"{repeat}: {TOO_FEW_RATES}" for repeat in fit.without_line),
        *(one and one.value for one in estimates),
        *(fit.r_squared, fit.worst_residual, fit.loaded_idle_power_w, fit.reason),
        *(getattr(fit, name) for name in AWAKE),
    ]
