"""A backend and a clock with a known truth, for tests of what happens around an engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

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


class SimulatedMeter:
    """A meter of a host that draws a constant power, and a log of its intervals."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.open: str | None = None
        self.names: list[str] = []
        self.restricted_to: list[str] | None = None

    @contextmanager
    def interval(self, name: str):
        holder = SimpleNamespace(record=None)
        start_s = self.clock()
        self.open = name
        try:
            yield holder
        finally:
            self.open = None
        end_s = self.clock()
        energy = ComponentEnergy("cpu", None, "measured", "simulated", POWER_W * (end_s - start_s))
        self.names.append(name)
        holder.record = Interval(name, start_s, end_s, (energy,))

    def restrict(self, device_uuids: Sequence[str]) -> None:
        self.restricted_to = list(device_uuids)


class SimulatedBackend:
    """A backend whose passes take the durations it is given, the last one for ever.

    ``fail`` maps a call (``load``, ``prepare`` or ``generate``) to the exception that it raises.
    """

    def __init__(self, clock: Clock, durations_s: Sequence[float] = (1.0,), fail=None) -> None:
        self.clock = clock
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
        self.clock.sleep(2.0)
        return {"device": "cpu", "device_uuids": [], "dtype": "float32", "weight_bytes": 1}

    def prepare(self, workload: Workload, requests: Sequence[Request]) -> dict:
        self._may_fail("prepare")
        self.requests = requests
        return {"prepared": workload.id}

    def generate(self) -> list[Completion]:
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

    def close(self) -> None:
        self.closed = True


def spec(workloads: Sequence[str] = ("b1",), **protocol) -> Spec:
    """Give a small spec; keywords set the protocol's values."""
    settings = {
        "window_min_duration_s": 3.0,
        "deep_idle_duration_s": 4.0,
        "loaded_idle_duration_s": 5.0,
        "warmup_min_passes": 3,
        "warmup_max_passes": 6,
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
