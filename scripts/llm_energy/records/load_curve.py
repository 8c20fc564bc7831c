"""What the load stage says: where each rate lies, and the line of a cell's power over its load."""

from __future__ import annotations

from dataclasses import dataclass

from llm_energy.records.results import Statistic


@dataclass(frozen=True)
class LoadPoint:
    """One cell and workload on the axis of load, with the energy of its row in the aggregate.

    ``utilisation`` is its rate of arrivals over the requests per second that the same cell serves
    of the same work when all are there at once; None for that workload, and where there is none.
    ``marginal_energy_per_output_token_j`` is what one more token costs between the next lower rate
    of the same traffic and this one; None at the lowest rate.
    """

    cell: str
    workload: str
    energy_status: str
    components: tuple[str, ...]
    utilisation: float | None
    marginal_energy_per_output_token_j: Statistic | None = None


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LoadFit:
    """The mean of the lines of a cell's repeats, or the ``reason`` why there is none.

    ``repeats`` are those whose lines it is the mean of, ``windows`` how many these go through, and
    ``without_line`` the repeats with too few rates for one. A line has no interval.
    ``r_squared`` is the share of the power's variance inside repeats that their lines explain,
    ``worst_residual`` the largest distance of a window's power from the line of its repeat, as a
    share of that power; both are None where no repeat has more than two windows.
    ``loaded_power_w`` is the intercept, ``marginal_energy_per_output_token_j`` the slope, the
    joules of one more output token. ``loaded_idle_power_w`` is the one that net energy subtracts in
    the same repeats. Where the line does not fit, or its intercept contradicts that power,
    ``reason`` says so and there is no line.

    ``awake_power_w`` and ``awake_marginal_energy_per_output_token_j`` are of the curve that begins
    at the measured idle power: what is drawn on top of it while any request is being served, and
    the joules of one more output token then. ``awake_worst_residual`` is its largest residual. All
    are None but for Poisson arrivals.
    """

    backend: str
    cell: str
    traffic: str
    energy_status: str
    components: tuple[str, ...]
    workloads: tuple[str, ...]
    windows: int
    repeats: tuple[int, ...]
    without_line: tuple[int, ...] = ()
    loaded_power_w: Estimate | None = None
    marginal_energy_per_output_token_j: Estimate | None = None
    r_squared: float | None = None
    worst_residual: float | None = None
    loaded_idle_power_w: float | None = None
    reason: str | None = None
    awake_power_w: float | None = None
    awake_marginal_energy_per_output_token_j: float | None = None
    awake_worst_residual: float | None = None


@dataclass(frozen=True)
class LoadCurves:
    """How the energy of a sweep depends on its load."""

    schema_version: int
    sweep: str
    points: tuple[LoadPoint, ...]
    fits: tuple[LoadFit, ...]
