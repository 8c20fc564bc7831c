"""What is concluded: verdicts on windows, their metrics, and aggregates over repeats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from llm_energy.records.request_energy import RequestEnergy
from llm_energy.records.window import Outcome, Status

VerdictWord = Literal["valid", "degraded", "invalid"]
Severity = Literal["note", "warning", "invalid"]

IntervalScope = Literal["session", "sessions", "machines"]


@dataclass(frozen=True)
class Flag:
    """What one named check found, with the evidence for it and what to do about it.

    Of ``severity``, ``note`` changes nothing, ``warning`` makes the window degraded, ``invalid``
    excludes it. By ``bias_bound_percent`` the gross energy of the window may be off for it, None
    where nobody can tell. ``title`` is that of the check as it was when it judged; empty in
    verdicts of older versions.
    """

    id: str
    severity: Severity
    evidence: dict[str, Any]
    advice: str
    title: str = ""
    bias_bound_percent: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What may be concluded from one window; the worst flag decides.

    A cell or window without a measured result has ``outcome`` other than ``ok``, ``verdict``
    ``invalid`` and its ``reason``. ``measurement`` is the path of the file, None where none exists.
    ``repeat`` counts from 1 and is 0 for a cell that was not planned. ``bias_bound_percent`` is the
    sum of what the warnings may do to the gross energy, None with a ``bias_reason``.
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
    bias_bound_percent: float | None = None
    bias_reason: str | None = None


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of one backend in one sweep."""

    schema_version: int
    sweep: str
    backend: str
    verdicts: tuple[Verdict, ...]


def check_titles(tables: Iterable[Verdicts]) -> dict[str, str]:
    """Return, by id, the titles of the checks that found something, as the verdicts have them."""
    flags = (flag for table in tables for verdict in table.verdicts for flag in verdict.flags)
    return {flag.id: flag.title for flag in flags if flag.title}


@dataclass(frozen=True)
class Metrics:
    """One window, normalised: one row for the measured joules and one for the estimated ones.

    ``cell`` is the ``model``, ``backend`` and ``precision`` that were measured, joined by two
    hyphens. ``workload`` is its id in the config and ``batch_size`` how many requests it asks for
    at once; ``batching`` says how the engine put them together. ``repeat`` counts the processes of
    the cell from 1. ``verdict`` is ``valid``, ``degraded`` or ``invalid``. ``passes`` counts the
    whole passes over the workload's requests; ``requests``, ``prompt_tokens`` and
    ``output_tokens`` are all of the window, and padding is never counted. ``hostname`` is the host
    that measured. ``measurement`` is the path of the raw record, ``measurement_sha256`` its hash.

    ``energy_status`` says how a row's joules are known; ``components`` which parts it sums
    (``gpu``, ``cpu``, ``dram``). ``gross_energy_j`` are the joules over the window,
    ``net_energy_j`` those minus the loaded-idle power times the window, null with ``net_reason``
    where that baseline is missing. That power is the mean of the baselines or, where the window has
    a hot idle, the power at the window's temperature. Energies per token, request and byte are
    gross unless their name says net. ``ttft_s`` (from when a request was due to its first token,
    queueing included), ``service_ttft_s`` (from the begin of its service), ``queueing_s`` (until
    then), ``tpot_s`` (time per output token after the first) and ``e2e_latency_s`` (arrival to last
    token) are means over requests.
    ``flags`` are the ids of the window's flags. ``simulated`` joules were never drawn.

    Standard uncertainties are of the counters' ticks and of the subtracted baseline (see
    ``uncertainty.py``); an estimate has none, with ``uncertainty_reason``. By ``counter_lag_j`` the
    counters are expected to show too little, ``loaded_idle_drift_w`` is the loaded-idle power after
    minus before, less what temperature explains, ``loaded_idle_excess_w`` by how much that at the
    window's temperature is expected to be above the one that was subtracted, and ``assumptions``
    name what was taken for granted. Facility energy is gross times the site's PUE. The steady state
    is that of continuous batching. Gross energy is split by component as far as the row has it.

    ``nll_per_token`` (nats) and ``perplexity``, its exponential, are of the quality text.
    ``agreement_with_float32`` is the mean share of an output up to the first token that differs
    from what the same model and backend give in float32; null with sampling. ``model_notes`` are
    those of the model's manifest. ``checkpoint`` says which checkpoint, quantised before, was read,
    and what it says of its quantisation. ``accepted_draft_share`` is of the tokens that speculative
    decoding drafted. ``conditions`` is a key of the table's conditions.

    ``floor_energy_per_output_token_j`` is the least that memory and arithmetic take,
    ``roofline_energy_per_output_token_j`` that of hardware at its power limit which nothing else
    holds up; both bound ``limited_energy_per_output_token_j``, the joules of the GPUs or of the
    processors. ``mbu`` and ``mfu`` are the model's bandwidth and FLOP utilisation, 0 to 1.
    ``limits_source`` says where the hardware's rates come from, ``limits_reason`` why there are no
    limits, ``limits_fault`` what is physically impossible.

    ``traffic`` is the mode of timed arrivals; joules and tokens are then those between the edges of
    the window. ``work`` is the hash of what is asked apart from the traffic, ``series`` with the
    traffic but for its rate. ``arrivals_sha256`` and ``prompts_sha256`` are hashes of the arrivals
    and prompts, the same in all cells of a block. ``latencies_s`` are quantiles over
    requests (``ttft_p50`` and so on), of inter-token latency over tokens, all counted from when the
    request was due. ``boot_id`` is the boot in which the repeat ran, ``span_utc_s`` its begin and
    end in s since 1970. ``gpu_memory_gb`` is what the GPUs in use held at the window's end,
    ``weights_gb`` the weights as the engine keeps them.

    Of gross energy, ``attributed_energy_j`` is the part that the engine's steps lay on requests,
    and ``attributed_idle_energy_j`` the rest, drawn while no step ran; ``attributed_reason`` says
    why nothing is attributed. ``request_energy`` has what that is for single requests.
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
    loaded_idle_excess_w: float | None = None
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
    checkpoint: str | None = None
    conditions: str | None = None
    requests_per_s: float | None = None
    accepted_draft_share: float | None = None
    traffic: str | None = None
    requested_rate_per_s: float | None = None
    arrival_rate_per_s: float | None = None
    achieved_rate_per_s: float | None = None
    gap_cv: float | None = None
    work: str | None = None
    series: str | None = None
    arrivals_sha256: str | None = None
    prompts_sha256: str | None = None
    service_ttft_s: float | None = None
    queueing_s: float | None = None
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
    boot_id: str | None = None
    bias_bound_percent: float | None = None
    span_utc_s: tuple[float, float] | None = None
    gpu_memory_gb: float | None = None
    weights_gb: float | None = None
    attributed_energy_j: float | None = None
    attributed_idle_energy_j: float | None = None
    attributed_reason: str | None = None
    request_energy: RequestEnergy | None = None


@dataclass(frozen=True)
class Beside:
    """What is known of a window whose joules are worth nothing: quality, and times if it served.

    ``values`` are by the names of metrics, ``latencies_s`` by those of quantiles.
    """

    cell: str
    workload: str
    repeat: int
    values: dict[str, float]
    latencies_s: dict[str, float]


@dataclass(frozen=True)
class MetricsTable:
    """All metrics of one backend in one sweep, and every window that gave none, with its reason.

    ``conditions`` are those under which windows were measured, by the key that a row names and
    then by the names of ``comparability.FIELDS``. ``beside`` is what windows without usable joules
    still tell.
    """

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[Metrics, ...]
    without: tuple[Verdict, ...]
    conditions: dict[str, dict[str, str]] = field(default_factory=dict)
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Statistic:
    """``mean``, sample SD (``sd``) and 95 % intervals over ``n`` repeats; None where undefined.

    ``ci_*`` is for comparisons on one GPU; it follows from ``standard_uncertainty`` with
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
    def ci_half(self) -> float | None:
        """Return half the width of the interval; None where there is none."""
        return None if self.ci_low is None else (self.ci_high - self.ci_low) / 2

    @property
    def cv(self) -> float | None:
        """Return coefficient of variation, the sample SD over the mean; None where undefined."""
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

    ``n`` repeats entered, of which ``degraded`` carry a warning; ``measurements`` are the paths of
    their raw records and ``hosts`` where they ran. ``excluded`` lists the repeats that did not
    enter, as (repeat, reason). A row whose cell gave no usable window at all has ``n`` 0,
    ``outcome`` and ``reason``, and in ``statistics`` and ``latencies_s`` only what was measured
    beside the joules. ``flags`` and ``assumptions`` are those of any repeat.
    ``not_needed`` repeats were left out on purpose, the interval being narrow enough without them.
    ``outliers`` are repeats far from the others, by metric. ``bias_bound_percent`` is the largest
    of any repeat's verdict. ``interval_scope`` says what the intervals over repeats speak for: the
    one ``session`` of the repeats, or other ``sessions`` or ``machines`` like these, of which each
    counts once; None where there is no such interval. ``request_energy`` joins that of the repeats,
    ``attributed_reason`` says why there is none.
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
    bias_bound_percent: float | None = None
    interval_scope: IntervalScope | None = None
    request_energy: RequestEnergy | None = None
    attributed_reason: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Aggregate:
    """All rows of one backend; ``mixed_backends`` lists the backends pooled against advice."""

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[AggregateRow, ...]
    mixed_backends: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class TableSources:
    """What the tables of a sweep were made from.

    ``tables`` has, by table and row, the (cell, workload) pairs whose measurements the row was made
    from.
    """

    schema_version: int
    sweep: str
    tables: dict[str, dict[str, tuple[tuple[str, str], ...]]]
