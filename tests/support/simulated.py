"""A backend and a clock with a known truth, for tests of what happens around an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END, no_mark
from llm_energy.meter.meter import Glance, GpuGlance
from llm_energy.records import (
    SCHEMA_VERSION,
    Completion,
    ComponentEnergy,
    Interval,
    MeterSettings,
    Protocol,
    Request,
    Spec,
    Workload,
)

POWER_W = 50.0


class Clock:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


def gpu(device: str = "GPU-1", **changes) -> GpuGlance:
    """Return a look at a healthy GPU at rest."""
    healthy = {
        "temperature_c": 35.0,
        "utilization_percent": 0.0,
        "memory_used_bytes": 2**20,
        "power_w": 60.0,
        "foreign_processes": (),
        "clock_event_reasons": 0x1,
        "mig": False,
        "power_limit_w": 700.0,
        "default_power_limit_w": 700.0,
    }
    return GpuGlance(device=device, **(healthy | changes))


def glance(*gpus: GpuGlance, **changes) -> Glance:
    """Return a look at a healthy host at rest with these GPUs."""
    healthy = {
        "load_per_cpu": 0.1,
        "memory_available_bytes": 2**35,
        "swap_used_bytes": 0,
    }
    return Glance(gpus=gpus, **(healthy | changes))


class SimulatedInterval:
    """An interval at a constant power."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.marks_s: dict[str, float] = {}
        self.record: Interval | None = None

    def mark(self, label: str) -> None:
        assert label not in self.marks_s
        self.marks_s[label] = self.clock()

    def between(self, label_a: str, label_b: str, name: str) -> Interval:
        return self.of(name, self.marks_s[label_a], self.marks_s[label_b])

    @staticmethod
    def of(name: str, start_s: float, end_s: float) -> Interval:
        energy = ComponentEnergy("cpu", None, "measured", "simulated", POWER_W * (end_s - start_s))
        return Interval(name, start_s, end_s, (energy,))


class SimulatedMeter:
    """A meter of a host that draws a constant power, and a log of what it was asked for.

    ``look`` gives what a glance sees at a time; a host without GPUs unless it is given.
    """

    def __init__(self, clock: Clock, look: Callable[[float], Glance] = lambda _: glance()) -> None:
        self.clock = clock
        self.look = look
        self.open: str | None = None
        self.names: list[str] = []
        self.restricted_to: list[str] | None = None

    @contextmanager
    def interval(self, name: str):
        interval = SimulatedInterval(self.clock)
        start_s = self.clock()
        self.open = name
        try:
            yield interval
        finally:
            self.open = None
        self.names.append(name)
        interval.record = interval.of(name, start_s, self.clock())

    def restrict(self, device_uuids: Sequence[str]) -> None:
        self.restricted_to = list(device_uuids)

    def glance(self) -> Glance:
        assert self.open is None, "nothing is looked at inside an interval"
        seen = self.look(self.clock())
        if self.restricted_to is None:
            return seen
        return replace(seen, gpus=tuple(b for b in seen.gpus if b.device in self.restricted_to))

    def measure_ticks(self) -> None:
        assert self.open is None
        self.names.append("ticks")


class SimulatedBackend:
    """A backend whose passes take the durations it is given, the last one for ever.

    ``fail`` maps a call (``load``, ``prepare`` or ``generate``) to the exception that it raises.
    """

    def __init__(
        self,
        clock: Clock,
        durations_s: Sequence[float] = (1.0,),
        fail=None,
        load_s: float = 2.0,
        gpus: Sequence[str] = (),
    ) -> None:
        self.clock = clock
        self.load_s = load_s
        self.gpus = list(gpus)
        self.durations_s = list(durations_s)
        self.fail = dict(fail or {})
        self.requests: Sequence[Request] = ()
        self.passes = 0
        self.closed = False

    def _may_fail(self, call: str) -> None:
        if call in self.fail:
            raise self.fail[call]

    def load(self, spec: Spec, model_folder: Path) -> dict:
        self._may_fail("load")
        self.clock.sleep(self.load_s)
        return {"device": "cpu", "device_uuids": self.gpus, "dtype": "float32", "weight_bytes": 1}

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict:
        self._may_fail("prepare")
        self.requests = requests
        return {"prepared": workload.id}

    def generate(self, mark=no_mark) -> list[Completion]:
        self._may_fail("generate")
        begin_s = self.clock()
        index = min(self.passes, len(self.durations_s) - 1)
        self.clock.sleep(self.durations_s[index])
        self.passes += 1
        return [
            Completion(
                request_id=request.id,
                prompt_tokens=len(request.prompt_token_ids),
                padding_tokens=0,
                cached_prompt_tokens=0,
                output_token_ids=(self.passes, 2, 3),
                finish_reason="length",
                arrival_s=begin_s,
                first_token_s=begin_s + 0.1,
                last_token_s=self.clock(),
            )
            for request in self.requests
        ]

    def events(self) -> dict:
        return {"steps": 3 * self.passes, "mean_running_requests": 1.0}

    def close(self) -> None:
        self.closed = True


class ContinuousBackend(SimulatedBackend):
    """A backend with continuous batching that marks its steady state.

    Of a pass of ``d`` seconds the batch is full from 0.2 d, with 2 tokens out, to 0.8 d, with 8.
    """

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict:
        self.fills = workload.requests >= workload.batch_size + 2
        return super().prepare(workload, requests) | {"batching": {"strategy": "continuous"}}

    def generate(self, mark=no_mark) -> list[Completion]:
        begin_s = self.clock()
        completions = super().generate()
        end_s = self.clock()
        if self.fills:
            self.clock.now_s = begin_s + 0.2 * (end_s - begin_s)
            mark(STEADY_BEGIN, 2)
            self.clock.now_s = begin_s + 0.8 * (end_s - begin_s)
            mark(STEADY_END, 8)
        self.clock.now_s = end_s
        return completions


def spec(workloads: Sequence[str] = ("b1",), **protocol) -> Spec:
    """Return a small spec; keywords set the protocol's values."""
    settings = {
        "window_min_duration_s": 3.0,
        "deep_idle_duration_s": 4.0,
        "loaded_idle_duration_s": 5.0,
        "warmup_min_passes": 5,
        "warmup_max_passes": 7,
    }
    return Spec(
        schema_version=SCHEMA_VERSION,
        sweep="test",
        cell="m--pytorch--float32",
        model="m",
        backend="pytorch",
        precision="float32",
        repeat=1,
        seed=0,
        device="cpu",
        engine={},
        workloads=tuple(Workload(w, 1, {"batching": {"batch_size": 1}}, {}) for w in workloads),
        notes=(),
        protocol=Protocol(**(settings | protocol)),
        meter=MeterSettings(codecarbon=False),
    )
