"""What every sensor does, and what stands where no sensor is."""

from __future__ import annotations

from typing import Protocol

from llm_energy.records import ComponentEnergy

COMPONENTS = ("gpu", "cpu", "dram")


class Sensor(Protocol):
    """Observe one interval at a time: ``start``, ``stop``, then ``energy``.

    ``start`` and ``stop`` stand at the edges of a metered window, so they only take readings; they
    run no thread in between and raise nothing that the hardware or a driver may cause: a reading
    that fails becomes an unavailable component with its reason. A ``start`` forgets what was
    before, so a sensor is usable again after an interval that ended in an exception.
    """

    def start(self) -> None:
        """Take the reading at the beginning of an interval."""

    def stop(self) -> None:
        """Take the reading at the end of the interval."""

    def energy(self, duration_s: float) -> tuple[ComponentEnergy, ...]:
        """Give the energy between the two readings, which lie ``duration_s`` apart."""


class Absent:
    """Stand for a sensor that this host or this config does not have, and say why."""

    def __init__(self, component: str, reason: str):
        self._energy = (unavailable(component, reason),)

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def energy(self, duration_s: float) -> tuple[ComponentEnergy, ...]:
        """Give the unavailable component."""
        return self._energy


def unavailable(component: str, reason: str, device: str | None = None) -> ComponentEnergy:
    """Give a component without energy: null with a reason, never 0."""
    return ComponentEnergy(component, device, "unavailable", "unavailable", None, reason)
