"""What a repeat needs of the computer it runs on: its clocks, sensors and engines.

There are two kinds: the real machine, and a simulated host with a known truth (``replay/``), under
which the same meter and the same protocol run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from llm_energy.backends import base
from llm_energy.measure import host
from llm_energy.measure.memory_bandwidth import copy_bytes_per_s
from llm_energy.meter.power_sampling.recorder import StartSampler
from llm_energy.records import Host


class Machine(Protocol):
    """A computer as the measuring process meets it; times are seconds.

    ``nvml`` is the module to read GPUs through and ``start_sampler`` what writes their power
    trace, both None for the meter's own.
    """

    sysfs: Path
    procfs: Path
    nvml: Any
    start_sampler: StartSampler | None

    def clock(self) -> float:
        """Return the monotonic time, the one that completions and intervals are stamped with."""

    def wall_clock(self) -> float:
        """Return the seconds since 1970-01-01 UTC."""

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""

    def create_backend(self, name: str) -> base.Backend:
        """Make the backend; BackendUnavailable where its engine is not installed."""

    def describe(self, repository: Path, gpus: tuple[dict[str, Any], ...]) -> Host:
        """Describe the hardware and the software; ``repository`` holds the code."""

    def copy_bytes_per_s(self) -> float | None:
        """Time how fast memory is copied; None where that means nothing."""


class RealMachine:
    """The computer that this process runs on."""

    sysfs = Path("/sys")
    procfs = Path("/proc")
    nvml = None
    start_sampler = None

    clock = staticmethod(time.monotonic)
    wall_clock = staticmethod(time.time)
    sleep = staticmethod(time.sleep)
    create_backend = staticmethod(base.create)
    describe = staticmethod(host.describe)
    copy_bytes_per_s = staticmethod(copy_bytes_per_s)
