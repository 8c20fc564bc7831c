"""What every sensor does, and what stands where no sensor is."""

from __future__ import annotations

from typing import Any, Protocol

from llm_energy.records import ComponentEnergy


class Sensor(Protocol):
    """Turn any two of its readings into the energy between them.

    A reading is the sensor's own business: it is only handed back to ``energy``. ``read`` stands at
    the edges of a metered window and at marks inside it, so it runs no thread and raises nothing
    that the hardware or a driver may cause: a reading that fails becomes an unavailable component
    with its reason.
    """

    def read(self) -> Any:
        """Take one reading."""

    def energy(self, first: Any, last: Any, duration_s: float) -> tuple[ComponentEnergy, ...]:
        """Return the energy between two readings that lie ``duration_s`` apart."""


class Absent:
    """Stand for a sensor that this host or this config does not have, and say why."""

    def __init__(self, component: str, reason: str):
        self._energy = (unavailable(component, reason),)

    def read(self) -> None:
        """Read nothing."""

    def energy(self, first: Any, last: Any, duration_s: float) -> tuple[ComponentEnergy, ...]:
        """Return the unavailable component."""
        return self._energy


def unavailable(component: str, reason: str, device: str | None = None) -> ComponentEnergy:
    """Return a component without energy: null with a reason, never 0."""
    return ComponentEnergy(component, device, "unavailable", "unavailable", None, reason)
