"""What the audit looks at: the files of one repeat, and the little of each window that it compares.

All of it is read anew from the files, so that what was recorded can be held against it.
"""

from __future__ import annotations

import calendar
import dataclasses
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from llm_energy.analysis.evidence.readings import Reach, has_readings, reaches
from llm_energy.analysis.evidence.steps import StepsRead
from llm_energy.analysis.evidence.windows import Key, Pairs
from llm_energy.core.errors import RecordError
from llm_energy.core.files import sha256_file
from llm_energy.records import Interval, Measurement, TraceSummary, Window, power_trace
from llm_energy.records.files import paths

Summaries = tuple[TraceSummary, ...]
ROUNDING = 1e-9
STEADY = "steady_state"
BETWEEN = "between "
# What an engine says of itself that repeats of one cell must have in common.
ENGINE_KEYS = (
    *("engine_version", "torch_version", "flow", "dtype", "quantization", "weight_bytes_by_dtype"),
    *("attn_implementation", "attention_backend", "kv_cache_dtype", "enforce_eager"),
    *("memory_allocator", "openmp"),
    *("compilation_mode", "cudagraph_mode", "async_scheduling", "enable_chunked_prefill"),
    *("enable_prefix_caching", "max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size"),
)


@dataclass(frozen=True)
class TraceFile:
    """The power trace beside a measurement as it is now; ``problem`` says what is wrong with it.

    ``summaries`` has, by the place of an interval in the record, what the file says of it.
    """

    path: Path
    sha256: str | None = None
    problem: str | None = None
    summaries: Mapping[str, Summaries] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeat:
    """One repeat as its files tell of it.

    ``prompts`` are, by workload, the hash in the prompts file and that of its token ids.
    """

    measurement: Measurement
    trace: TraceFile
    steps: StepsRead
    prompts: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)

    @property
    def windows(self) -> Iterator[Window]:
        """Return the windows with a measured result."""
        return (w for w in self.measurement.windows if w.outcome == "ok")


@dataclass(frozen=True)
class Span:
    """The little of one window that is compared with others of the sweep; ten thousand are held.

    ``own`` says whether it is of the audited backend. ``utc_s`` is the calendar time of the zero of
    its monotonic clock, ``rank`` its repeat's place in the plan, each None where it is not known;
    ``energy_j`` has its measured joules, ``reaches`` what the GPUs' counters showed in its repeat.
    """

    key: Key
    own: bool
    hostname: str
    boot_id: str | None
    start_s: float
    end_s: float
    utc_s: float | None
    simulated: bool
    rank: int | None
    order: int
    planned_order: int
    energy_j: tuple[float, ...]
    engine: Pairs
    reaches: tuple[Reach, ...] = ()

    @property
    def duration_s(self) -> float:
        """Return the length of the window in seconds."""
        return self.end_s - self.start_s


def intervals(measurement: Measurement) -> Iterator[tuple[str, str | None, Interval]]:
    """Yield each metered interval with its place in the record and its workload, if it has one."""
    for one in (*measurement.baselines, *([measurement.load] if measurement.load else [])):
        yield one.name, None, one
    for window in measurement.windows:
        if window.interval is not None:
            yield f"window {window.workload}", window.workload, window.interval
        for number, part in enumerate(window.steady_state.intervals if window.steady_state else ()):
            yield steady_place(window.workload, number), window.workload, part
        if window.hot_idle is not None:
            yield f"hot_idle {window.workload}", window.workload, window.hot_idle


def gaps(measurement: Measurement) -> Iterator[tuple[str, Interval]]:
    """Yield, with its place, what lies between two neighbouring intervals whose edges were read."""
    if not has_readings(measurement):
        return
    outer = [(p, one) for p, _, one in intervals(measurement) if not p.startswith(STEADY)]
    outer.sort(key=lambda pair: pair[1].start_s)
    for (earlier, one), (later, other) in pairwise(outer):
        if one.end_s < other.start_s:
            place = f"{BETWEEN}{earlier} and {later}"
            yield place, Interval(place, one.end_s, other.start_s, ())


def steady_place(workload: str, number: int) -> str:
    """Name the place of a window's steady state in one pass, from 0.

    >>> steady_place("b8", 0)
    'steady_state b8 0'
    """
    return f"{STEADY} {workload} {number}"


def read_trace(measurement: Measurement, path: Path) -> TraceFile:
    """Read the power trace beside the measurement at ``path``, and integrate it anew."""
    found = TraceFile(paths.power_trace(path))
    if not found.path.is_file():
        return found
    found = replace(found, sha256=sha256_file(found.path))
    samples: dict[str, list[power_trace.Sample]] = {}
    try:
        for sample in power_trace.read(found.path):
            samples.setdefault(sample.device, []).append(sample)
    except RecordError as error:
        return replace(found, problem=str(error))
    times = {device: [sample.time_s for sample in found] for device, found in samples.items()}
    if any(not all(map(math.isfinite, t)) or t != sorted(t) for t in times.values()):
        return replace(found, problem=f"{found.path}: its times do not ascend")
    summaries = {}
    metered = [(place, interval) for place, _, interval in intervals(measurement)]
    for place, interval in (*metered, *gaps(measurement)):
        begin_s, end_s = interval.start_s, interval.end_s
        if (interval.trace or place.startswith((STEADY, BETWEEN))) and begin_s < end_s:
            near = [_around(samples[d], times[d], begin_s, end_s) for d in sorted(samples)]
            summaries[place] = _summarise(near, interval)
    return replace(found, summaries=summaries)


def _summarise(near: list[list[power_trace.Sample]], interval: Interval) -> Summaries:
    """Summarise anew, without the samples behind the end where that gives what was recorded.

    These may not have been there yet when the interval was summarised.
    """
    end_s = interval.end_s
    every = [sample for part in near for sample in part]
    found = power_trace.summarise(every, interval.start_s, end_s)
    if interval.trace and not same(interval.trace, found):
        then = [sample for sample in every if sample.time_s <= end_s]
        if same(interval.trace, seen := power_trace.summarise(then, interval.start_s, end_s)):
            return seen
    return found


def same(recorded: Summaries, again: Summaries) -> bool:
    """Tell whether a power trace gives again what was recorded, but for the rounding of sums."""
    found = {one.device: one for one in again}
    return all(
        _equal(one, found[one.device]) if one.device in found else not one.samples
        for one in recorded
    )


def _equal(one: TraceSummary, other: TraceSummary) -> bool:
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return all(
        a == b
        or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=ROUNDING))
        for a, b in pairs
    )


def _around(
    samples: list[power_trace.Sample], times: list[float], begin_s: float, end_s: float
) -> list[power_trace.Sample]:
    """Return the samples inside an interval, and on each side those up to one with a power."""
    first, last = bisect_left(times, begin_s), bisect_right(times, end_s)
    while first > 0:
        first -= 1
        if samples[first].power_w is not None:
            break
    while last < len(samples):
        last += 1
        if samples[last - 1].power_w is not None:
            break
    return samples[first:last]


def spans(measurement: Measurement, own: bool, rank: int | None) -> Iterator[Span]:
    """Yield what is compared of the windows of one measurement."""
    spec, host, effective = measurement.spec, measurement.host, measurement.effective
    planned = [workload.id for workload in spec.workloads]
    begin_s = calendar_s(measurement.clock.utc)
    reached = tuple(reaches(measurement))
    engine = tuple((k, str(effective[k])) for k in ENGINE_KEYS if k in effective)
    for window in measurement.windows:
        interval = window.interval
        if window.outcome == "ok" and interval is not None and window.workload in planned:
            yield Span(
                key=Key(spec.cell, spec.repeat, window.workload),
                own=own,
                hostname=host.hostname,
                boot_id=host.boot_id,
                start_s=interval.start_s,
                end_s=interval.end_s,
                utc_s=None if begin_s is None else begin_s - measurement.clock.monotonic_s,
                simulated=measurement.meter is None or measurement.meter.simulated,
                rank=rank,
                order=window.order,
                planned_order=planned.index(window.workload),
                energy_j=tuple(p.energy_j for p in interval.energy if p.status == "measured"),
                engine=engine,
                reaches=reached,
            )


def calendar_s(utc: str) -> float | None:
    """Return an ISO 8601 time as seconds since 1970, None where it is none.

    >>> calendar_s("1970-01-01T00:01:00.5+00:00"), calendar_s("soon")
    (60.5, None)
    """
    try:
        time = datetime.fromisoformat(utc)
    except ValueError:
        return None
    return calendar.timegm(time.utctimetuple()) + time.microsecond / 1e6
