"""What can be seen of GPUs and host at one moment, before an interval and inside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class GpuGlance:
    """One GPU at one moment; None for what could not be read.

    ``clock_event_reasons`` is NVML's bit mask. ``foreign_processes`` are those that compute on the
    GPU outside this process's tree, None where the driver does not show them. ``graphics_bytes``
    is what others' processes hold that only draw, such as a display server.
    """

    device: str
    temperature_c: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    graphics_bytes: int | None = None
    foreign_processes: tuple[int, ...] | None = None
    clock_event_reasons: int | None = None
    mig: bool | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None

    @property
    def held_bytes(self) -> int | None:
        """Return the memory in use without that of processes that only draw."""
        if self.memory_used_bytes is None:
            return None
        return self.memory_used_bytes - (self.graphics_bytes or 0)


class Tenants(NamedTuple):
    """The ids of others' processes on a GPU: those that compute, and those that only draw."""

    computing: tuple[int, ...]
    drawing: tuple[int, ...]


@dataclass(frozen=True)
class Look:
    """What was seen at one moment inside an interval.

    ``energy_uj`` is the counter of each RAPL zone, ``tenants`` who else was on each GPU; what
    could not be read is left out.
    """

    time_s: float
    energy_uj: dict[str, int] = field(default_factory=dict)
    tenants: dict[str, Tenants] = field(default_factory=dict)


@dataclass(frozen=True)
class Glance:
    """GPUs and host at one moment. ``load_per_cpu`` is the mean of the last minute."""

    gpus: tuple[GpuGlance, ...]
    load_per_cpu: float | None
    memory_available_bytes: int | None
    swap_used_bytes: int | None


def glance_at_host(procfs: Path, gpus: tuple[GpuGlance, ...]) -> Glance:
    """Read the host's load and memory (proc(5)) and put them beside the GPUs."""
    memory = _meminfo(procfs)
    swap = [memory.get(key) for key in ("SwapTotal", "SwapFree")]
    return Glance(
        gpus=gpus,
        load_per_cpu=_load_per_cpu(procfs),
        memory_available_bytes=memory.get("MemAvailable"),
        swap_used_bytes=None if None in swap else swap[0] - swap[1],
    )


def _meminfo(procfs: Path) -> dict[str, int]:
    """Return the sizes of ``/proc/meminfo`` in bytes; none where it cannot be read."""
    try:
        lines = (procfs / "meminfo").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}


def _load_per_cpu(procfs: Path) -> float | None:
    try:
        load = float((procfs / "loadavg").read_text().split()[0])
        lines = (procfs / "stat").read_text().splitlines()
    except (OSError, ValueError, IndexError):
        return None
    # Of the whole host, as the load is; a container may see fewer elsewhere.
    cpus = sum(line.startswith("cpu") and line[3:4].isdigit() for line in lines)
    return load / cpus if cpus else None
