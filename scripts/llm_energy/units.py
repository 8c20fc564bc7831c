"""Convert between the units that sensors report and the SI units that records hold."""

from __future__ import annotations

JOULES_PER_KILOWATT_HOUR = 3.6e6


def joules_from_kilowatt_hours(energy_kwh: float) -> float:
    """Convert kWh to J.

    >>> joules_from_kilowatt_hours(1)
    3600000.0
    """
    return energy_kwh * JOULES_PER_KILOWATT_HOUR


def kilowatt_hours_from_joules(energy_j: float) -> float:
    """Convert J to kWh.

    >>> kilowatt_hours_from_joules(3.6e6)
    1.0
    """
    return energy_j / JOULES_PER_KILOWATT_HOUR


def joules_from_millijoules(energy_mj: int) -> float:
    """Convert mJ (the unit of the NVML energy counter) to J.

    >>> joules_from_millijoules(1500)
    1.5
    """
    return energy_mj / 1e3


def joules_from_microjoules(energy_uj: int) -> float:
    """Convert uJ (the unit of the Linux powercap counters) to J.

    >>> joules_from_microjoules(2_500_000)
    2.5
    """
    return energy_uj / 1e6
