"""Read what the kernel counts of the whole host, and say what an interval added to it.

The counters are those of procfs (https://docs.kernel.org/filesystems/proc.html): ``stat``,
``vmstat``, ``diskstats`` and ``pressure/cpu``. Each may be missing, alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llm_energy.meter.host.processes import TICKS_PER_S, Processes, read_processes
from llm_energy.records import HostActivity

SECTOR_BYTES = 512  # the unit of diskstats, whatever the disk's own sectors
# What these read, another disk or the memory reads as well.
LAYERED_DISKS = re.compile(r"(dm-|fd|loop|md|ram|sr|zram)\d+")
BUSY_COLUMNS = (1, 2, 3, 6, 7)  # of stat: user, nice, system, irq, softirq; user holds guest
STEAL_COLUMN = 8


@dataclass(frozen=True)
class HostReading:
    """The host's counters at one moment; None for what could not be read."""

    clock_s: float
    wall_clock_s: float
    busy_s: float | None
    steal_s: float | None
    stalled_s: float | None
    pages_swapped_in: int | None
    major_faults: int | None
    disk_read_bytes: int | None
    processes: Processes | None


class HostCounters:
    """Read the host's counters below ``procfs``."""

    def __init__(self, procfs: Path, clock: Callable[[], float], wall_clock: Callable[[], float]):
        self.procfs = procfs
        self._clock = clock
        self._wall_clock = wall_clock

    def read(self) -> HostReading:
        """Read all of them once (a few milliseconds, so outside what is metered)."""
        # Side by side, since their difference is what matters.
        clock_s, wall_clock_s = self._clock(), self._wall_clock()
        processors = _first_line(self.procfs / "stat").split()
        virtual_memory = _table(self.procfs / "vmstat")
        return HostReading(
            clock_s=clock_s,
            wall_clock_s=wall_clock_s,
            busy_s=_seconds(processors, BUSY_COLUMNS),
            steal_s=_seconds(processors, (STEAL_COLUMN,)),
            stalled_s=_stalled_s(self.procfs),
            pages_swapped_in=virtual_memory.get("pswpin"),
            major_faults=virtual_memory.get("pgmajfault"),
            disk_read_bytes=_disk_read_bytes(self.procfs),
            processes=read_processes(self.procfs),
        )


def activity(first: HostReading, last: HostReading) -> HostActivity:
    """Return what happened between two readings."""
    own = [reading.processes and reading.processes.own_busy_s for reading in (first, last)]
    alone = [reading.processes and reading.processes.self_busy_s for reading in (first, last)]
    wall_s = last.wall_clock_s - first.wall_clock_s
    duration_s = last.clock_s - first.clock_s
    return HostActivity(
        busy_s=_difference(first.busy_s, last.busy_s),
        own_busy_s=_difference(*own),
        steal_s=_difference(first.steal_s, last.steal_s),
        stalled_s=_difference(first.stalled_s, last.stalled_s),
        pages_swapped_in=_difference(first.pages_swapped_in, last.pages_swapped_in),
        major_faults=_difference(first.major_faults, last.major_faults),
        disk_read_bytes=_difference(first.disk_read_bytes, last.disk_read_bytes),
        wall_clock_step_s=wall_s - duration_s,
        self_busy_s=_difference(*alone),
        duration_s=duration_s,
    )


def _difference(first: float | None, last: float | None) -> float | None:
    """Subtract; None where a reading is missing or a counter went backwards."""
    if first is None or last is None or last < first:
        return None
    return last - first


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "")


def _table(path: Path) -> dict[str, int]:
    """Read lines of a name and a count."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _seconds(processors: list[str], columns: tuple[int, ...]) -> float | None:
    """Add up columns of the line ``cpu`` of stat, in processor seconds."""
    try:
        return sum(int(processors[column]) for column in columns) / TICKS_PER_S
    except (IndexError, ValueError):
        return None


def _stalled_s(procfs: Path) -> float | None:
    """Return how long some task waited for a processor (docs.kernel.org/accounting/psi.html)."""
    found = re.match(r"some .*total=(\d+)", _first_line(procfs / "pressure" / "cpu"))
    return int(found[1]) / 1e6 if found else None


def _disk_read_bytes(procfs: Path) -> int | None:
    """Add up what whole disks have read (docs.kernel.org/admin-guide/iostats.html)."""
    sectors = {}
    for line in _lines(procfs / "diskstats"):
        columns = line.split()
        if len(columns) > 5 and columns[5].isdigit():
            sectors[columns[2]] = int(columns[5])
    disks = [name for name in sectors if not LAYERED_DISKS.fullmatch(name)]
    whole = [name for name in disks if not any(_is_partition(name, disk) for disk in disks)]
    return SECTOR_BYTES * sum(sectors[name] for name in whole) if whole else None


def _is_partition(name: str, disk: str) -> bool:
    """Return whether a name is that of a partition of a disk.

    >>> _is_partition("sda1", "sda"), _is_partition("nvme0n1p2", "nvme0n1")
    (True, True)
    >>> _is_partition("nvme0n10", "nvme0n1"), _is_partition("sdaa", "sda")
    (False, False)
    """
    # A disk whose own name ends in a digit has a p before the number of the partition.
    separator = "p" if disk[-1].isdigit() else ""
    return bool(re.fullmatch(re.escape(disk) + separator + r"\d+", name))
