"""The window of one workload: its requests, how it was served, and its joules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from llm_energy.records.interval import Interval

Outcome = Literal["ok", "oom", "unsupported", "failed", "not_needed"]


@dataclass(frozen=True)
class Completion:
    """One answered request; times are seconds on the monotonic clock.

    ``token_times_s`` has the time of each output token where the engine gives it, else it is None;
    ``service_start_s`` is when the engine began with the request, likewise.
    ``padding_tokens`` counts the pad tokens that this prompt's row was given (never counted as
    prompt tokens).
    """

    request_id: str
    prompt_tokens: int
    padding_tokens: int
    cached_prompt_tokens: int
    output_token_ids: tuple[int, ...]
    finish_reason: Literal["length", "stop", "abort"]
    arrival_s: float
    first_token_s: float | None
    last_token_s: float | None
    token_times_s: tuple[float, ...] | None = None
    service_start_s: float | None = None


@dataclass(frozen=True)
class RequestTable:
    """The requests of a window as columns of equal length, one row an answered request.

    Times are on the monotonic clock; ``service_start_s`` is when the engine began with a request.
    Output tokens are counted from ids. ``finish_reason`` is ``length``, ``stop`` or ``abort``.
    Columns with a default may be empty. With timed traffic, ``output_tokens_inside`` counts the
    tokens that came between the window's edges, and rows are those that arrived or were served
    there; without, a window holds all of its requests.
    """

    request_id: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    padding_tokens: tuple[int, ...]
    cached_prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    finish_reason: tuple[str, ...]
    arrival_s: tuple[float, ...]
    first_token_s: tuple[float | None, ...]
    last_token_s: tuple[float | None, ...]
    service_start_s: tuple[float | None, ...] = ()
    output_tokens_inside: tuple[int, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """Counts of durations in bins of equal ratio: bin k is from ratio^k s to ratio^(k + 1) s.

    ``bins`` are (k, count), k ascending. A quantile read from it is within half a bin.
    """

    ratio: float
    bins: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrafficReport:
    """What came of timed arrivals in one window, between its edges on the monotonic clock.

    ``arrived`` were due between the edges, ``started`` were taken into service there, ``ended``
    gave their last token there. ``waiting`` (due, not started) and ``in_flight`` (started, not
    ended) are numbers of requests at the two edges. ``gap_cv`` is the coefficient of variation of
    the gaps between arrivals.
    """

    mode: str
    begin_s: float
    end_s: float
    requested_rate_per_s: float | None
    arrived: int
    started: int
    ended: int
    waiting: tuple[int, int]
    in_flight: tuple[int, int]
    gap_cv: float | None

    @property
    def arrival_rate_per_s(self) -> float:
        """Return the rate at which requests really arrived."""
        return self.arrived / (self.end_s - self.begin_s)

    @property
    def achieved_rate_per_s(self) -> float:
        """Return the rate at which requests were taken into service."""
        return self.started / (self.end_s - self.begin_s)


@dataclass(frozen=True)
class SteadyState:
    """The part of a window with continuous batching in which the batch was full throughout.

    In each pass it runs from the moment ``batch_size`` requests have their first token until all
    but ``batch_size + 1`` have ended (the ML.ENERGY benchmark's rule); ``intervals`` has one entry
    a pass. ``output_tokens`` were emitted inside. The prefill of requests that join the batch is
    inside too, so this is not decode alone. Where there is none, ``reason`` says why.
    """

    intervals: tuple[Interval, ...]
    output_tokens: int
    reason: str | None = None


@dataclass(frozen=True)
class Window:
    """The measurement of one workload. ``interval`` is None unless the outcome is ``ok``.

    ``order`` is its place in the repeat, from 0. ``warmup_durations_s`` are the durations of the
    warm-up passes before it; ``warmup_converged`` says whether the last ones agreed, None where
    there were too few to tell, ``warmup_trend`` how they drifted, over their mean; ``passes``
    counts the whole passes over the workload's requests inside it, and ``pass_ends_s`` says when
    each ended. ``output_token_ids`` are those of the first pass, by request id. ``thermal_wait_s``
    is how long the thermal policy held the window back, ``temperature_slope_c_per_10s`` the slope
    at its begin. ``events`` is what the engine counted inside the window (preemptions, cache hits
    and the like). ``inter_token`` counts the gaps between a request's tokens. With timed
    ``traffic`` a window has no passes; it is the part between the edges of a longer metered
    stretch, ramp and drain included, of which GPUs, host and events are.
    """

    workload: str
    order: int
    outcome: Outcome
    reason: str | None
    warmup_durations_s: tuple[float, ...]
    warmup_converged: bool | None
    passes: int
    interval: Interval | None
    requests: RequestTable | None
    output_token_ids: dict[str, tuple[int, ...]]
    effective: dict[str, Any]
    pass_ends_s: tuple[float, ...] = ()
    warmup_trend: float | None = None
    thermal_wait_s: float | None = None
    temperature_slope_c_per_10s: float | None = None
    steady_state: SteadyState | None = None
    events: dict[str, Any] = field(default_factory=dict)
    inter_token: Histogram | None = None
    traffic: TrafficReport | None = None
