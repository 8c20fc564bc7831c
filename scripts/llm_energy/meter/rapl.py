"""Read the energy counters of CPU packages and their memory (RAPL) from the powercap tree of Linux.

The tree is ``/sys/class/powercap`` (https://docs.kernel.org/power/powercap/powercap.html), on Intel
and on AMD. Counters are uJ and wrap at ``max_energy_range_uj``. Zones ``core`` and ``uncore`` lie
inside the package and ``psys`` includes it, so neither is ever added to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from llm_energy.core.units import joules_from_microjoules
from llm_energy.meter.host.snapshot import Look
from llm_energy.meter.sensors import Count, Counter, timed, unavailable
from llm_energy.records import ComponentEnergy

METHODS = {"cpu": "rapl_powercap_package", "dram": "rapl_powercap_dram"}

# More than any one socket, and the memory behind it, can draw for long. A counter that could have
# gone round at this power may have wrapped twice, and then its difference says nothing.
MAX_POWER_W = {"cpu": 1000.0, "dram": 250.0}

# A counter moves every millisecond. One that stands still for so long does not count.
STILL_S = 0.1

# Looks so near to an edge are left out: which of the two was read first would not be sure.
MARGIN_S = 1.0

# Zones are read one after the other: two views of one counter differ by what was used in between.
MIRROR_TOLERANCE_UJ = 1_000_000


@dataclass(frozen=True)
class _Zone:
    component: str
    device: str
    path: Path
    range_uj: int | None


Counters = dict[_Zone, Count]  # in uJ


class Reading(NamedTuple):
    """Every zone's counter, and when it was read."""

    time_s: float
    counters: Counters


LooksBetween = Callable[[float, float], Sequence[Look]]


class RaplCounters:
    """Sense the energy of every CPU package, and of its memory where the CPU counts it.

    ``looks`` returns what was read of the counters between two times of ``clock``, by which it is
    known how often a counter wrapped.
    """

    def __init__(
        self,
        sysfs: Path,
        clock: Callable[[], float] = time.monotonic,
        looks: LooksBetween = lambda start_s, end_s: (),
    ):
        self._clock = clock
        self._looks = looks
        self._root = sysfs / "class" / "powercap"
        self._zones = _find_zones(self._root)
        self._absent = self._explain_absent(_count_sockets(sysfs))

    @property
    def files(self) -> dict[str, Path]:
        """Return the file of each zone's counter by device."""
        return {zone.device: zone.path / "energy_uj" for zone in self._zones}

    def read(self) -> Reading:
        """Read every zone's counter."""
        time_s, clock = self._clock(), self._clock
        return Reading(time_s, {z: timed(clock, lambda z=z: _read_counter(z)) for z in self._zones})

    def energy(
        self, first: Reading, last: Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Return one component a zone, in J; ``duration_s`` bounds how often a counter wrapped."""
        looks = self._looks(first.time_s + MARGIN_S, last.time_s - MARGIN_S)
        edges = (first.counters, last.counters)
        counted = []
        for i, zone in enumerate(self._zones):
            mirrored = next((z for z in self._zones[:i] if _mirrors(zone, z, edges)), None)
            if mirrored:
                reason = f"shows the counter of {mirrored.device} again; it is counted there"
                counted.append(unavailable(zone.component, reason, zone.device))
                continue
            between = [
                (look.time_s - first.time_s, look.energy_uj[zone.device])
                for look in looks
                if zone.device in look.energy_uj
            ]
            first_uj, last_uj = (counters[zone].value for counters in edges)
            readings = [(0.0, first_uj), *between, (duration_s, last_uj)]
            counted.append(_counted(zone, readings))
        return (*counted, *self._absent)

    def counts(self, readings: Sequence[Reading]) -> Iterator[tuple[Counter, Sequence[Count]]]:
        """Yield every zone's counter with its counts: one a reading, and those around each wrap."""
        looks = self._looks(readings[0].time_s + MARGIN_S, readings[-1].time_s - MARGIN_S)
        for zone in self._zones:
            read = [reading.counters[zone] for reading in readings]
            seen = [
                Count(look.energy_uj[zone.device], look.time_s, look.time_s, between=True)
                for look in looks
                if zone.device in look.energy_uj
            ]
            counter = Counter(zone.component, zone.device, "uJ", zone.range_uj)
            yield counter, _with_wraps(read, seen)

    def _explain_absent(self, sockets: int) -> tuple[ComponentEnergy, ...]:
        if not self._root.is_dir():
            missing = f"{self._root} does not exist"
        elif not self._zones:
            missing = f"{self._root} has no readable package zone"
        else:
            absent = []
            if not any(zone.component == "dram" for zone in self._zones):
                absent.append(unavailable("dram", f"{self._root} has no DRAM zone for this CPU"))
            packages = {_package(zone) for zone in self._zones if zone.component == "cpu"}
            if len(packages) < sockets:
                reason = f"only {len(packages)} of {sockets} sockets have a RAPL package zone"
                absent.append(unavailable("cpu", reason, "other sockets"))
            return tuple(absent)
        reason = (
            f"{missing}: no RAPL counters (usual in a virtual machine or a container, "
            "or without the kernel module intel_rapl_msr)"
        )
        return (unavailable("cpu", reason), unavailable("dram", reason))


def _with_wraps(read: Sequence[Count], seen: Sequence[Count]) -> list[Count]:
    """Put looks among readings, those alone of them that stand on one side of a wrap."""
    every = sorted([*read, *seen], key=lambda count: count.start_s)
    kept = {id(count) for count in read}
    for one, other in pairwise(every):
        texts = isinstance(one.value, str) or isinstance(other.value, str)
        if not texts and other.value < one.value:
            kept |= {id(one), id(other)}
    return [count for count in every if id(count) in kept]


def _mirrors(zone: _Zone, other: _Zone, readings: tuple[Counters, Counters]) -> bool:
    """Return whether two dies of one package show one counter, as some AMD parts do."""
    if zone.component != other.component or _package(zone) != _package(other):
        return False
    pairs = [(reading[zone].value, reading[other].value) for reading in readings]
    return all(
        isinstance(a, int) and isinstance(b, int) and abs(a - b) <= MIRROR_TOLERANCE_UJ
        for a, b in pairs
    )


def _find_zones(root: Path) -> tuple[_Zone, ...]:
    """List package and DRAM zones once each; MMIO zones only where no MSR zone shows the same."""
    entries = sorted(root.glob("intel-rapl*:*"), key=lambda p: ("mmio" in p.name, p.name))
    zones: dict[str, _Zone] = {}
    for path in entries:
        name = _read_name(path)
        if name == "dram":
            component, device = "dram", f"{_read_name(root / path.name.rpartition(':')[0])}/dram"
        elif name.startswith("package-"):
            component, device = "cpu", name
        else:
            continue
        try:
            range_uj = int((path / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            range_uj = None
        zones.setdefault(device, _Zone(component, device, path, range_uj))
    return tuple(zones.values())


def _read_name(path: Path) -> str:
    try:
        return (path / "name").read_text().strip()
    except OSError:
        return ""


def _package(zone: _Zone) -> str:
    """Return ``package-0`` for the zones of that package, of its dies and of its memory."""
    match = re.match(r"package-\d+", zone.device)
    return match.group() if match else zone.device


def _count_sockets(sysfs: Path) -> int:
    """Count the sockets that the kernel's CPU topology shows; 0 where it shows none."""
    sockets = set()
    for path in (sysfs / "devices" / "system" / "cpu").glob(
        "cpu[0-9]*/topology/physical_package_id"
    ):
        try:
            sockets.add(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return len({socket for socket in sockets if socket >= 0})


def _read_counter(zone: _Zone) -> int | str:
    """Return the counter in uJ, or the reason why it cannot be read."""
    path = zone.path / "energy_uj"
    try:
        return int(path.read_text())
    except PermissionError:
        return (
            f"{path} is not readable (only by root since CVE-2020-8694); until the next boot: "
            f"sudo chmod o+r {zone.path.parent}/intel-rapl*:*/energy_uj; for good: a file "
            "/etc/udev/rules.d/99-rapl.rules with the line "
            'ACTION=="add", SUBSYSTEM=="powercap", RUN+="/bin/chmod o+r /sys%p/energy_uj"'
        )
    except (OSError, ValueError) as error:
        return f"{path}: {error}"


def _counted(zone: _Zone, readings: Sequence[tuple[float, int | str]]) -> ComponentEnergy:
    """Add up what a counter moved by from reading to reading, each with its time in s."""
    for _, reading in readings:
        if isinstance(reading, str):
            return unavailable(zone.component, reading, zone.device)
    times_s, counters = zip(*readings, strict=True)
    duration_s = times_s[-1]
    if len(set(counters)) == 1 and duration_s >= STILL_S:
        reason = (
            f"the counter stands still at {counters[0]} uJ: it did not move in {duration_s:.1f} s "
            "(usual in a virtual machine)"
        )
        return unavailable(zone.component, reason, zone.device)
    if zone.range_uj is not None:
        limit_s = joules_from_microjoules(zone.range_uj) / MAX_POWER_W[zone.component]
        gap_s = max(b - a for a, b in pairwise(times_s))
        if gap_s >= limit_s:
            reason = (
                "the counter may have wrapped more than once: it was not read for "
                f"{gap_s:.0f} s, and only below {limit_s:.1f} s is that impossible"
            )
            return unavailable(zone.component, reason, zone.device)
    energy_j = 0.0
    for (first_s, first), (last_s, last) in pairwise(readings):
        wrapped = last < first
        moved_j = joules_from_microjoules(last - first + (zone.range_uj or 0) * wrapped)
        most_j = MAX_POWER_W[zone.component] * (last_s - first_s + MARGIN_S)
        if moved_j < 0 or (wrapped and moved_j > most_j):
            reason = (
                f"the counter went backwards, from {first} to {last} uJ, which no wrap explains"
            )
            return unavailable(zone.component, reason, zone.device)
        energy_j += moved_j
    return ComponentEnergy(
        zone.component, zone.device, "measured", METHODS[zone.component], energy_j
    )
