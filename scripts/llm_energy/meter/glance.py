"""What can be seen of boards and host right now, to decide whether to measure at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BoardGlance:
    """One board at one moment; None for what could not be read.

    ``clock_event_reasons`` is NVML's bit mask. ``foreign_processes`` are those on the board outside
    this process's tree, None where the driver does not show them.
    """

    device: str
    temperature_c: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    foreign_processes: tuple[int, ...] | None = None
    clock_event_reasons: int | None = None
    mig: bool | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None


@dataclass(frozen=True)
class Glance:
    """Boards and host at one moment. ``load_per_cpu`` is the mean of the last minute."""

    boards: tuple[BoardGlance, ...]
    load_per_cpu: float | None
    memory_available_bytes: int | None
    swap_used_bytes: int | None


def glance_at_host(procfs: Path, boards: tuple[BoardGlance, ...]) -> Glance:
    """Read the host's load and memory (proc(5)) and put them beside the boards."""
    memory = _meminfo(procfs)
    swap = [memory.get(key) for key in ("SwapTotal", "SwapFree")]
    return Glance(
        boards=boards,
        load_per_cpu=_load_per_cpu(procfs),
        memory_available_bytes=memory.get("MemAvailable"),
        swap_used_bytes=None if None in swap else swap[0] - swap[1],
    )


def _meminfo(procfs: Path) -> dict[str, int]:
    """Give the sizes of ``/proc/meminfo`` in bytes; none where it cannot be read."""
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
