"""Sensors that say how many joules an interval took, and how well that is known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from llm_energy.core.packages import versions
from llm_energy.meter.amd import AmdGpus
from llm_energy.meter.counter_tick import measure_tick
from llm_energy.meter.estimates import carbon_intensity, open_estimates
from llm_energy.meter.host.activity import HostCounters
from llm_energy.meter.host.activity import activity as host_activity
from llm_energy.meter.host.processes import read_processes
from llm_energy.meter.host.snapshot import Glance, GpuGlance, glance_at_host
from llm_energy.meter.interval import MeteredInterval
from llm_energy.meter.nvidia.devices import NvmlGpus
from llm_energy.meter.power_sampling.recorder import PowerTrace, StartSampler, begin_trace
from llm_energy.meter.rapl import RaplCounters
from llm_energy.meter.readings import Readings
from llm_energy.meter.sensors import Absent, CountingSensor, Sensor
from llm_energy.meter.watch import Watch
from llm_energy.records import CounterReadings, Interval, MeterReport, MeterSettings

__all__ = ["Glance", "GpuGlance", "Meter", "MeteredInterval", "open_meter"]

PACKAGES = ("amdsmi", "codecarbon", "nvidia-ml-py")  # those that read or model energy


class Meter:
    """Meter intervals with every sensor that this host has.

    ``counters`` are read right after the two clock readings; ``estimates``, which may be slow, and
    the state of GPUs and host are read before the first and after the second. An estimate stands
    in for a component that no counter measured.
    """

    def __init__(
        self,
        gpus: NvmlGpus | AmdGpus,
        counters: Sequence[CountingSensor],
        estimates: Sequence[Sensor],
        host: HostCounters,
        trace: PowerTrace,
        watch: Watch,
        carbon: dict[str, Any] | None,
        simulated: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ):
        self._gpus = gpus
        self._counters = tuple(counters)
        self._estimates = tuple(estimates)
        self._host = host
        self._trace = trace
        self._watch = watch
        self._carbon = carbon
        self._simulated = simulated
        self._clock = clock
        self._sleep = sleep
        self._readings = Readings()
        self._ticks_s: dict[str, float | None] = {}

    @contextmanager
    def interval(self, name: str) -> Iterator[MeteredInterval]:
        """Meter what runs inside; the record is set on exit, also when that is an exception.

        Nothing of the meter runs in between in this process: no thread, no polling.
        """
        gpu = self._gpus.sensor()
        metered = MeteredInterval((gpu, *self._counters), self._estimates, self._clock)
        gpus_before = gpu.read_states()
        metered.read_estimates()
        host_before = self._host.read()
        metered.read_edge()
        try:
            yield metered
        finally:
            metered.read_edge()
            host_after = self._host.read()
            metered.read_estimates()
            gpus_after = gpu.read_states()
            record = metered.finish(name)
            self._readings.keep(metered.counts())
            tables = (host_before.processes, host_after.processes)
            metered.record = replace(
                record,
                boards=gpu.activity(
                    gpus_before,
                    gpus_after,
                    tables,
                    self._watch.looks(record.start_s, record.end_s),
                ),
                host=host_activity(host_before, host_after),
                trace=self._trace.summary(record.start_s, record.end_s, gpu.devices),
            )

    def inner(self, metered: MeteredInterval, label_a: str, label_b: str, name: str) -> Interval:
        """Return the part of an ended interval between two marks, with its part of the power trace.

        The activity of GPUs and host was read at the outer edges, so it is that of the whole.
        """
        part = metered.between(label_a, label_b, name)
        whole = metered.record
        devices = self._gpus.sensor().devices
        trace = self._trace.summary(part.start_s, part.end_s, devices)
        return replace(part, boards=whole.boards, host=whole.host, trace=trace)

    def restrict(self, device_uuids: Iterable[str]) -> None:
        """Meter only these GPUs from the next interval on; LlmEnergyError for an unknown one."""
        self._gpus.restrict(device_uuids)

    def carbon_intensity(self) -> dict[str, Any] | None:
        """Return ``{"g_per_kwh", "source"}``, or None where neither config nor country is given."""
        return self._carbon

    def gpus(self) -> tuple[dict[str, Any], ...]:
        """Return the identity and state of the GPUs in use; call it outside intervals."""
        return self._gpus.gpus()

    def glance(self) -> Glance:
        """Look at GPUs and host once, outside intervals."""
        procfs = self._host.procfs
        return glance_at_host(procfs, self._gpus.sensor().glance(read_processes(procfs)))

    def measure_ticks(self) -> None:
        """Measure how often each GPU's energy counter moves, 3 s a GPU at most.

        It reads the counters often, so call it before anything is metered, on idle GPUs.
        """
        self._ticks_s = {
            device: measure_tick(read, self._clock, self._sleep)
            for device, read in self._gpus.sensor().counters().items()
        }

    def readings(self) -> tuple[CounterReadings, ...]:
        """Return the raw readings of each counter at every edge and mark until now."""
        return self._readings.columns()

    def close_trace(self) -> None:
        """End the sampling of power and complete its file; a second time does nothing."""
        self._trace.close()

    def report(self) -> MeterReport:
        """Say how well the sensors measured; the trace is in it once it is closed."""
        return MeterReport(
            counter_tick_s=self._ticks_s,
            trace=str(self._trace.path) if self._trace.path else None,
            trace_sha256=self._trace.sha256,
            trace_reason=self._trace.reason,
            simulated=self._simulated,
            package_versions=versions(PACKAGES),
        )

    def close(self) -> None:
        """Release the sensors, and end the processes beside this one that are still there."""
        self.close_trace()
        self._watch.stop()
        self._gpus.close()


def open_meter(
    settings: MeterSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    sysfs: Path = Path("/sys"),
    procfs: Path = Path("/proc"),
    nvml: Any = None,
    trace_path: Path | None = None,
    start_sampler: StartSampler | None = None,
) -> Meter:
    """Find this host's sensors and begin the power trace. May take some seconds.

    ``clock`` gives seconds and must be the one that completions are stamped with. ``nvml`` is the
    module of a simulated host, used instead of ``pynvml``. The trace goes to ``trace_path``, by
    ``start_sampler``, which is that of ``process.py`` unless given. Raises LlmEnergyError for a
    country that has no grid factor.
    """
    gpus = _open_gpus(nvml, clock, sleep)
    watch = Watch()
    rapl = RaplCounters(sysfs, clock, watch.looks)
    devices = gpus.sensor().devices
    # On another clock its times would mean nothing.
    if clock is time.monotonic and nvml is None and (rapl.files or devices):
        watch.start(rapl.files, devices, procfs)
    return Meter(
        gpus=gpus,
        counters=(rapl,),
        estimates=_open_estimates(settings, simulated=nvml is not None),
        host=HostCounters(procfs, clock, wall_clock),
        trace=begin_trace(start_sampler, trace_path, settings.sampling_period_s, devices),
        watch=watch,
        carbon=carbon_intensity(settings),
        simulated=nvml is not None,
        clock=clock,
        sleep=sleep,
    )


def _open_gpus(
    nvml: Any, clock: Callable[[], float], sleep: Callable[[float], None]
) -> NvmlGpus | AmdGpus:
    """Take NVIDIA's GPUs; AMD's where there are only those."""
    # What the user hides from CUDA hides no GPU of a simulated host.
    environ = os.environ if nvml is None else {}
    nvidia = NvmlGpus(environ, nvml, clock)
    if nvidia.found or nvml is not None:
        return nvidia
    amd = AmdGpus(clock, sleep)
    if amd.found:
        return amd
    if amd.problem:
        nvidia.reason += f"; {amd.problem}"
    return nvidia


def _open_estimates(settings: MeterSettings, simulated: bool) -> tuple[Sensor, ...]:
    if simulated:
        # The models would see the load of the real host.
        reason = "a simulated host is not estimated"
        return (Absent("cpu", reason), Absent("dram", reason))
    return open_estimates(settings)
