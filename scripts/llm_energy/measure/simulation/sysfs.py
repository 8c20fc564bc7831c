"""The files of ``/sys`` and ``/proc`` that show a simulated host's processors and memory.

They are real files in a folder, written anew when the simulated time has moved and somebody may
look; a file that has not changed is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from llm_energy.measure.simulation.power import Cooling, Fluctuation, History
from llm_energy.measure.simulation.truth import PackageTruth, Truth

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SECTOR_BYTES = 512
KIB = 1024


class Counter:
    """An energy counter of the powercap tree: joules of one history, in uJ, modulo its range."""

    def __init__(self, history: History, start_uj: int, range_uj: int):
        self.history = history
        self._start_uj = start_uj
        self._range_uj = range_uj

    def read(self, time_s: float) -> str:
        """Return what ``energy_uj`` shows."""
        return f"{(self._start_uj + int(self.history.energy_j(time_s) * 1e6)) % self._range_uj}\n"


class Package:
    """One simulated socket: the power of its cores and of its memory."""

    def __init__(self, truth: PackageTruth, random: Random, factor: float, start_s: float):
        self.truth = truth
        self._factor = factor

        def history(level_w: float) -> History:
            noise = Fluctuation(random, truth.noise_sd, truth.noise_time_s)
            return History(noise, Cooling(), start_s, level_w * factor, None)

        self.cpu = history(truth.idle_w)
        self.dram = history(truth.dram_w[0]) if truth.dram_w else None

    def enter(self, time_s: float, busy_cores: float, memory_share: float) -> None:
        """Let this many cores be busy from now on, and the memory work at this share."""
        truth = self.truth
        self.cpu.set(time_s, (truth.idle_w + truth.core_w * busy_cores) * self._factor, None)
        if self.dram and truth.dram_w:
            low, high = truth.dram_w
            self.dram.set(time_s, (low + (high - low) * memory_share) * self._factor, None)


class Activity:
    """What the kernel has counted since the start, as of the time that it was last told."""

    def __init__(self, truth: Truth):
        self.busy_s = self.own_s = self.steal_s = self.stalled_s = 0.0
        self.swapped_pages = self.major_faults = self.read_bytes = 0.0
        self.memory_used_bytes = 16 * 2**30
        self.swap_used_bytes = 0
        self.load = truth.foreign_busy_per_s

    def count(self, truth: Truth, duration_s: float, own_cores: float) -> None:
        """Count a stretch of time in which this process's tree used ``own_cores``."""
        foreign_s = truth.foreign_busy_per_s * duration_s
        self.busy_s += own_cores * duration_s + foreign_s
        self.own_s += own_cores * duration_s
        self.steal_s += truth.steal_per_s * duration_s
        self.stalled_s += truth.stalled_per_s * duration_s
        self.swapped_pages += truth.swap_pages_per_s * duration_s
        self.major_faults += truth.major_faults_per_s * duration_s
        self.read_bytes += truth.disk_read_bytes_per_s * duration_s
        self.load = own_cores + truth.foreign_busy_per_s


class Trees:
    """The folders ``sys`` and ``proc``; ``refresh`` brings their moving files up to date."""

    def __init__(self, folder: Path, truth: Truth, packages: list[Package], random: Random):
        self.sysfs, self.procfs = folder / "sys", folder / "proc"
        self._truth = truth
        self._pid = os.getpid()
        # What each processor did is not told apart.
        self._cpu_lines = "".join(f"cpu{n} 0 0 0 0 0 0 0 0 0 0\n" for n in range(truth.cpu_count))
        self._moving: list[tuple[int, Callable[[float, Activity], str]]] = []
        self._last: dict[int, str] = {}
        self._system()
        self._powercap(packages, random)
        self._processes()

    def refresh(self, time_s: float, activity: Activity) -> None:
        """Write what the files show at ``time_s``."""
        for descriptor, content in self._moving:
            text = content(time_s, activity)
            last = self._last.get(descriptor, "")
            if text != last:
                if len(text) < len(last):
                    os.ftruncate(descriptor, len(text))
                os.pwrite(descriptor, text.encode(), 0)
                self._last[descriptor] = text

    def add_process(self, pid: int) -> None:
        """Show one more process, of nobody's family."""
        stat = f"{pid} (other) S 0 {pid} {pid} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0\n"
        self._write(self.procfs / str(pid) / "stat", stat)

    def close(self) -> None:
        """Let the files go."""
        for descriptor, _ in self._moving:
            os.close(descriptor)
        self._moving = []

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _move(self, path: Path, content: Callable[[float, Activity], str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._moving.append((os.open(path, os.O_RDWR | os.O_CREAT, 0o644), content))

    def _system(self) -> None:
        root, truth = self.sysfs / "devices" / "system" / "cpu", self._truth
        # The first processor of each socket, which is all that tells how many sockets there are.
        for socket in range(truth.sockets or len(truth.packages) or 1):
            path = root / f"cpu{socket}" / "topology" / "physical_package_id"
            self._write(path, f"{socket}\n")
        self._write(root / "cpu0" / "cpufreq" / "scaling_governor", f"{truth.governor}\n")

    def _powercap(self, packages: list[Package], random: Random) -> None:
        root = self.sysfs / "class" / "powercap"
        for socket, package in enumerate(packages):
            truth = package.truth
            counter = Counter(package.cpu, random.randrange(truth.range_uj), truth.range_uj)
            entries = [f"intel-rapl:{socket * truth.dies + die}" for die in range(truth.dies)]
            for die, entry in enumerate(entries):
                name = f"package-{socket}" + (f"-die-{die}" if truth.dies > 1 else "")
                self._zone(root / entry, name, counter, truth)
            if truth.mmio:
                self._zone(root / f"intel-rapl-mmio:{socket}", f"package-{socket}", counter, truth)
            if package.dram:
                dram = Counter(package.dram, random.randrange(truth.range_uj), truth.range_uj)
                self._zone(root / f"{entries[0]}:0", "dram", dram, truth)

    def _zone(self, folder: Path, name: str, counter: Counter, truth: PackageTruth) -> None:
        self._write(folder / "name", f"{name}\n")
        self._write(folder / "max_energy_range_uj", f"{truth.range_uj}\n")
        if truth.readable:
            self._move(folder / "energy_uj", lambda time_s, activity: counter.read(time_s))
        else:
            # No permission keeps the superuser out, so the file is one that nobody can read.
            (folder / "energy_uj").mkdir()

    def _processes(self) -> None:
        root = self.procfs
        root.mkdir()
        self.add_process(1)
        (root / "self").symlink_to(str(self._pid))
        for name, content in {
            "stat": self._stat,
            "vmstat": self._vmstat,
            "meminfo": self._meminfo,
            "loadavg": self._loadavg,
            "diskstats": self._diskstats,
            "pressure/cpu": self._pressure,
            f"{self._pid}/stat": self._own_stat,
        }.items():
            self._move(root / name, content)

    def _stat(self, time_s: float, activity: Activity) -> str:
        total_s = time_s * self._truth.cpu_count
        idle_s = max(0.0, total_s - activity.busy_s - activity.steal_s)
        ticks = [round(s * TICKS_PER_S) for s in (activity.busy_s, idle_s, activity.steal_s)]
        line = f"cpu  {ticks[0]} 0 0 {ticks[1]} 0 0 0 {ticks[2]} 0 0\n"
        return f"{line}{self._cpu_lines}ctxt 0\nbtime 1700000000\nprocs_running 1\n"

    def _vmstat(self, time_s: float, activity: Activity) -> str:
        pages, faults = int(activity.swapped_pages), int(activity.major_faults)
        read_kib = int(activity.read_bytes) // KIB
        return (
            f"pgpgin {read_kib}\npgpgout 0\npswpin {pages}\npswpout {pages}\npgmajfault {faults}\n"
        )

    def _meminfo(self, time_s: float, activity: Activity) -> str:
        truth = self._truth
        free = truth.memory_bytes - activity.memory_used_bytes
        values = {
            "MemTotal": truth.memory_bytes,
            "MemFree": free,
            "MemAvailable": free,
            "SwapTotal": truth.swap_bytes,
            "SwapFree": truth.swap_bytes - activity.swap_used_bytes,
        }
        return "".join(f"{name + ':':15} {value // KIB:8} kB\n" for name, value in values.items())

    def _loadavg(self, time_s: float, activity: Activity) -> str:
        return f"{activity.load:.2f} {activity.load:.2f} {activity.load:.2f} 1/200 {self._pid}\n"

    def _diskstats(self, time_s: float, activity: Activity) -> str:
        sectors = int(activity.read_bytes) // SECTOR_BYTES
        return f"   8       0 sda 100 0 {sectors} 10 0 0 0 0 0 10 10 0 0 0 0 0 0\n"

    def _pressure(self, time_s: float, activity: Activity) -> str:
        averages = "avg10=0.00 avg60=0.00 avg300=0.00"
        stalled_us = int(activity.stalled_s * 1e6)
        return f"some {averages} total={stalled_us}\nfull {averages} total=0\n"

    def _own_stat(self, time_s: float, activity: Activity) -> str:
        # Fields of proc(5): pid, name, state, parent, ..., user and system time in ticks, ...
        own = round(activity.own_s * TICKS_PER_S)
        head = f"{self._pid} (python) R 1 {self._pid} {self._pid} 0 -1 0 0 0"
        return f"{head} {int(activity.major_faults)} 0 {own} 0 0 0 20 0 1 0 1 0 0\n"
