"""Read the energy counters of CPU packages and their memory (RAPL) from the powercap tree of Linux.

The tree is ``/sys/class/powercap`` (https://docs.kernel.org/power/powercap/powercap.html), on Intel
and on AMD. Counters are uJ and wrap at ``max_energy_range_uj``. Zones ``core`` and ``uncore`` lie
inside the package and ``psys`` includes it, so neither is ever added to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llm_energy.meter.sensors import unavailable
from llm_energy.records import ComponentEnergy
from llm_energy.units import joules_from_microjoules

METHODS = {"cpu": "rapl_powercap_package", "dram": "rapl_powercap_dram"}

# More than any one socket, and the memory behind it, can draw for long. A counter that could have
# gone round at this power may have wrapped twice, and then its difference says nothing.
MAX_POWER_W = {"cpu": 1000.0, "dram": 250.0}

# Zones are read one after the other: two views of one counter differ by what was used in between.
MIRROR_TOLERANCE_UJ = 1_000_000


@dataclass(frozen=True)
class _Zone:
    component: str
    device: str
    path: Path
    range_uj: int | None


Reading = dict[_Zone, int | str]  # uJ, or the reason why the counter could not be read


class RaplCounters:
    """Sense the energy of every CPU package, and of its memory where the CPU counts it."""

    def __init__(self, sysfs: Path):
        self._root = sysfs / "class" / "powercap"
        self._zones = _find_zones(self._root)
        self._absent = self._explain_absent(_count_sockets(sysfs))

    def read(self) -> Reading:
        """Read every zone's counter."""
        return {zone: _read_counter(zone) for zone in self._zones}

    def energy(
        self, first: Reading, last: Reading, duration_s: float
    ) -> tuple[ComponentEnergy, ...]:
        """Give one component a zone, in J; ``duration_s`` bounds how often a counter wrapped."""
        counted = []
        for i, zone in enumerate(self._zones):
            mirrored = next((z for z in self._zones[:i] if _mirrors(zone, z, (first, last))), None)
            if mirrored:
                reason = f"shows the counter of {mirrored.device} again; it is counted there"
                counted.append(unavailable(zone.component, reason, zone.device))
            else:
                counted.append(_difference(zone, first[zone], last[zone], duration_s))
        return (*counted, *self._absent)

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


def _mirrors(zone: _Zone, other: _Zone, readings: tuple[Reading, Reading]) -> bool:
    """Tell whether two dies of one package show one counter, as some AMD parts do."""
    if zone.component != other.component or _package(zone) != _package(other):
        return False
    pairs = [(reading[zone], reading[other]) for reading in readings]
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
    """Give ``package-0`` for the zones of that package, of its dies and of its memory."""
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
    """Give the counter in uJ, or the reason why it cannot be read."""
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


def _difference(
    zone: _Zone, first: int | str, last: int | str, duration_s: float
) -> ComponentEnergy:
    for reading in (first, last):
        if isinstance(reading, str):
            return unavailable(zone.component, reading, zone.device)
    if zone.range_uj is not None:
        limit_s = joules_from_microjoules(zone.range_uj) / MAX_POWER_W[zone.component]
        if duration_s >= limit_s:
            reason = (
                f"the counter may have wrapped more than once: the interval is {duration_s:.0f} s, "
                f"and only below {limit_s:.0f} s is that impossible"
            )
            return unavailable(zone.component, reason, zone.device)
    delta_uj = last - first
    if delta_uj < 0:
        delta_uj += zone.range_uj or 0
    if delta_uj < 0:
        reason = f"the counter went backwards, from {first} to {last} uJ, by more than one wrap"
        return unavailable(zone.component, reason, zone.device)
    energy_j = joules_from_microjoules(delta_uj)
    return ComponentEnergy(
        zone.component, zone.device, "measured", METHODS[zone.component], energy_j
    )
