"""The records that stages hand to each other: frozen dataclasses, each with one JSON form.

The same shapes stand as JSON Schema in ``workflow/schemas/``; a test holds the two equal. All
durations are seconds, all times seconds on the host's monotonic clock, all energies joules. Absent
is ``None`` with a reason beside it, never 0.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from llm_energy.errors import RecordError
from llm_energy.files import read_json, write_json

SCHEMA_VERSION = 1

Status = Literal["measured", "estimated", "unavailable"]
Outcome = Literal["ok", "oom", "unsupported", "failed"]
VerdictWord = Literal["valid", "degraded", "invalid"]
Severity = Literal["note", "warning", "invalid"]


# what is asked


@dataclass(frozen=True)
class Workload:
    """What a cell is asked to do in one window, resolved: universal values and native arguments.

    ``parameters`` holds the universal parameters by their config names, all of them, defaults
    included. ``engine`` holds the native arguments of this workload's generation call.
    """

    id: str
    requests: int
    parameters: dict[str, Any]
    engine: dict[str, Any]

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
    """How a repeat measures. Raising ``version`` is what invalidates older measurements."""

    version: int = 1
    window_min_duration_s: float = 30.0
    deep_idle_duration_s: float = 10.0
    loaded_idle_duration_s: float = 10.0
    warmup_min_passes: int = 2
    warmup_max_passes: int = 10
    warmup_cv: float = 0.05


@dataclass(frozen=True)
class MeterSettings:
    """What the meter may use, and how energy becomes CO2-equivalent."""

    codecarbon: bool = True
    country_iso_code: str | None = None
    carbon_intensity_g_per_kwh: float | None = None


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
    """One prompt as the engine gets it: token ids, special tokens and template included."""

    id: str
    prompt_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """The requests of every workload for one model, tokenised once and given to every backend.

    ``sha256`` is, by workload id, the hash of the list of (id, prompt token ids).
    """

    schema_version: int
    model: str
    tokenizer_sha256: str
    source: dict[str, Any]
    requests: dict[str, tuple[Request, ...]]
    sha256: dict[str, str]


# what is measured


@dataclass(frozen=True)
class Completion:
    """One answered request; times are seconds on the monotonic clock.

    ``token_times_s`` has the time of each output token where the engine gives it, else it is None.
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
class Interval:
    """One metered stretch of a repeat: a baseline, the load, or the inside of a window."""

    name: str
    start_s: float
    end_s: float
    energy: tuple[ComponentEnergy, ...]

    @property
    def duration_s(self) -> float:
        """Give the length of the interval in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class RequestTable:
    """The requests of a window as columns of equal length, one row an answered request."""

    request_id: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    padding_tokens: tuple[int, ...]
    cached_prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    finish_reason: tuple[str, ...]
    arrival_s: tuple[float, ...]
    first_token_s: tuple[float | None, ...]
    last_token_s: tuple[float | None, ...]


@dataclass(frozen=True)
class Window:
    """The measurement of one workload. ``interval`` is None unless the outcome is ``ok``.

    ``warmup_durations_s`` are the durations of the warm-up passes before it; ``passes`` counts the
    whole passes over the workload's requests inside it. ``output_token_ids`` are those of the first
    pass, by request id. ``output_utf8_bytes`` is the size of all decoded output, or None.
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


@dataclass(frozen=True)
class Host:
    """The machine and the software that measured, as the measuring process saw them."""

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


@dataclass(frozen=True)
class Clock:
    """One instant on both clocks, so that monotonic times can be placed on the calendar."""

    monotonic_s: float
    utc: str


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
    ``flags`` are the ids of the window's flags.
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


@dataclass(frozen=True)
class MetricsTable:
    """All metrics of one backend in one sweep, and every window that gave none, with its reason."""

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[Metrics, ...]
    without: tuple[Verdict, ...]


@dataclass(frozen=True)
class Statistic:
    """Mean, sample SD and 95 % t-interval over ``n`` repeats; None where undefined."""

    n: int
    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class AggregateRow:
    """One cell and workload over its repeats. ``statistics`` is keyed by the metric's name.

    ``excluded`` lists the repeats that did not enter, as (repeat, reason). A row whose cell gave no
    usable window at all has ``n`` 0, ``outcome`` and ``reason``. ``flags`` are those of any repeat.
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


@dataclass(frozen=True)
class Aggregate:
    """All rows of one backend; ``mixed_backends`` lists the backends pooled against advice."""

    schema_version: int
    sweep: str
    backend: str
    rows: tuple[AggregateRow, ...]
    mixed_backends: tuple[str, ...] = field(default=())


# reading and writing

Record = TypeVar("Record")


def to_dict(record: Any) -> Any:
    """Turn a record into plain JSON values, nested records included."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, (list, tuple)):
        return [to_dict(item) for item in record]
    if isinstance(record, dict):
        return {key: to_dict(value) for key, value in record.items()}
    return record


def from_dict(cls: type[Record], data: Any, where: str = "") -> Record:
    """Build a record of type ``cls`` from JSON values.

    Unknown keys, missing keys and values of another type raise a RecordError that names the place.
    """
    try:
        return _converter(cls)(data)
    except _Mismatch as mismatch:
        place = (where or cls.__name__) + "".join(reversed(mismatch.path))
        raise RecordError(f"{place}: {mismatch}") from None


def read_record(cls: type[Record], path: str | Path) -> Record:
    """Read one record of type ``cls`` from a JSON file; errors name the file and the key."""
    data = read_json(path)
    found = data.get("schema_version") if isinstance(data, dict) else None
    if found != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}"
        )
    return from_dict(cls, data, str(path))


def write_record(path: str | Path, record: Any) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, to_dict(record))


class _Mismatch(Exception):
    """A value that does not fit; ``path`` collects where it stands while the error travels up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []


Converter = Callable[[Any], Any]

_SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
}


@functools.cache
def _converter(kind: Any) -> Converter:
    """Make, once a type, the function that checks and converts a JSON value of that type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    if origin in (typing.Union, types.UnionType):
        return _union_converter(arguments)
    if origin is Literal:
        return _literal_converter(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return _list_converter(arguments[0])
    if origin is tuple:
        return _pair_converter(arguments)
    if origin is dict:
        return _mapping_converter(arguments[1])
    return _scalar_converter(kind)


def _scalar_converter(kind: type) -> Converter:
    allowed = _SCALARS[kind]

    def convert(value: Any) -> Any:
        if type(value) not in allowed:
            raise _Mismatch(f"found {value!r}, allowed {kind.__name__}")
        return value

    return convert


def _literal_converter(allowed: tuple[Any, ...]) -> Converter:
    def convert(value: Any) -> Any:
        if value not in allowed:
            raise _Mismatch(f"found {value!r}, allowed {', '.join(map(repr, allowed))}")
        return value

    return convert


def _union_converter(kinds: tuple[Any, ...]) -> Converter:
    """Take the first kind that fits; where none does, the first one's complaint is reported."""
    nullable = type(None) in kinds
    converters = [_converter(kind) for kind in kinds if kind is not type(None)]

    def convert(value: Any) -> Any:
        if value is None and nullable:
            return None
        first: _Mismatch | None = None
        for converter in converters:
            try:
                return converter(value)
            except _Mismatch as mismatch:
                first = first or mismatch
        raise first or _Mismatch(f"found {value!r}")

    return convert


def _list_converter(kind: Any) -> Converter:
    item, scalars = _converter(kind), frozenset(_SCALARS.get(kind, ()))

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(f"found {type(value).__name__}, allowed a list")
        if scalars and scalars.issuperset(map(type, value)):
            return tuple(value)  # long columns of numbers are most of a measurement
        return tuple(_at(f"[{index}]", item, one) for index, one in enumerate(value))

    return convert


def _pair_converter(kinds: tuple[Any, ...]) -> Converter:
    items = [_converter(kind) for kind in kinds]

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != len(items):
            raise _Mismatch(f"found {value!r}, allowed a list of {len(items)}")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_at(f"[{index}]", item, one) for index, (item, one) in pairs)

    return convert


def _mapping_converter(kind: Any) -> Converter:
    item = _converter(kind)

    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        return {key: _at(f".{key}", item, one) for key, one in value.items()}

    return convert


def _dataclass_converter(kind: Any) -> Converter:
    hints = typing.get_type_hints(kind)
    items = {name: _converter(hint) for name, hint in hints.items()}
    required = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"found {type(value).__name__}, allowed a mapping")
        for name in value:
            if name not in items:
                raise _Mismatch(f"unknown key {name!r}, allowed {', '.join(items)}")
        for name in required:
            if name not in value:
                raise _Mismatch(f"missing key {name!r}")
        arguments = {name: _at(f".{name}", items[name], one) for name, one in value.items()}
        try:
            return kind(**arguments)
        except RecordError as error:
            raise _Mismatch(str(error)) from None

    return convert


def _at(place: str, converter: Converter, value: Any) -> Any:
    """Convert ``value``; should that fail, note the place on the way out."""
    try:
        return converter(value)
    except _Mismatch as mismatch:
        mismatch.path.append(place)
        raise
