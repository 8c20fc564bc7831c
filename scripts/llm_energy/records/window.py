"""One metered interval, and one window of a repeat: its joules, its requests, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from llm_energy.core.errors import RecordError

WHOLE_MODULE = "_whole_module"
Status = Literal["measured", "estimated", "unavailable"]


@dataclass(frozen=True)
class ComponentEnergy:
    """The energy of one component over one interval, with how it is known.

    ``component`` is ``gpu``, ``cpu`` or ``dram``; ``device`` names the GPU or zone. ``energy_j``
    is None exactly when ``status`` is ``unavailable``, and ``reason`` then says why.
    """

    component: str
    device: str | None
    status: Status
    method: str
    energy_j: float | None
    reason: str | None = None

    RULES: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"status": {"const": "unavailable"}}},
        "then": {
            "required": ["reason"],
            "properties": {
                "energy_j": {"type": "null"},
                "reason": {"type": "string", "minLength": 1},
            },
        },
        "else": {"properties": {"energy_j": {"type": "number"}}},
    }

    def __post_init__(self) -> None:
        if (self.energy_j is None) != (self.status == "unavailable"):
            raise RecordError(
                f"component {self.component}: energy_j is {self.energy_j} though the status is "
                f"{self.status}; exactly an unavailable component has null energy"
            )
        if self.status == "unavailable" and not self.reason:
            raise RecordError(f"component {self.component}: unavailable without a reason")

    @property
    def whole_module(self) -> bool:
        """Return whether a GPU's counter is that of a superchip, with its CPU and their memory."""
        return WHOLE_MODULE in self.method


@dataclass(frozen=True)
class GpuActivity:
    """What one GPU went through over an interval, from readings beside its two edges.

    Others' processes are also looked for every few seconds in between.

    Pairs are (start, end); a reading that failed is None. ``throttled_s`` says, by cause, for how
    many seconds of the interval the driver held the clocks down. ``foreign_processes`` are ids of
    processes that compute on the GPU outside this process's tree, None where the driver does not
    show them, and ``graphics_processes`` those that only draw on it, None in older records too;
    ``own_process_seen`` says whether this process's tree was among those shown.
    """

    device: str
    temperature_c: tuple[float | None, float | None]
    sm_clock_mhz: tuple[int | None, int | None]
    memory_clock_mhz: tuple[int | None, int | None]
    power_limit_w: tuple[float | None, float | None]
    memory_used_bytes: tuple[int | None, int | None]
    throttled_s: dict[str, float]
    foreign_processes: tuple[int, ...] | None
    own_process_seen: bool | None
    graphics_processes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class HostActivity:
    """What the host did over an interval, as differences of the kernel's counters; None if unread.

    ``busy_s`` and ``own_busy_s`` are processor seconds of all processes and of this process's tree,
    ``self_busy_s`` those of the measuring process alone, None in older records; where an engine is
    behind a server it is the client, and the rest of the tree is the server and the meter.
    ``steal_s`` those that a hypervisor took, ``stalled_s`` the seconds in which some task waited
    for a processor. ``wall_clock_step_s`` is by how much the wall clock moved against the
    monotonic one. ``duration_s`` is the time between the two readings, None in older records: of
    timed traffic that is the whole stretch, longer than its window.
    """

    busy_s: float | None
    own_busy_s: float | None
    steal_s: float | None
    stalled_s: float | None
    pages_swapped_in: int | None
    major_faults: int | None
    disk_read_bytes: int | None
    wall_clock_step_s: float | None
    self_busy_s: float | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class TraceSummary:
    """What the power trace says of one device over an interval: a second sensor of its energy.

    ``energy_j`` is the trapezoid integral of the samples over the interval, None with fewer than
    two. ``clock_event_reasons`` is the OR of NVML's bit masks, ``utilization_percent`` the mean.
    """

    device: str
    samples: int
    longest_gap_s: float | None
    energy_j: float | None
    max_power_w: float | None
    max_temperature_c: float | None
    clock_event_reasons: int | None
    utilization_percent: float | None


@dataclass(frozen=True)
class Interval:
    """One metered stretch of a repeat: a baseline, the load, or the inside of a window.

    ``name`` is ``window``, ``load``, ``deep_idle``, ``loaded_idle_before``, ``loaded_idle_after``
    or ``hot_idle``. ``boards`` and ``trace`` have an entry for each GPU in use.
    """

    name: str
    start_s: float
    end_s: float
    energy: tuple[ComponentEnergy, ...]
    boards: tuple[GpuActivity, ...] = ()
    host: HostActivity | None = None
    trace: tuple[TraceSummary, ...] = ()

    @property
    def duration_s(self) -> float:
        """Return the length of the interval in seconds."""
        return self.end_s - self.start_s


Outcome = Literal["ok", "oom", "unsupported", "failed", "not_needed"]


@dataclass(frozen=True)
class Completion:
    """One answered request; times are seconds on the monotonic clock.

    ``token_times_s`` has the time of each output token where the engine gives it, else it is None;
    ``service_start_s`` is when the engine began with the request, likewise.
    ``padding_tokens`` counts the pad tokens that this prompt's row was given (never counted as
    prompt tokens). ``counted_tokens`` is how many output tokens a server counted that gave none of
    their ids.
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
    counted_tokens: int | None = None

    @property
    def output_tokens(self) -> int:
        """Count the output tokens, from their ids unless a server gave none."""
        ids = self.output_token_ids
        return len(ids) if self.counted_tokens is None else self.counted_tokens


@dataclass(frozen=True)
class RequestTable:
    """The requests of a window as columns of equal length, one row an answered request.

    ``request_id`` is that of its prompt. ``prompt_tokens`` are without padding, of which
    ``cached_prompt_tokens`` came from a prefix cache; ``padding_tokens`` is what its row was filled
    with. ``output_tokens`` are counted from ids, or by a server that gives none. On the monotonic
    clock, ``arrival_s`` is when a request was due, ``service_start_s`` when the engine began with
    it, ``first_token_s`` and ``last_token_s`` when these tokens were there. ``finish_reason`` is
    ``length``, ``stop`` or ``abort``. Columns with a default may be empty. With timed traffic,
    ``output_tokens_inside`` counts the tokens that came between the window's edges, and rows are
    those that arrived or were served there; without, a window holds all of its requests.
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
    stretch, ramp and drain included, of which GPUs, host and events are. ``hot_idle`` is the
    loaded engine waiting right after the window, while the GPUs are warm; None where not taken.
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
    hot_idle: Interval | None = None
