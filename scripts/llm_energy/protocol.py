"""The order of one repeat: baselines, load, and for each workload warm-up and window.

Only ``backend.generate`` runs inside a window. Preparing, counting, logging, progress and garbage
collection all happen outside, because they are not what inference costs.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_energy.backends import Backend
from llm_energy.errors import OutOfMemory, Unsupported
from llm_energy.meter import Meter
from llm_energy.records import (
    Completion,
    Interval,
    Outcome,
    Protocol,
    Request,
    RequestTable,
    Spec,
    Window,
    Workload,
)

WARMUP_SPAN = 3  # passes over which the coefficient of variation is judged


@dataclass(frozen=True)
class Repeat:
    """What one repeat has found so far; ``outcome`` speaks of the load, windows for themselves."""

    outcome: Outcome = "ok"
    reason: str | None = None
    effective: dict[str, Any] | None = None
    baselines: tuple[Interval, ...] = ()
    load: Interval | None = None
    windows: tuple[Window, ...] = ()


def run_repeat(
    spec: Spec,
    model_folder: Path,
    requests: dict[str, Sequence[Request]],
    backend: Backend,
    meter: Meter,
    *,
    keep: Callable[[Repeat], None] = lambda repeat: None,
    step: Callable[[str], None] = lambda label: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Repeat:
    """Measure every workload of ``spec`` and return what was found, failures included.

    ``requests`` is keyed by workload id. ``keep`` is called with all that is finished after the
    load and after each window, ``step`` before each stretch; neither is called inside one. What the
    engine cannot do, and what it fails at, is an outcome and not an exception.
    """
    repeat = Repeat()
    settings = spec.protocol

    def idle(name: str, duration_s: float) -> None:
        nonlocal repeat
        if duration_s > 0:
            step(name.replace("_", " "))
            with meter.interval(name) as interval:
                sleep(duration_s)
            repeat = replace(repeat, baselines=(*repeat.baselines, interval.record))

    idle("deep_idle", settings.deep_idle_duration_s)
    step("load")
    with _outcome() as failure, meter.interval("load") as interval:
        effective = backend.load(spec, model_folder)
    if failure.outcome != "ok":
        backend.close()
        return replace(repeat, outcome=failure.outcome, reason=failure.reason)
    repeat = replace(repeat, effective=effective, load=interval.record)
    meter.restrict(effective["device_uuids"])
    keep(repeat)

    idle("loaded_idle_before", settings.loaded_idle_duration_s)
    for order, workload in enumerate(spec.workloads):
        window = _measure_workload(
            order, workload, requests[workload.id], settings, backend, meter, step, clock
        )
        repeat = replace(repeat, windows=(*repeat.windows, window))
        keep(repeat)
    idle("loaded_idle_after", settings.loaded_idle_duration_s)
    backend.close()
    return repeat


@dataclass
class _Failure:
    outcome: Outcome = "ok"
    reason: str | None = None


@contextlib.contextmanager
def _outcome() -> Iterator[_Failure]:
    """Turn what a backend raises into an outcome with its reason."""
    failure = _Failure()
    try:
        yield failure
    except Unsupported as error:
        failure.outcome, failure.reason = "unsupported", str(error)
    except OutOfMemory as error:
        failure.outcome, failure.reason = "oom", str(error)
    except Exception as error:  # an engine may raise anything, and none of it may cost the others
        failure.outcome, failure.reason = "failed", f"{type(error).__name__}: {error}"


def _measure_workload(
    order: int,
    workload: Workload,
    requests: Sequence[Request],
    settings: Protocol,
    backend: Backend,
    meter: Meter,
    step: Callable[[str], None],
    clock: Callable[[], float],
) -> Window:
    """Warm one workload up, measure it, and give its window whatever came of it."""
    durations: list[float] = []
    passes: list[list[Completion]] = []
    effective: dict[str, Any] = {}
    record: Interval | None = None
    with _outcome() as failure:
        effective = backend.prepare(workload, requests)
        while not warmed_up(durations, settings):
            step(f"{workload.id}: warm-up {len(durations) + 1}")
            begin = clock()
            backend.generate()
            durations.append(clock() - begin)
        step(f"{workload.id}: window")
        # A collection inside the window would be charged to the model.
        gc.collect()
        gc.disable()
        try:
            with meter.interval("window") as interval:
                begin = clock()
                while not passes or clock() - begin < settings.window_min_duration_s:
                    passes.append(backend.generate())
        finally:
            gc.enable()
        record = interval.record
    return Window(
        workload=workload.id,
        order=order,
        outcome=failure.outcome,
        reason=failure.reason,
        warmup_durations_s=tuple(durations),
        warmup_converged=converged(durations, settings),
        passes=len(passes),
        interval=record,
        requests=_table(passes) if record else None,
        output_token_ids={c.request_id: c.output_token_ids for c in passes[0]} if passes else {},
        effective=effective,
    )


def warmed_up(durations_s: Sequence[float], settings: Protocol) -> bool:
    """Say whether the warm-up may end: converged after the minimum, or at the maximum.

    >>> warmed_up([1.0, 1.0], Protocol(warmup_min_passes=2, warmup_max_passes=9))
    False
    >>> warmed_up([9.0, 1.0, 1.01, 1.0], Protocol(warmup_min_passes=2, warmup_max_passes=9))
    True
    """
    if len(durations_s) >= settings.warmup_max_passes:
        return True
    if len(durations_s) < settings.warmup_min_passes:
        return False
    return bool(converged(durations_s, settings))


def converged(durations_s: Sequence[float], settings: Protocol) -> bool | None:
    """Say whether the last passes took the same time; None where there are too few to tell.

    The coefficient of variation (sample SD over mean) of the last three passes must be below
    ``settings.warmup_cv``.
    """
    last = durations_s[-WARMUP_SPAN:]
    if len(last) < WARMUP_SPAN:
        return None
    return statistics.stdev(last) / statistics.fmean(last) < settings.warmup_cv


def _table(passes: Sequence[Sequence[Completion]]) -> RequestTable:
    """Lay the completions of all passes out as columns."""
    rows = [completion for completions in passes for completion in completions]
    return RequestTable(
        request_id=tuple(c.request_id for c in rows),
        prompt_tokens=tuple(c.prompt_tokens for c in rows),
        padding_tokens=tuple(c.padding_tokens for c in rows),
        cached_prompt_tokens=tuple(c.cached_prompt_tokens for c in rows),
        output_tokens=tuple(len(c.output_token_ids) for c in rows),
        finish_reason=tuple(c.finish_reason for c in rows),
        arrival_s=tuple(c.arrival_s for c in rows),
        first_token_s=tuple(c.first_token_s for c in rows),
        last_token_s=tuple(c.last_token_s for c in rows),
    )
