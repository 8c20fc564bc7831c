"""The order of one repeat: preflight, baselines, load, and for each workload warm-up and window.

Only ``backend.generate`` runs inside a window. Preparing, counting, logging, progress and garbage
collection all happen outside, because they are not what inference costs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_energy.backends.base import Backend
from llm_energy.backends.engine_errors import outcome
from llm_energy.core.errors import RecordError
from llm_energy.inputs.quality import measure_quality
from llm_energy.measure import window as window_rows
from llm_energy.measure.arrival_queue import BEGIN, END, ArrivalQueue
from llm_energy.measure.preflight import preflight
from llm_energy.measure.warmup import Thermometer, converged, trend, warmed_up
from llm_energy.measure.window import Marks
from llm_energy.meter.meter import Meter
from llm_energy.records import (
    Arrivals,
    Completion,
    Interval,
    Outcome,
    Preflight,
    Protocol,
    Quality,
    QualityText,
    Request,
    Spec,
    Window,
    Workload,
)
from llm_energy.records.steps import StepTable

# Until then a counter may still show joules of the window: two of its usual ticks.
HOT_IDLE_AFTER_S = 0.2
NO_STEPS = "the engine does not tell its steps"
WARM_UP_BATCHES = 2  # of timed traffic, in one warm-up pass


@dataclass(frozen=True)
class Repeat:
    """What one repeat has found so far; ``outcome`` speaks of the load, windows for themselves.

    ``steps`` has, by workload, the engine's steps in windows with a result, or why it tells none.
    """

    outcome: Outcome = "ok"
    reason: str | None = None
    effective: dict[str, Any] | None = None
    baselines: tuple[Interval, ...] = ()
    load: Interval | None = None
    windows: tuple[Window, ...] = ()
    preflight: Preflight | None = None
    quality: Quality | None = None
    steps: dict[str, StepTable | str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bench:
    """What every stretch of a repeat works with."""

    settings: Protocol
    backend: Backend
    meter: Meter
    step: Callable[[str], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]


def run_repeat(
    spec: Spec,
    model_folder: Path,
    requests: dict[str, Sequence[Request]],
    backend: Backend,
    meter: Meter,
    *,
    quality_text: QualityText | None = None,
    arrivals: Mapping[str, Arrivals] = MappingProxyType({}),
    outputs: Path = Path(),
    keep: Callable[[Repeat], None] = lambda repeat: None,
    step: Callable[[str], None] = lambda label: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Repeat:
    """Measure every workload of ``spec`` and return what was found, failures included.

    ``requests`` is keyed by workload id, and so are the ``arrivals`` of timed traffic;
    ``quality_text`` is scored after all that is metered; ``outputs`` is the folder that must have
    room. ``keep`` is called with all that is finished after the load and after each window,
    ``step`` before each stretch; neither is called inside one. What the engine cannot do, and what
    it fails at, is an outcome and not an exception; the engine is closed in any case.
    """
    settings = spec.protocol
    bench = _Bench(settings, backend, meter, step, clock, sleep)
    step("preflight")
    look = preflight(meter.glance, settings.preflight_max_wait_s, outputs, clock, sleep)
    repeat = Repeat(preflight=look.judge())
    meter.measure_ticks()

    def idle(name: str, duration_s: float) -> None:
        nonlocal repeat
        if duration_s > 0:
            step(name.replace("_", " "))
            with meter.interval(name) as interval:
                sleep(duration_s)
            repeat = replace(repeat, baselines=(*repeat.baselines, interval.record))

    idle("deep_idle", settings.deep_idle_duration_s)
    try:
        step("load")
        with outcome() as failure, meter.interval("load") as interval:
            effective = backend.load(spec, model_folder)
        if failure.outcome != "ok":
            return replace(repeat, outcome=failure.outcome, reason=failure.reason)
        meter.restrict(effective["device_uuids"])
        in_use = look.judge([gpu.device for gpu in meter.glance().gpus])
        repeat = replace(repeat, effective=effective, load=interval.record, preflight=in_use)
        keep(repeat)

        idle("loaded_idle_before", settings.loaded_idle_duration_s)
        for order, workload in enumerate(spec.workloads):
            timed = arrivals.get(workload.id)
            window, steps = _measure_workload(bench, order, workload, requests[workload.id], timed)
            repeat = replace(repeat, windows=(*repeat.windows, window), steps=repeat.steps | steps)
            keep(repeat)
        idle("loaded_idle_after", settings.loaded_idle_duration_s)
        if quality_text:
            step("quality")
            repeat = replace(repeat, quality=measure_quality(backend, quality_text))
        return repeat
    finally:
        backend.close()


def _measure_workload(
    bench: _Bench,
    order: int,
    workload: Workload,
    requests: Sequence[Request],
    arrivals: Arrivals | None,
) -> tuple[Window, dict[str, StepTable | str]]:
    """Warm one workload up, measure it, and give its window whatever came of it, and its steps."""
    settings, backend = bench.settings, bench.backend
    durations_s: list[float] = []
    passes: list[list[Completion]] = []
    ends_s: list[float] = []
    effective: dict[str, Any] = {}
    events: dict[str, Any] = {}
    thermometer = Thermometer()
    thermal_wait_s: float | None = None
    measured: dict[str, Any] = {}
    with outcome() as failure:
        effective = backend.prepare(*_to_warm_up(workload, requests))
        thermal_wait_s = _warm_up(bench, workload.id, durations_s, thermometer)
        if arrivals:
            effective = backend.prepare(workload, requests)
        bench.step(f"{workload.id}: window")
        before = backend.events()
        _take_steps(backend)
        # A collection inside the window would be charged to the model.
        gc.collect()
        gc.disable()
        try:
            if arrivals:
                measured = _serve_traffic(bench, arrivals, len(requests))
            else:
                measured = _serve_passes(bench, workload, effective, passes, ends_s)
        finally:
            gc.enable()
        measured |= _hot_idle(bench, workload.id)
        events = _counted(before, backend.events())
    blank = Window(
        workload=workload.id,
        order=order,
        outcome=failure.outcome,
        reason=failure.reason,
        warmup_durations_s=tuple(durations_s),
        warmup_converged=converged(durations_s, settings),
        passes=len(passes),
        interval=None,
        requests=None,
        output_token_ids=window_rows.ids(passes[0] if passes else ()),
        effective=effective,
        pass_ends_s=tuple(ends_s),
        warmup_trend=trend(durations_s),
        thermal_wait_s=thermal_wait_s,
        temperature_slope_c_per_10s=thermometer.slope_c_per_10s(),
        events=events,
    )
    steps = measured.pop("steps", None)
    return replace(blank, **measured), {} if steps is None else {workload.id: steps}


def _take_steps(backend: Backend) -> StepTable | str:
    """Return the steps since the last call, or why there are none: no window is lost for them."""
    take = getattr(backend, "steps", None)
    try:
        return (take() if take else None) or NO_STEPS
    except RecordError as error:
        return str(error)


def _hot_idle(bench: _Bench, workload: str) -> dict[str, Any]:
    """Let the loaded engine wait under the meter right after a window; give the window's field."""
    if not bench.settings.hot_idle_duration_s > 0:
        return {}
    bench.step(f"{workload}: hot idle")
    bench.sleep(HOT_IDLE_AFTER_S)
    with bench.meter.interval("hot_idle") as interval:
        bench.sleep(bench.settings.hot_idle_duration_s)
    return {"hot_idle": interval.record}


def _to_warm_up(
    workload: Workload, requests: Sequence[Request]
) -> tuple[Workload, Sequence[Request]]:
    """Return what a workload is warmed up with: for timed traffic a few batches, all at once."""
    if workload.arrivals_sha256 is None:
        return workload, requests
    few = requests[: WARM_UP_BATCHES * workload.batch_size]
    return replace(workload, requests=len(few), arrivals_sha256=None), few


def _serve_passes(
    bench: _Bench,
    workload: Workload,
    effective: dict[str, Any],
    passes: list[list[Completion]],
    ends_s: list[float],
) -> dict[str, Any]:
    """Serve whole passes until the window is long enough; give the window's fields about them.

    Passes and their ends are put into what the caller gives, so that it has them should one fail.
    """
    backend, clock = bench.backend, bench.clock
    with bench.meter.interval("window") as interval:
        marks = Marks(interval, passes)
        begin_s = clock()
        while not ends_s or ends_s[-1] - begin_s < bench.settings.window_min_duration_s:
            passes.append(backend.generate(marks))
            ends_s.append(clock())
    continuous = effective.get("batching", {}).get("strategy") == "continuous"
    by_ids = effective.get("token_source") != "usage"  # else none are counted while they come
    rows = [completion for completions in passes for completion in completions]
    return {
        "steps": window_rows.steps(_take_steps(backend), interval.record),
        "interval": interval.record,
        "requests": window_rows.table(rows),
        "steady_state": marks.steady_state(workload) if continuous and by_ids else None,
        "inter_token": window_rows.inter_token(rows),
    }


def _serve_traffic(bench: _Bench, arrivals: Arrivals, prompts: int) -> dict[str, Any]:
    """Serve timed traffic, ramp and drain included; give the fields of the window inside it.

    What is in flight at the end is served to its end, so that no latency is cut short. The meter's
    state of GPUs and host is that of the whole stretch: reading it amid the traffic would delay
    the requests.
    """
    with bench.meter.interval("traffic") as interval:
        queue = ArrivalQueue(arrivals, prompts, bench.clock, bench.sleep, interval.mark)
        rows = bench.backend.serve(queue)
    window = bench.meter.inner(interval, BEGIN, END, "window")
    shown = window_rows.touching(rows, window, queue.edges_s)
    places = {id(c): place for place, c in enumerate(shown)}
    numbers = {number: places[id(c)] for number, c in enumerate(rows) if id(c) in places}
    return {
        "steps": window_rows.steps(_take_steps(bench.backend), window, numbers),
        "interval": window,
        "requests": window_rows.table(shown, window),
        "output_token_ids": window_rows.ids(reversed(shown)),
        "inter_token": window_rows.inter_token(rows, window),
        "traffic": window_rows.report(arrivals, queue, rows, window),
    }


def _warm_up(
    bench: _Bench, workload: str, durations_s: list[float], thermometer: Thermometer
) -> float:
    """Serve passes until the workload is warm; give the seconds that the thermal policy added.

    Durations and temperatures are put into what the caller gives, so that it has them should a pass
    fail. Between a last pass and the window under ``sustained`` there is nothing but readings.
    """
    settings, clock = bench.settings, bench.clock

    def feel() -> None:
        gpus = bench.meter.glance().gpus
        thermometer.read(clock(), [gpu.temperature_c for gpu in gpus])

    def serve(label: str) -> None:
        bench.step(f"{workload}: {label}")
        begin_s = clock()
        bench.backend.generate()
        durations_s.append(clock() - begin_s)
        feel()

    feel()
    while not warmed_up(durations_s, settings):
        serve(f"warm-up {len(durations_s) + 1}")
    begin_s = clock()
    if settings.thermal_policy == "cooldown":
        bench.step(f"{workload}: cool-down")
        bench.sleep(settings.cooldown_duration_s)
        feel()
    elif settings.thermal_policy == "sustained":
        while (
            not thermometer.settled(settings.thermal_slope_c_per_10s)
            and clock() - begin_s < settings.thermal_max_wait_s
        ):
            serve("settling")
    return clock() - begin_s


def _counted(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what the engine counted between two looks; what is no count stands as it is after."""
    return {
        name: value - before.get(name, 0) if type(value) is int else value
        for name, value in after.items()
    }
