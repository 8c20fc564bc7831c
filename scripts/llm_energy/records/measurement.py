"""The raw record of one repeat: the host, the meter and the engine around its windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from llm_energy.core.errors import RecordError
from llm_energy.core.serialize import ONLY_WHERE_SET
from llm_energy.records.spec import Spec
from llm_energy.records.window import Interval, Outcome, Window

MAX_EXPONENT = 700.0  # the exponential of more overflows


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

    ``counter_tick_s`` is, by GPU, the measured time between two changes of its energy counter,
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
class StepReport:
    """The file of the engine's steps beside the measurement: its path and SHA-256.

    Both are None where there is none. ``reason`` says why all windows, or some, have none.
    """

    path: str | None
    sha256: str | None
    reason: str | None = None


@dataclass(frozen=True)
class CounterReadings:
    """Every raw reading of one energy counter in a repeat, as columns in their order in time.

    ``value`` is what the source showed, in its own ``unit``, None where it could not be read. The
    host's monotonic clock was ``start_s`` just before and ``end_s`` just after. ``edge_s`` is the
    time that intervals which begin or end with the reading are given; it is None for what was read
    between, of which only the two readings around each wrap are kept. A counter with ``wraps_at``
    goes round there: the joules between two readings are their difference, and ``wraps_at`` for
    each fall in between. ``Measurement.clock`` puts the times on the calendar.

    The time stamp of the driver (NVML's field 83) is not kept: on an H200 it is the time at which
    the counter is read, not that of its last tick, so it says nothing that the host's does not.
    """

    component: str
    device: str
    unit: Literal["mJ", "uJ"]
    wraps_at: int | None
    edge_s: tuple[float | None, ...]
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    value: tuple[float | None, ...]

    def __post_init__(self) -> None:
        columns = (self.edge_s, self.start_s, self.end_s, self.value)
        if len(set(map(len, columns))) > 1:
            raise RecordError(
                f"readings of {self.component} {self.device}: columns of unequal length"
            )


@dataclass(frozen=True)
class Host:
    """The machine and the software that measured, as the measuring process saw them.

    Monotonic times of one ``boot_id`` are comparable. ``cpu_count`` are the logical processors that
    the process may use. ``git_commit`` is that of this project, None outside a checkout.
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

    RULES: ClassVar[dict[str, Any]] = {
        "properties": {"gpus": {"items": {"properties": {"uuid": {"type": ["string", "null"]}}}}}
    }

    def __post_init__(self) -> None:
        for uuid in (gpu.get("uuid") for gpu in self.gpus):
            if uuid is not None and not isinstance(uuid, str):
                raise RecordError(f"gpus: uuid is {uuid!r}, allowed str")


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
        """Return the mean negative log-likelihood of a token, in nats."""
        return None if self.total_nll is None else self.total_nll / self.tokens

    @property
    def perplexity(self) -> float | None:
        """Return the exponential of that, None where it is no finite number."""
        nll = self.nll_per_token
        return None if nll is None or nll > MAX_EXPONENT else math.exp(nll)


@dataclass(frozen=True)
class Measurement:
    """The raw record of one repeat; never edited afterwards.

    ``clock`` is its start, ``end_s`` its end; ``lock_wait_s`` is how long it waited for the lock
    that one measurement at a time holds. ``load`` is the interval of loading the model, ``windows``
    are in the order measured. ``carbon_intensity`` is in grams of CO2-equivalent per kWh, with its
    source. Hashes of prompts and arrivals are by workload id. ``effective`` is what the engine
    reports that it used. ``baselines`` are the intervals ``deep_idle``, ``loaded_idle_before`` and
    ``loaded_idle_after`` as far as they were taken. ``readings`` are those of the counters at every
    edge and mark, from protocol version 3 on; every measured joule is a difference of two.
    ``steps`` tells of the file of the engine's steps, None in older records.
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
    readings: tuple[CounterReadings, ...] = ()
    steps: StepReport | None = field(default=None, metadata=ONLY_WHERE_SET)


@dataclass(frozen=True)
class Failure:
    """Why there is no measurement of a repeat, which the next run tries again.

    ``exit_status`` is that of the process as its shell saw it (128 and the number of the signal
    that ended it), None where the job ended as a whole; ``log`` is the path of what it said.
    """

    schema_version: int
    outcome: Literal["oom", "failed"]
    reason: str
    exit_status: int | None
    log: str | None
