"""What is asked of a repeat: its workloads, the protocol, the meter, when requests arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from llm_energy.core.serialize import ONLY_WHERE_SET
from llm_energy.records.files import names
from llm_energy.records.files.paths import repeat_name
from llm_energy.records.registry.precisions import precision_of

ThermalPolicy = Literal["sustained", "cooldown", "none"]


@dataclass(frozen=True)
class Workload:
    """What a cell is asked to do in one window, resolved: universal values and native arguments.

    ``parameters`` holds the universal parameters by their config names, all of them, defaults
    included. ``engine`` holds the native arguments of this workload's generation call.
    ``arrivals_sha256`` is the hash of the Arrivals of its requests, None where all wait from the
    start. Where prompts are drawn anew for each block, ``parameters`` says ``resample_prompts``.
    """

    id: str
    requests: int
    parameters: dict[str, Any]
    engine: dict[str, Any]
    arrivals_sha256: str | None = None

    @property
    def batch_size(self) -> int:
        """Return the batch size: exact for static batching, a hint for continuous batching."""
        return self.parameters["batching"]["batch_size"]

    @property
    def resampled(self) -> bool:
        """Return whether each block has prompts of its own."""
        return bool(self.parameters.get("resample_prompts"))

    def prompts_key(self, repeat: int) -> str:
        """Return the key of a prompt set under which its prompts lie: its id, or one of a block."""
        return f"{self.id}/{repeat_name(repeat)}" if self.resampled else self.id

    def without_draws(self) -> Workload:
        """Return what is asked in every block alike: no seed of sampling, and no arrivals."""
        return Workload(
            self.id,
            self.requests,
            {name: value for name, value in self.parameters.items() if name != "random_seed"},
            {name: value for name, value in self.engine.items() if name != "seed"},
        )


@dataclass(frozen=True)
class Note:
    """Say how one parameter was translated for one backend (see ``compatibility.py``)."""

    parameter: str
    status: str
    message: str


@dataclass(frozen=True)
class Protocol:
    """How a repeat measures. Raising ``version`` is what invalidates older measurements.

    A repeat waits up to ``preflight_max_wait_s`` for an idle host. A window repeats whole passes
    until it has lasted ``window_min_duration_s``; the loaded engine then waits, metered, for
    ``hot_idle_duration_s``. Warm-up takes between ``warmup_min_passes`` and
    ``warmup_max_passes`` and ends when the coefficient of variation of the last ones is below
    ``warmup_cv``. ``warmup_trend`` bounds the drift of the last pass durations, relative to their
    mean. ``thermal_policy`` says in which state a window begins: ``sustained`` waits, serving on,
    until the GPUs' temperature moves less than ``thermal_slope_c_per_10s``; ``cooldown`` rests
    for ``cooldown_duration_s``; ``none`` does neither. With ``target_ci_percent`` a cell's later
    repeats after ``min_repeats`` are left out once the 95 % interval of its joules per output token
    is narrower.
    """

    version: int = 3
    preflight_max_wait_s: float = 60.0
    window_min_duration_s: float = 30.0
    deep_idle_duration_s: float = 10.0
    loaded_idle_duration_s: float = 10.0
    hot_idle_duration_s: float = 5.0
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
    ``carbon_intensity_g_per_kwh`` goes before the country's.
    """

    codecarbon: bool = True
    sampling_period_s: float | None = 0.1
    pue: float | None = None
    country_iso_code: str | None = None
    carbon_intensity_g_per_kwh: float | None = None


@dataclass(frozen=True)
class Sharding:
    """How one cell is spread over ``num_devices`` GPUs, or processes on a CPU."""

    strategy: Literal["none", "tensor_parallel", "device_map", "data_parallel"] = "none"
    num_devices: int = 1


@dataclass(frozen=True)
class Spec:
    """Everything one repeat needs to know, frozen at plan time.

    ``device`` is ``auto``, ``cpu`` or ``cuda``. ``engine`` holds the native arguments of the
    engine's load call. ``seed`` seeds the engine; with sampling it is that of the block.
    ``backend`` is the id of the config's entry; ``variant_of`` names its engine where the id does
    not. ``arguments`` are those of ``engine`` that the entry itself set, by their own names.
    ``checkpoint`` names the quantised checkpoint that is read for the precision, by its
    ``model_name``, ``revision`` and ``source``; the tokenizer is that of the model.
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
    notes: tuple[Note, ...] = field(compare=False)  # words of this version: they change no work
    protocol: Protocol
    meter: MeterSettings
    sharding: Sharding = field(default_factory=Sharding)
    arguments: dict[str, Any] = field(default_factory=dict, metadata=ONLY_WHERE_SET)
    variant_of: str | None = field(default=None, metadata=ONLY_WHERE_SET)
    checkpoint: dict[str, Any] | None = field(default=None, metadata=ONLY_WHERE_SET)

    NAMES: ClassVar[dict[str, Any]] = {
        "sweep": names.SWEEP,
        "cell": names.CELL,
        "model": names.ID,
        "backend": names.ID,
        "precision": names.ID,
    }
    RULES: ClassVar[dict[str, Any]] = {
        "properties": {key: names.schema_of(pattern) for key, pattern in NAMES.items()}
    }

    def __post_init__(self) -> None:
        for key, pattern in self.NAMES.items():
            names.require(pattern, key, getattr(self, key))

    @property
    def engine_id(self) -> str:
        """Return the id of the engine that runs the backend's entry."""
        return self.variant_of or self.backend

    @property
    def asked_precision(self) -> str:
        """Return the name of the precision; ``precision`` is the id that the config gives it."""
        return precision_of(self.workloads[0].parameters)

    @property
    def quantised_before(self) -> str | None:
        """Return the precision of the model's files that are read instead of the whole ones."""
        if self.checkpoint is not None:
            return self.asked_precision
        return "int8" if self.engine.get("load_in_8bit") else None


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
    """The arrivals of every workload of a sweep that has timed traffic, by workload id.

    ``workloads`` has those that are alike in every block, and in files of older versions all;
    ``blocks`` has, by the name of the repeat, those that are drawn for each block.
    """

    schema_version: int
    sweep: str
    workloads: dict[str, Arrivals]
    blocks: dict[str, dict[str, Arrivals]] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Return whether any workload has timed traffic."""
        return bool(self.workloads or self.blocks)

    def of_block(self, repeat: int) -> dict[str, Arrivals]:
        """Return the arrivals of one block, by workload id."""
        return self.workloads | self.blocks.get(repeat_name(repeat), {})


def is_greedy(parameters: dict[str, Any]) -> bool:
    """Return whether the likeliest token is always taken; a temperature of 0 asks for that too."""
    decoder = parameters["decoder"]
    return not decoder["do_sample"] or decoder["temperature"] == 0
