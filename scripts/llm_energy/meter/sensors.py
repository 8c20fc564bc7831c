"""What every sensor does, and what stands where no sensor is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from llm_energy.records import ComponentEnergy


@dataclass(frozen=True)
class Counter:
    """One counter of energy: what it is of, the unit it counts in, and where it goes round."""

    component: str
    device: str
    unit: Literal["mJ", "uJ"]
    wraps_at: int | None = None


class Count(NamedTuple):
    """One counter as it was read: its value or why there is none, and the host's time around it.

    ``between`` says that another process read it, between two readings of this one.
    """

    value: float | str
    start_s: float
    end_s: float
    between: bool = False


def timed(clock: Callable[[], float], read: Callable[[], float | str]) -> Count:
    """Read a counter, and the clock just before and just after."""
    start_s = clock()
    value = read()
    return Count(value, start_s, clock())


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


class CountingSensor(Sensor, Protocol):
    """A sensor that reads counters, whose values are kept as they were read."""

    def counts(self, readings: Sequence[Any]) -> Iterable[tuple[Counter, Sequence[Count]]]:
        """Return each counter with its counts, one a reading, in their order in time.

        What was read of it between the first and the last of these readings, and is needed to tell
        the joules, is among them.
        """


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
