"""Convert between the units that sensors report and the SI units that records hold."""

from __future__ import annotations

JOULES_PER_KILOWATT_HOUR = 3.6e6


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


def readable_duration(duration_s: float) -> str:
    """Write a duration for people.

    >>> readable_duration(42.4), readable_duration(100), readable_duration(7300)
    ('42 s', '1 min 40 s', '2 h 2 min')
    """
    seconds = round(duration_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
