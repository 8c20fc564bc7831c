"""The records that stages hand to each other: frozen dataclasses, each with one JSON form.

The same shapes stand as JSON Schema in ``workflow/schemas/``; a test holds the two equal. All
durations are seconds, all times seconds on the host's monotonic clock, all energies joules. Absent
is ``None`` with a reason beside it, never 0.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llm_energy.conversion import Record, from_dict, to_dict
from llm_energy.errors import LlmEnergyError, RecordError
from llm_energy.files import read_json, write_json, write_text

SCHEMA_VERSION = 1
MAX_EXPONENT = 700.0  # the exponential of more overflows

Status = Literal["measured", "estimated", "unavailable"]
Outcome = Literal["ok", "oom", "unsupported", "failed", "not_needed"]
ThermalPolicy = Literal["sustained", "cooldown", "none"]
VerdictWord = Literal["valid", "degraded", "invalid"]
Severity = Literal["note", "warning", "invalid"]


# what is asked


@dataclass(frozen=True)
class Workload:
    """What a cell is asked to do in one window, resolved: universal values and native arguments.

    ``parameters`` holds the universal parameters by their config names, all of them, defaults
    included. ``engine`` holds the native arguments of this workload's generation call.
    ``arrivals_sha256`` is the hash of the Arrivals of its requests, None where all wait from the
    start.
    """

    id: str
    requests: int
    parameters: dict[str, Any]
    engine: dict[str, Any]
    arrivals_sha256: str | None = None

    @property
    def batch_size(self) -> int:
        """Give the batch size: exact for static batching, a hint for continuous batching."""
        return self.parameters["batching"]["batch_size"]


@dataclass(frozen=True)
class Note:
    """Say how one parameter was translated for one backend (see ``compatibility.py``)."""

    parameter: str
    status: str
    message: str


@dataclass(frozen=True)
class Protocol:
    """How a repeat measures. Raising ``version`` is what invalidates older measurements.

    ``warmup_trend`` bounds the drift of the last pass durations, relative to their mean.
    ``thermal_policy`` says in which state a window begins: ``sustained`` waits, serving on, until
    the boards' temperature moves less than ``thermal_slope_c_per_10s``; ``cooldown`` rests for
    ``cooldown_duration_s``; ``none`` does neither. With ``target_ci_percent`` a cell's later
    repeats are left out once the 95 % interval of its joules per output token is narrower.
    """

    version: int = 2
    preflight_max_wait_s: float = 60.0
    window_min_duration_s: float = 30.0
    deep_idle_duration_s: float = 10.0
    loaded_idle_duration_s: float = 10.0
    warmup_min_passes: int = 2
    warmup_max_passes: int = 10
    warmup_cv: float = 0.05
    warmup_trend: float = 0.02
    thermal_policy: ThermalPolicy = "sustained"
    thermal_slope_c_per_10s: float = 1.0
    thermal_max_wait_s: float = 60.0
    cooldown_duration_s: float = 0.0
    target_ci_percent: float | None = None
    min_repeats: int = 3


@dataclass(frozen=True)
class MeterSettings:
    """What the meter may use, and how energy becomes CO2-equivalent.

    ``sampling_period_s`` is the period of the power trace, None for no trace. ``pue`` is the power
    usage effectiveness of the site, None where it is unknown; no joule of a measurement holds it.
    """

    codecarbon: bool = True
    sampling_period_s: float | None = 0.1
    pue: float | None = None
    country_iso_code: str | None = None
    carbon_intensity_g_per_kwh: float | None = None


@dataclass(frozen=True)
class Sharding:
    """How one cell is spread over ``num_devices`` boards, or processes on a CPU."""

    strategy: Literal["none", "tensor_parallel", "device_map", "data_parallel"] = "none"
    num_devices: int = 1


@dataclass(frozen=True)
class Spec:
    """Everything one repeat needs to know, frozen at plan time.

    ``device`` is ``auto``, ``cpu`` or ``cuda``. ``engine`` holds the native arguments of the
    engine's load call. ``seed`` orders the workloads and seeds the engine.
    """

    schema_version: int
    sweep: str
    cell: str
    model: str
    backend: str
    precision: str
    repeat: int
    seed: int
    device: str
    engine: dict[str, Any]
    workloads: tuple[Workload, ...]
    notes: tuple[Note, ...]
    protocol: Protocol
    meter: MeterSettings
    sharding: Sharding = field(default_factory=Sharding)


@dataclass(frozen=True)
class Arrivals:
    """When requests arrive, in seconds after the begin of their traffic, on every backend alike.

    The window is from ``begin_s`` to ``end_s``; what arrives before is the ramp. ``times_s`` is
    empty in a closed loop, where a request arrives as soon as fewer than ``concurrency`` are under
    way. ``tokens`` are (prompt, output) tokens by arrival, where a trace gives them.
    """

    mode: str
    begin_s: float
    end_s: float
    times_s: tuple[float, ...] = ()
    rate_per_s: float | None = None
    concurrency: int | None = None
    tokens: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ArrivalSet:
    """The arrivals of every workload of a sweep that has timed traffic, by workload id."""

    schema_version: int
    sweep: str
    workloads: dict[str, Arrivals]


# what a model and its prompts are


@dataclass(frozen=True)
class ModelManifest:
    """Say where a model's files came from and what they are, by hash.

    ``weights_sha256`` is the hash of the sorted list of (file name, SHA-256) of the weight files;
    ``tokenizer_sha256`` likewise. ``notes`` tell what a reader must know, such as a conversion.
    """

    schema_version: int
    model: str
    model_name: str
    source: dict[str, Any]
    files: dict[str, str]
    weights_sha256: str
    tokenizer_sha256: str
    weight_bytes: int
    parameter_count: int | None
    dtype: str | None
    converted_by: dict[str, str] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One prompt as the engine gets it: token ids, special tokens and template included.

    ``output_tokens`` is the length that its answer must have, None where the workload's holds.
    """

    id: str
    prompt_token_ids: tuple[int, ...]
    output_tokens: int | None = None


@dataclass(frozen=True)
class QualityText:
    """A fixed text as token ids, passage by passage; ``sha256`` is the hash of its file.

    ``bytes_per_token`` are the UTF-8 bytes of the whole text over all of its tokens.
    """

    name: str
    sha256: str
    passages: tuple[tuple[int, ...], ...]
    bytes_per_token: float | None = None


@dataclass(frozen=True)
class PromptSet:
    """The requests of every workload for one model, tokenised once and given to every backend.

    ``sha256`` is, by workload id, the hash of the list of (id, prompt token ids). ``quality`` is
    the text that is scored outside the windows, None where that is switched off.
    """

    schema_version: int
    model: str
    tokenizer_sha256: str
    source: dict[str, Any]
    requests: dict[str, tuple[Request, ...]]
    sha256: dict[str, str]
    quality: QualityText | None = None


# what is measured


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
class ComponentEnergy:
    """The energy of one component over one interval, with how it is known.

    ``component`` is ``gpu``, ``cpu`` or ``dram``; ``device`` names the board or zone. ``energy_j``
    is None exactly when ``status`` is ``unavailable``, and ``reason`` then says why.
    """

    component: str
    device: str | None
    status: Status
    method: str
    energy_j: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.energy_j is None) != (self.status == "unavailable"):
            raise RecordError(
                f"component {self.component}: energy_j is {self.energy_j} though the status is "
                f"{self.status}; exactly an unavailable component has null energy"
            )
        if self.status == "unavailable" and not self.reason:
            raise RecordError(f"component {self.component}: unavailable without a reason")


@dataclass(frozen=True)
class BoardActivity:
    """What one GPU went through over an interval, from readings beside its two edges.

    Pairs are (start, end); a reading that failed is None. ``throttled_s`` says, by cause, for how
    many seconds of the interval the driver held the clocks down. ``foreign_processes`` are process
    ids on the board outside this process's tree, None where the driver does not show them;
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


@dataclass(frozen=True)
class HostActivity:
    """What the host did over an interval, as differences of the kernel's counters; None if unread.

    ``busy_s`` and ``own_busy_s`` are processor seconds of all processes and of this process's tree,
    ``steal_s`` those that a hypervisor took, ``stalled_s`` the seconds in which some task waited
    for a processor. ``wall_clock_step_s`` is by how much the wall clock moved against the
    monotonic one.
    """

    busy_s: float | None
    own_busy_s: float | None
    steal_s: float | None
    stalled_s: float | None
    pages_swapped_in: int | None
    major_faults: int | None
    disk_read_bytes: int | None
    wall_clock_step_s: float | None


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
    """One metered stretch of a repeat: a baseline, the load, or the inside of a window."""

    name: str
    start_s: float
    end_s: float
    energy: tuple[ComponentEnergy, ...]
    boards: tuple[BoardActivity, ...] = ()
    host: HostActivity | None = None
    trace: tuple[TraceSummary, ...] = ()

    @property
    def duration_s(self) -> float:
        """Give the length of the interval in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class RequestTable:
    """The requests of a window as columns of equal length, one row an answered request.

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
        """Give the rate at which requests really arrived."""
        return self.arrived / (self.end_s - self.begin_s)

    @property
    def achieved_rate_per_s(self) -> float:
        """Give the rate at which requests were taken into service."""
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

    ``warmup_durations_s`` are the durations of the warm-up passes before it; ``passes`` counts the
    whole passes over the workload's requests inside it, and ``pass_ends_s`` says when each ended.
    ``output_token_ids`` are those of the first pass, by request id. ``thermal_wait_s`` is how long
    the thermal policy held the window back, ``temperature_slope_c_per_10s`` the slope at its begin.
    ``events`` is what the engine counted inside the window (preemptions, cache hits and the like).
    ``inter_token`` counts the gaps between a request's tokens. With timed ``traffic`` a window has
    no passes; it is the part between the edges of a longer metered stretch, ramp and drain
    included, of which boards, host and events are.
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


@dataclass(frozen=True)
class Condition:
    """One thing that should hold before a repeat begins, and whether it did."""

    name: str
    ok: bool
    found: str
    allowed: str


@dataclass(frozen=True)
class Preflight:
    """The state of the host just before a repeat, and how long the repeat waited for it."""

    wait_s: float
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class MeterReport:
    """How well this host's sensors measured in one repeat.

    ``counter_tick_s`` is, by board, the measured time between two changes of its energy counter,
    None where it never moved. ``trace`` is the path of the power trace beside the measurement,
    None with ``trace_reason``. ``simulated`` is True when a simulated host was metered: no joule of
    such a repeat was ever drawn.
    """

    counter_tick_s: dict[str, float | None]
    trace: str | None
    trace_sha256: str | None
    trace_reason: str | None
    simulated: bool
    package_versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """The machine and the software that measured, as the measuring process saw them.

    ``settings`` are what the kernel is set to where it bears on energy: frequency governor,
    simultaneous multithreading, turbo, swap, container. ``batch_job`` is the job of a batch system
    that the process ran in, with the system's own name of the node; empty outside of one.
    ``copy_bytes_per_s`` is how fast memory was copied before anything was metered (reads and writes
    counted), timed only where processors do the work.
    """

    hostname: str
    boot_id: str | None
    os: str
    kernel: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    gpus: tuple[dict[str, Any], ...]
    python: str
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    settings: dict[str, Any] = field(default_factory=dict)
    batch_job: dict[str, str] = field(default_factory=dict)
    copy_bytes_per_s: float | None = None


@dataclass(frozen=True)
class Clock:
    """One instant on both clocks, so that monotonic times can be placed on the calendar."""

    monotonic_s: float
    utc: str


@dataclass(frozen=True)
class Quality:
    """How well the loaded model predicted a fixed text under teacher forcing, outside all windows.

    ``total_nll`` is the negative log-likelihood of the ``tokens`` scored, in nats; None with its
    ``reason``. Values compare only where ``token_ids_sha256`` is the same.
    """

    text: str
    text_sha256: str
    token_ids_sha256: str
    tokens: int
    total_nll: float | None
    reason: str | None = None
    bytes_per_token: float | None = None

    @property
    def nll_per_token(self) -> float | None:
        """Give the mean negative log-likelihood of a token, in nats."""
        return None if self.total_nll is None else self.total_nll / self.tokens

    @property
    def perplexity(self) -> float | None:
        """Give the exponential of that, None where it is no finite number."""
        nll = self.nll_per_token
        return None if nll is None or nll > MAX_EXPONENT else math.exp(nll)


@dataclass(frozen=True)
class Measurement:
    """The raw record of one repeat; never edited afterwards.

    ``effective`` is what the engine reports that it used. ``baselines`` are the intervals
    ``deep_idle``, ``loaded_idle_before`` and ``loaded_idle_after`` as far as they were taken.
    """

    schema_version: int
    spec: Spec
    spec_sha256: str
    outcome: Outcome
    reason: str | None
    clock: Clock
    lock_wait_s: float
    host: Host
    weights_sha256: str
    tokenizer_sha256: str
    prompts_sha256: dict[str, str]
    effective: dict[str, Any]
    carbon_intensity: dict[str, Any] | None
    baselines: tuple[Interval, ...]
    load: Interval | None
    windows: tuple[Window, ...]
    end_s: float
    preflight: Preflight | None = None
    meter: MeterReport | None = None
    quality: Quality | None = None
    parameter_count: int | None = None
    model_notes: tuple[str, ...] = ()
    arrivals_sha256: dict[str, str] = field(default_factory=dict)


# what is concluded


@dataclass(frozen=True)
class Flag:
    """What one named check found, with the evidence for it and what to do about it."""

    id: str
    severity: Severity
    evidence: dict[str, Any]
    advice: str


@dataclass(frozen=True)
class Verdict:
    """What may be concluded from one window; the worst flag decides.

    A cell or window without a measured result has ``outcome`` other than ``ok``, ``verdict``
    ``invalid`` and its ``reason``. ``measurement`` is the path of the file, None where none exists.
    """

    cell: str
    repeat: int
    workload: str
    outcome: Outcome | Literal["missing"]
    reason: str | None
    measurement: str | None
    measurement_sha256: str | None
    verdict: VerdictWord
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of one backend in one sweep."""

    schema_version: int
    sweep: str
    backend: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Metrics:
    """One window, normalised: one row for the measured joules and one for the estimated ones.

    ``energy_status`` says which of the two the row is; ``components`` which parts it sums
    (``gpu``, ``cpu``, ``dram``). ``net`` is gross minus the loaded-idle power times the window,
    null with ``net_reason`` where that baseline is missing. Latencies are means over requests.
    ``flags`` are the ids of the window's flags. ``simulated`` joules were never drawn.

    Standard uncertainties are of the counters' ticks and of the subtracted baseline (see
    ``uncertainty.py``); an estimate has none, with ``uncertainty_reason``. By ``counter_lag_j`` the
    counters are expected to show too little, ``loaded_idle_drift_w`` is the loaded-idle power after
    minus before, and ``assumptions`` name what was taken for granted. Facility energy is gross
    times the site's PUE. The steady state is that of continuous batching. Gross energy is split by
    component as far as the row has it.

    ``nll_per_token`` (nats) and ``perplexity``, its exponential, are of the quality text.
    ``agreement_with_float32`` is the mean share of an output up to the first token that differs
    from what the same model and backend give in float32; null with sampling. ``model_notes`` are
    those of the model's manifest.

    ``traffic`` is the mode of timed arrivals; joules and tokens are then those between the edges of
    the window. ``work`` is the hash of what is asked apart from the traffic, ``series`` with the
    traffic but for its rate. ``latencies_s`` are quantiles over requests (``ttft_p50`` and so on),
    of inter-token latency over tokens, all counted from when the request was due.
    """

    cell: str
    model: str
    backend: str
    precision: str
    workload: str
    batch_size: int
    repeat: int
    verdict: VerdictWord
    flags: tuple[str, ...]
    energy_status: Status
    components: tuple[str, ...]
    duration_s: float
    passes: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    gross_energy_j: float
    net_energy_j: float | None
    net_reason: str | None
    mean_power_w: float
    loaded_idle_power_w: float | None
    energy_per_output_token_j: float | None
    energy_per_total_token_j: float | None
    energy_per_request_j: float | None
    net_energy_per_output_token_j: float | None
    co2e_g_per_output_token: float | None
    output_tokens_per_s: float
    ttft_s: float | None
    tpot_s: float | None
    e2e_latency_s: float | None
    hostname: str
    measurement: str
    measurement_sha256: str
    batching: str | None = None
    simulated: bool = False
    gross_energy_standard_uncertainty_j: float | None = None
    net_energy_standard_uncertainty_j: float | None = None
    uncertainty_reason: str | None = None
    counter_lag_j: float | None = None
    loaded_idle_drift_w: float | None = None
    assumptions: tuple[str, ...] = ()
    facility_energy_per_output_token_j: float | None = None
    steady_state_energy_per_output_token_j: float | None = None
    gpu_energy_per_output_token_j: float | None = None
    cpu_energy_per_output_token_j: float | None = None
    dram_energy_per_output_token_j: float | None = None
    nll_per_token: float | None = None
    perplexity: float | None = None
    agreement_with_float32: float | None = None
    model_notes: tuple[str, ...] = ()
    conditions: str | None = None
    requests_per_s: float | None = None
    traffic: str | None = None
    requested_rate_per_s: float | None = None
    arrival_rate_per_s: float | None = None
    achieved_rate_per_s: float | None = None
    gap_cv: float | None = None
    work: str | None = None
    series: str | None = None
    latencies_s: dict[str, float] = field(default_factory=dict)
    energy_per_utf8_byte_j: float | None = None
    floor_energy_per_output_token_j: float | None = None
    roofline_energy_per_output_token_j: float | None = None
    limited_energy_per_output_token_j: float | None = None
    mbu: float | None = None
    mfu: float | None = None
    limits_source: str | None = None
    limits_reason: str | None = None
    limits_fault: str | None = None


@dataclass(frozen=True)
class MetricsTable:
    """All metrics of one backend in one sweep, and every window that gave none, with its reason.

    ``conditions`` are those under which windows were measured, by the key that a row names and
    then by the names of ``comparability.FIELDS``.
    """

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[Metrics, ...]
    without: tuple[Verdict, ...]
    conditions: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Statistic:
    """Mean, sample SD and 95 % intervals over ``n`` repeats; None where undefined.

    ``ci_*`` is for comparisons on one board; it follows from ``standard_uncertainty`` with
    ``degrees_of_freedom`` (None without a bound). ``absolute_ci_*`` adds the sensor's own error.
    """

    n: int
    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    standard_uncertainty: float | None = None
    degrees_of_freedom: float | None = None
    absolute_ci_low: float | None = None
    absolute_ci_high: float | None = None

    @property
    def cv(self) -> float | None:
        """Give the coefficient of variation, the sample SD over the mean; None where undefined."""
        return self.sd / self.mean if self.sd is not None and self.mean else None


@dataclass(frozen=True)
class Outlier:
    """Repeats whose value of one metric lies far from the others', and the summary without them.

    They are flagged and nothing else: the row's own statistics hold them.
    """

    metric: str
    repeats: tuple[int, ...]
    without: Statistic


@dataclass(frozen=True)
class AggregateRow:
    """One cell and workload over its repeats. ``statistics`` is keyed by the metric's name.

    ``excluded`` lists the repeats that did not enter, as (repeat, reason). A row whose cell gave no
    usable window at all has ``n`` 0, ``outcome`` and ``reason``. ``flags`` and ``assumptions`` are
    those of any repeat. ``not_needed`` repeats were left out on purpose, the interval being narrow
    enough without them.
    """

    cell: str
    model: str
    backend: str
    precision: str
    workload: str
    batch_size: int | None
    outcome: str
    reason: str | None
    energy_status: Status
    components: tuple[str, ...]
    n: int
    degraded: int
    statistics: dict[str, Statistic]
    excluded: tuple[tuple[int, str], ...]
    flags: tuple[str, ...]
    hosts: tuple[str, ...]
    measurements: tuple[str, ...]
    batching: str | None = None
    simulated: bool = False
    not_needed: tuple[int, ...] = ()
    assumptions: tuple[str, ...] = ()
    model_notes: tuple[str, ...] = ()
    traffic: str | None = None
    work: str | None = None
    latencies_s: dict[str, Statistic] = field(default_factory=dict)
    outliers: tuple[Outlier, ...] = ()


@dataclass(frozen=True)
class Aggregate:
    """All rows of one backend; ``mixed_backends`` lists the backends pooled against advice."""

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[AggregateRow, ...]
    mixed_backends: tuple[str, ...] = field(default=())


# reading and writing


def read_record(cls: type[Record], path: str | Path) -> Record:
    """Read one record of type ``cls`` from a JSON file; errors name the file and the key."""
    return parse_record(cls, read_json(path), path)


def parse_record(cls: type[Record], data: Any, path: str | Path) -> Record:
    """Build a record from the JSON values that were read from ``path``."""
    found = data.get("schema_version") if isinstance(data, dict) else None
    if found != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}"
        )
    return from_dict(cls, data, str(path))


def holds_already(path: str | Path, record: Any) -> bool:
    """Tell whether a file says what ``record`` says, also where an older version wrote it.

    A key that was added since, and that has its default in ``record``, says nothing new.
    """
    try:
        return read_record(type(record), path) == record
    except LlmEnergyError:
        return False


def write_record(path: str | Path, record: Any) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, to_dict(record))


def write_rows(path: str | Path, record: Any) -> None:
    """Write a record that holds many others as JSON, atomically, each of them on a line."""
    write_text(path, rows_text(record))


def rows_text(record: Any) -> str:
    """Give the JSON text of a record that holds many others.

    The encoder takes records as they are, and is the fast one, since it indents nothing.
    """
    fields = []
    for name, value in vars(record).items():
        if isinstance(value, tuple) and value:
            text = "[\n" + ",\n".join(map(_ENCODE, value)) + "\n]"
        else:
            text = _ENCODE(value)
        fields.append(f'"{name}": {text}')
    return "{\n" + ",\n".join(fields) + "\n}\n"


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=vars).encode
