"""What the phases stage says: how joules split over input tokens and output tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llm_energy.records.results import Statistic

Method = Literal["fit", "difference"]


@dataclass(frozen=True)
class PhasePoint:
    """The windows of one prompt length and one output length, in J per request.

    ``fitted_j`` is what the fit gives there, None where there is no fit.
    """

    workload: str
    prompt_tokens: int
    output_tokens: int
    energy_per_request_j: Statistic
    fitted_j: float | None = None


@dataclass(frozen=True)
class PhaseCost:
    """What one method finds a token to cost, in J; both methods look at the same lengths.

    ``quantity`` is ``input`` (one more token of a prompt), ``output`` (one more token of an
    answer) or ``context`` (an output token's surplus for each token before it). ``lengths`` are the
    (prompt, output) tokens between which it is taken. ``cost_j`` has no interval where the form
    does not describe the windows.
    """

    method: Method
    quantity: Literal["input", "output", "context"]
    lengths: tuple[tuple[int, int], ...]
    cost_j: Statistic


@dataclass(frozen=True)
class Price:
    """What a request of these lengths costs by the fit; the lengths lie inside those measured."""

    prompt_tokens: int
    output_tokens: int
    energy_j: Statistic


@dataclass(frozen=True)
class PhaseSplit:
    """How the joules of requests of one cell and batch size split, over the lengths measured.

    ``repeats`` are those with a window of every length, ``incomplete`` the others, which the fit
    leaves out. ``terms`` are the fit's coefficients in J; the ``unused`` ones would be negative and
    are 0. ``alike`` are pairs of terms that these lengths cannot tell apart.
    ``condition_number`` is of the fit's columns, each scaled to length 1. ``worst_residual`` is the
    largest mean distance of a window from the fit, as a share of its joules. ``reason`` says why
    there is no fit, ``misfit`` why its numbers have no interval, ``disagreements`` name the
    quantities whose two intervals do not overlap.
    """

    backend: str
    cell: str
    batch_size: int
    batching: str | None
    energy_status: str
    components: tuple[str, ...]
    points: tuple[PhasePoint, ...]
    repeats: tuple[int, ...]
    incomplete: tuple[int, ...] = ()
    costs: tuple[PhaseCost, ...] = ()
    terms: dict[str, Statistic] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    alike: tuple[tuple[str, str], ...] = ()
    condition_number: float | None = None
    worst_residual: float | None = None
    prices: tuple[Price, ...] = ()
    reason: str | None = None
    misfit: str | None = None
    disagreements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phases:
    """How the joules of a sweep split over input tokens and output tokens.

    ``reason`` says what the sweep lacks where there is no split at all.
    """

    schema_version: int
    sweep: str
    splits: tuple[PhaseSplit, ...]
    reason: str | None = None
