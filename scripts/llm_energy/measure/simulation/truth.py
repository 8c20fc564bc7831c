"""What is true of a simulated host: what it draws, how fast it is, what its sensors show of it.

The defaults are those of one large accelerator and one processor, rounded: enough to be plausible,
and not a claim about any product.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_energy.measure.simulation.power import Cooling


@dataclass(frozen=True)
class GpuTruth:
    """One GPU: its power by phase, its noise, and how its sensors show it.

    In every phase it draws ``slope_w_per_c`` more for each degree above that of the loaded idle.
    The decoding power grows from ``decode_w[0]`` (one request) towards ``decode_w[1]`` (many). The
    energy counter moves every ``tick_s``. After each reading of it ``read_blind_s`` of energy is
    never counted, and while a sampler polls power ``poll_blind_share`` of it: readings that disturb
    have been reported (https://github.com/ml-energy/zeus/issues/181). ``gain`` is the sensors'
    proportional error, of counter and power alike; ``power_gain`` is one of the power alone.
    """

    name: str = "Simulated GPU"
    deep_idle_w: float = 70.0
    slope_w_per_c: float = 0.7
    loaded_idle_w: float = 120.0
    load_w: float = 160.0
    prefill_w: float = 640.0
    decode_w: tuple[float, float] = (400.0, 660.0)
    limit_w: float = 700.0
    default_limit_w: float = 700.0
    noise_sd: float = 0.02
    noise_time_s: float = 0.3
    drift_per_s: float = 0.0
    cooling: Cooling = field(default_factory=Cooling)
    tick_s: float = 0.1
    read_blind_s: float = 0.0
    poll_blind_share: float = 0.0
    gain: float = 1.0
    power_gain: float = 1.0
    memory_bytes: int = 80 * 2**30
    clock_mhz: tuple[int, int] = (345, 1980)
    memory_clock_mhz: int = 2619
    mig: bool = False
    c2c: bool = False
    persistence: bool = True
    ecc: bool = True
    shows_processes: bool = True
    throttled_share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PackageTruth:
    """One CPU socket with its memory, and how the powercap tree shows it.

    ``dies`` are zones that all show the one counter; ``mmio`` shows it once more. ``range_uj`` is
    where the counter wraps.
    """

    idle_w: float = 60.0
    core_w: float = 6.0
    dram_w: tuple[float, float] | None = (12.0, 18.0)
    noise_sd: float = 0.03
    noise_time_s: float = 0.3
    range_uj: int = 262_143_328_850
    dies: int = 1
    mmio: bool = False
    readable: bool = True


@dataclass(frozen=True)
class EngineTruth:
    """How fast the simulated engine is, and what it does wrong.

    A decode step reads all weights once at ``bandwidth_bytes_per_s`` and costs ``sequence_s`` a
    request; prefill computes 2 * parameters * tokens operations at ``operations_per_s``, under
    continuous batching of about ``step_tokens`` in one step.
    ``jitter_sd`` varies each phase's duration; the first passes of a workload are slower by
    ``cold``, and each by the factor ``pace``. In its ``stalls``, (begin, length) in s after the
    begin of timed traffic, it does nothing. It predicts text with ``nll_per_token`` nats a token,
    and reports ``effective`` and ``generation`` besides. The rest are faults; a share is one of
    the requests of a workload.
    """

    parameter_count: int = 8_000_000_000
    bandwidth_bytes_per_s: float = 2.2e12
    operations_per_s: float = 5e14
    step_s: float = 0.0005
    sequence_s: float = 7e-5
    step_tokens: int = 2048
    jitter_sd: float = 0.003
    cold: tuple[float, ...] = (0.3, 0.03)
    pace: float = 1.0
    nll_per_token: float = 2.5
    version: str = "1"
    stalls: tuple[tuple[float, float], ...] = ()
    effective: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    weight_factor: float = 1.0
    cached_share: float = 0.0
    cut_share: float = 0.0
    short_share: float = 0.0
    stop_share: float = 0.0
    abort_share: float = 0.0
    preempted_share: float = 0.0
    repeated_tokens: bool = False
    never_stops: bool = False
    running_limit: int | None = None
    clock_offset_s: float = 0.0
    gpu_uuids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Truth:
    """Everything that is true of a simulated host when it starts.

    ``repeat_sd`` is by how much whole runs differ, in power, for reasons that no sensor shows.
    ``sockets`` says how many there are where not all of them have counters. ``*_per_s`` are what
    the rest of the host does: seconds of processor time that other processes and the hypervisor
    take, pages, faults and bytes read.
    """

    gpus: tuple[GpuTruth, ...] = (GpuTruth(),)
    packages: tuple[PackageTruth, ...] = (PackageTruth(),)
    engine: EngineTruth = EngineTruth()
    repeat_sd: float = 0.004
    sockets: int | None = None
    cpu_count: int = 16
    memory_bytes: int = 256 * 2**30
    swap_bytes: int = 8 * 2**30
    foreign_busy_per_s: float = 0.05
    steal_per_s: float = 0.0
    stalled_per_s: float = 0.001
    swap_pages_per_s: float = 0.0
    major_faults_per_s: float = 0.0
    disk_read_bytes_per_s: float = 20_000.0
    governor: str = "performance"
