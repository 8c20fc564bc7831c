"""Sensors that say how many joules an interval took, and how well that is known."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_energy.meter import rapl
from llm_energy.meter.estimates import carbon_intensity, open_estimates
from llm_energy.meter.nvml import NvmlCounters
from llm_energy.meter.rapl import RaplCounters
from llm_energy.meter.sensors import COMPONENTS, Sensor
from llm_energy.records import ComponentEnergy, Interval, MeterSettings


class MeteredInterval:
    """Hold the record of an interval from the moment the interval has ended."""

    record: Interval | None = None


class Meter:
    """Meter intervals with every sensor that this host has.

    ``counters`` are read inside the two clock readings; ``estimates`` may be slow, so they begin
    before and end after them, and stand in for a component that no counter measured.
    """

    def __init__(
        self,
        gpu: NvmlCounters,
        counters: Sequence[Sensor],
        estimates: Sequence[Sensor],
        carbon: dict[str, Any] | None,
        clock: Callable[[], float],
    ):
        self._gpu = gpu
        self._counters = (gpu, *counters)
        self._estimates = tuple(estimates)
        self._carbon = carbon
        self._clock = clock

    @contextmanager
    def interval(self, name: str) -> Iterator[MeteredInterval]:
        """Meter what runs inside; the record is set on exit, also when that is an exception.

        Nothing of the meter runs in between: no thread, no polling.
        """
        metered = MeteredInterval()
        for sensor in self._estimates:
            sensor.start()
        start_s = self._clock()
        for sensor in self._counters:
            sensor.start()
        try:
            yield metered
        finally:
            end_s = self._clock()
            for sensor in (*self._counters, *self._estimates):
                sensor.stop()
            metered.record = Interval(name, start_s, end_s, self._energy(end_s - start_s))

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Meter only these boards from the next interval on; LlmEnergyError for an unknown one."""
        self._gpu.restrict(device_uuids)

    def carbon_intensity(self) -> dict[str, Any] | None:
        """Give ``{"g_per_kwh", "source"}``, or None where neither config nor country is given."""
        return self._carbon

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Give the identity and state of the boards in use; call it outside intervals."""
        return self._gpu.gpus()

    def close(self) -> None:
        """Release the sensors."""
        self._gpu.close()

    def _energy(self, duration_s: float) -> tuple[ComponentEnergy, ...]:
        counted = [c for sensor in self._counters for c in sensor.energy(duration_s)]
        estimated = [c for sensor in self._estimates for c in sensor.energy(duration_s)]
        return combine(counted, estimated)


def combine(
    counted: Iterable[ComponentEnergy], estimated: Iterable[ComponentEnergy]
) -> tuple[ComponentEnergy, ...]:
    """Let an estimate stand for a component that no counter measured, with the reason for it.

    A component that is measured in part keeps its unavailable parts and gets no estimate, since an
    estimate is of the whole.
    """
    counted, estimated = list(counted), list(estimated)
    result: list[ComponentEnergy] = []
    for component in COMPONENTS:
        ours = [c for c in counted if c.component == component]
        theirs = [c for c in estimated if c.component == component]
        if any(c.status == "measured" for c in ours) or not theirs:
            result += ours
        elif any(c.status == "estimated" for c in theirs):
            reason = "not measured: " + _reasons(ours)
            result += [
                dataclasses.replace(c, reason=reason) for c in theirs if c.status == "estimated"
            ]
        else:
            result.append(dataclasses.replace(theirs[0], reason=_reasons(ours + theirs)))
    return tuple(result)


def _reasons(components: Iterable[ComponentEnergy]) -> str:
    return "; ".join(dict.fromkeys(c.reason for c in components if c.reason))


def open_meter(
    settings: MeterSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    sysfs: Path = rapl.SYSFS,
) -> Meter:
    """Find this host's sensors. May take some seconds; call it before anything is measured.

    ``clock`` gives seconds and must be the one that completions are stamped with. Raises
    LlmEnergyError for a country that has no grid factor.
    """
    return Meter(
        gpu=NvmlCounters(),
        counters=(RaplCounters(sysfs),),
        # A sampler of board power, for boards without a counter, belongs here as well.
        estimates=open_estimates(settings),
        carbon=carbon_intensity(settings),
        clock=clock,
    )
