"""A power trace in simulated time, with the interface and the file of the real sampler process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_energy.measure.simulation.gpus import Gpu
from llm_energy.records import TraceSummary, power_trace


class VirtualSampler:
    """Sample GPUs every ``period_s`` from now on; rows are made when somebody asks for them.

    Between the two times of each of ``pauses`` it is kept from its work.
    """

    problem = None

    def __init__(
        self,
        path: Path,
        period_s: float,
        gpus: Sequence[Gpu],
        clock: Callable[[], float],
        pauses: Sequence[tuple[float, float]] = (),
    ):
        self._path = path
        self._period_s = period_s
        self._gpus = gpus
        self._clock = clock
        self._pauses = pauses
        self._next_s = clock()
        self._samples: list[power_trace.Sample] = []
        self._times_s: list[float] = []
        for gpu in gpus:
            gpu.poll(True)

    def summary(self, start_s: float, end_s: float) -> tuple[TraceSummary, ...]:
        """Summarise an interval that has ended."""
        self._sample()
        # With two samples beyond each edge, from which the power at the edges follows.
        first = bisect_left(self._times_s, start_s - 2 * self._period_s)
        last = bisect_left(self._times_s, end_s + 2 * self._period_s)
        return power_trace.summarise(self._samples[first:last], start_s, end_s)

    def stop(self) -> Path:
        """Write the whole trace and give its path."""
        self._sample()
        for gpu in self._gpus:
            gpu.poll(False)
        methods = {gpu.uuid: "simulated" for gpu in self._gpus}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(power_trace.partial_path(self._path), "w", encoding="utf-8") as stream:
            stream.write(power_trace.header(self._period_s, methods))
            stream.writelines(map(power_trace.row, self._samples))
        power_trace.pack(self._path)
        return self._path

    def _sample(self) -> None:
        now_s = self._clock()
        while self._next_s <= now_s:
            paused = any(begin_s <= self._next_s < end_s for begin_s, end_s in self._pauses)
            for gpu in () if paused else self._gpus:
                reasons, sm_clock_mhz, utilization = gpu.history.state(self._next_s)
                self._samples.append(
                    power_trace.Sample(
                        round(self._next_s, 6),  # as it stands in the file
                        gpu.uuid,
                        round(gpu.power_w(self._next_s), 3),
                        round(gpu.history.temperature_c(self._next_s)),
                        sm_clock_mhz,
                        gpu.truth.memory_clock_mhz,
                        utilization,
                        reasons,
                    )
                )
                self._times_s.append(self._next_s)
            self._next_s += self._period_s
