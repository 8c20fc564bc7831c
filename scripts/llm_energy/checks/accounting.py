"""Add up the joules of an interval, measured and estimated apart, and the power while idle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_energy.records import ComponentEnergy, Interval, Measurement, Status

ORDER = ("gpu", "cpu", "dram")
STATUSES: tuple[Status, ...] = ("measured", "estimated")


@dataclass(frozen=True)
class Sum:
    """The joules of the components of one status; ``parts`` are their (component, device) pairs."""

    energy_j: float
    parts: frozenset[tuple[str, str | None]]

    @property
    def components(self) -> tuple[str, ...]:
        """Give the names of the components, each once, GPU first."""
        names = {component for component, _ in self.parts}
        return tuple(sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)))


def sums(interval: Interval) -> dict[Status, Sum]:
    """Add the joules of an interval by status; a status without any component is left out."""
    found: dict[Status, Sum] = {}
    for status in STATUSES:
        known = [part for part in interval.energy if part.status == status]
        if known:
            found[status] = Sum(math.fsum(p.energy_j for p in known), _parts(known))
    return found


def loaded_idle_power_w(
    measurement: Measurement, status: Status, parts: frozenset[tuple[str, str | None]]
) -> tuple[float | None, str | None]:
    """Give the power with the model loaded and no request, or None and the reason.

    It is the mean of the powers before and after the windows, the one before where there is no
    other. Each must come from the same parts with the same status as the window that it is taken
    from, since another scope would subtract something else.
    """
    powers = []
    for name in ("loaded_idle_before", "loaded_idle_after"):
        baseline = next((b for b in measurement.baselines if b.name == name), None)
        if baseline is None:
            if not powers:
                return None, f"no baseline {name}"
            continue
        same = sums(baseline).get(status)
        if same is None or same.parts != parts:
            return None, f"baseline {name} has not the same {status} components as the window"
        if not baseline.duration_s > 0:
            return None, f"baseline {name} lasted {baseline.duration_s} s"
        powers.append(same.energy_j / baseline.duration_s)
    return math.fsum(powers) / len(powers), None


def _parts(energies: list[ComponentEnergy]) -> frozenset[tuple[str, str | None]]:
    return frozenset((energy.component, energy.device) for energy in energies)
