"""Audit of one repeat: do its parts make up the whole, and is no pass, token or second lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.checks.energy.counters import RECOMMENDED_WINDOW_S
from llm_energy.analysis.checks.energy.power_trace import SENSORS_CONTRADICT, SENSORS_DIFFER
from llm_energy.analysis.energy.uncertainty import GPU_TICK_S
from llm_energy.analysis.evidence.files import Repeat, steady_place
from llm_energy.analysis.evidence.windows import integers
from llm_energy.records import (
    Interval,
    RequestTable,
    SteadyState,
    Window,
    Workload,
    is_greedy,
)

EDIT = "A record is never edited: take the file from where it was measured, or measure again."
TIME_TOLERANCE_S = 1e-3
# Between the end of the last pass and that of the window nothing is done: 20 us on an H100's host.
# Where only tokens tell when a pass ended, what the engine does after its last one is between too.
PASS_TOLERANCE_S, PASS_TOLERANCE = 0.1, 0.5
ROUNDING = 1e-9
TINY_J = 1e-9
# The same prompts under greedy decoding have mostly the same answers in every pass.
OTHER_COUNT, LEAST_REQUESTS = 0.1, 3
CHANCE = 1e-6
# Tokens need not come evenly between a request's first and last one: others' prefill is between.
STEADY_TOKENS, STEADY_TOKENS_INVALID = 0.1, 0.2


@check("A04", "files", "invalid", "passes and window do not agree", EDIT)
def lost_pass(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a pass that is missing, counted twice or outside the window, or requests outside theirs.

    As many passes end as there are, one after the other, the last one where the window ends; each
    has the last tokens of its requests, and each request of the workload once.
    """
    for window in repeat.windows:
        if window.traffic is None and (wrong := _passes(window, _workload(repeat, window))):
            yield window.workload, Finding(wrong)


@check("A05", "files", "invalid", "tokens counted otherwise in later passes", EDIT)
def other_counts(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find answers longer than allowed, and counts of later passes that are not those of the first.

    Greedy answers are mostly the same in every pass, so half of them must be within 10 %; sampled
    ones are longer as often as shorter, but for a chance of one in a million.
    """
    for window in repeat.windows:
        parameters = _workload(repeat, window).parameters
        longest = parameters["max_output_tokens"]
        if (most := max(window.requests.output_tokens, default=0)) > longest:
            yield window.workload, Finding({"output_tokens": most, "max_output_tokens": longest})
        elif window.traffic is None and (wrong := _scaled(window.requests, is_greedy(parameters))):
            yield window.workload, Finding(wrong)


@check("A06", "files", "invalid", "intervals of a repeat out of place", EDIT)
def misplaced_interval(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a baseline, load or window that runs backwards or into another one, or out of its turn.

    Deep idle, load, loaded idle, the windows in their order, each with its hot idle, and loaded
    idle again follow each other, within the time of the repeat.
    """
    measurement = repeat.measurement
    idle = {interval.name: interval for interval in measurement.baselines}
    windows = [
        (name, one)
        for w in measurement.windows
        for name, one in (
            (f"window {w.workload}", w.interval),
            (f"hot idle {w.workload}", w.hot_idle),
        )
        if one
    ]
    turns: list[tuple[str, Interval | None]] = [
        ("deep_idle", idle.get("deep_idle")),
        ("load", measurement.load),
        ("loaded_idle_before", idle.get("loaded_idle_before")),
        *windows,
        ("loaded_idle_after", idle.get("loaded_idle_after")),
    ]
    edges = [("begin of the repeat", measurement.clock.monotonic_s, measurement.clock.monotonic_s)]
    edges += [(name, one.start_s, one.end_s) for name, one in turns if one is not None]
    edges += [("end of the repeat", measurement.end_s, measurement.end_s)]
    wrong = [f"{name} ends before it begins" for name, start, end in edges if not start <= end]
    wrong += [
        f"{later} begins {end - start:.3f} s before the end of {earlier}"
        for (earlier, _, end), (later, start, _) in pairwise(edges)
        if not end <= start + TIME_TOLERANCE_S
    ]
    if wrong:
        yield None, Finding({"intervals": wrong[:5]})


@check("A07", "files", "invalid", "steady state is no part of its window", EDIT)
def more_than_whole(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a steady state with more joules, tokens or time than its window, or other tokens.

    Its tokens are held against the times of each request's first and last token: over 10 % off is a
    warning, over 20 % invalid.
    """
    for window in repeat.windows:
        steady = window.steady_state
        if steady is None or not steady.intervals:
            continue
        if wrong := _beyond(window, steady):
            yield window.workload, Finding(wrong)
        elif (expected := _tokens_between(window, steady)) is not None:
            ratio = steady.output_tokens / expected if expected else math.inf
            if abs(ratio - 1) > STEADY_TOKENS:
                evidence = {"output_tokens": steady.output_tokens, "by_token_times": expected}
                severe = abs(ratio - 1) > STEADY_TOKENS_INVALID
                yield window.workload, Finding(evidence, "invalid" if severe else "warning")


@check("A14", "files", "warning", "steady state and power trace disagree", EDIT)
def steady_sensors_disagree(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Hold the counters over the steady state against the integral of the power trace's file there.

    Over 5 % is a warning and over 20 % invalid, beyond what a counter's tick and a sample at the
    edges of each pass are worth.
    """
    report = repeat.measurement.meter
    period_s = repeat.measurement.spec.meter.sampling_period_s or 0.0
    for window in repeat.windows:
        parts = window.steady_state.intervals if window.steady_state else ()
        counted: dict[str, list[float]] = {}
        sampled: dict[str, list[float]] = {}
        for number, part in enumerate(parts):
            for one in repeat.trace.summaries.get(steady_place(window.workload, number), ()):
                sampled.setdefault(one.device, []).append(one.energy_j or math.nan)
            for one in part.energy:
                if (one.component, one.status) == ("gpu", "measured") and not one.whole_module:
                    counted.setdefault(str(one.device), []).append(one.energy_j)
        off = {}
        for device in counted.keys() & sampled.keys():
            ratio = math.fsum(sampled[device]) / max(math.fsum(counted[device]), TINY_J)
            tick_s = (report.counter_tick_s.get(device) if report else None) or GPU_TICK_S
            edges = len(parts) * (tick_s + period_s) / math.fsum(p.duration_s for p in parts)
            off[device] = (ratio, abs(ratio - 1) - edges)
        beyond = max((far for _, far in off.values()), default=0.0)
        if beyond > SENSORS_DIFFER:
            evidence = {"integral_over_counter": {d: ratio for d, (ratio, _) in off.items()}}
            severe = beyond > SENSORS_CONTRADICT
            yield window.workload, Finding(evidence, "invalid" if severe else None)


@check(
    "A15",
    "files",
    "note",
    "short steady state",
    "Ask for more requests or a longer window: 30 s keep the error of a GPU's counter below 0.4 %.",
)
def short_steady_state(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find a steady state of below 30 s, all passes together."""
    for window in repeat.windows:
        parts = window.steady_state.intervals if window.steady_state else ()
        duration_s = math.fsum(part.duration_s for part in parts)
        if parts and duration_s < RECOMMENDED_WINDOW_S:
            evidence = {"duration_s": duration_s, "recommended_s": RECOMMENDED_WINDOW_S}
            yield window.workload, Finding(evidence)


@check(
    "A08",
    "files",
    "warning",
    "stopped without an end token",
    "See which stop condition ended these answers: the ids do not hold one of the model's ends.",
)
def stop_without_end(repeat: Repeat) -> Iterator[tuple[str | None, Finding]]:
    """Find answers of the first pass that ended by ``stop``, of which no id is an end token."""
    for window in repeat.windows:
        ends = set(integers(window.effective, "eos_token_ids"))
        if not ends or _workload(repeat, window).engine.get("stop"):
            continue
        reasons: dict[str, str] = {}
        for name, reason in zip(
            window.requests.request_id, window.requests.finish_reason, strict=True
        ):
            reasons.setdefault(name, reason)
        found = [
            name
            for name, ids in window.output_token_ids.items()
            if reasons.get(name) == "stop" and ends.isdisjoint(ids)
        ]
        if found:
            yield window.workload, Finding({"count": len(found), "requests": found[:5]})


def _workload(repeat: Repeat, window: Window) -> Workload:
    return next(w for w in repeat.measurement.spec.workloads if w.id == window.workload)


def _passes(window: Window, workload: Workload) -> dict | None:
    """Say what is wrong with the passes of a window, or return None."""
    interval, table, ends = window.interval, window.requests, window.pass_ends_s
    if window.passes < 1 or not interval.duration_s > 0:
        return {"passes": window.passes, "duration_s": interval.duration_s}
    if ends and len(ends) != window.passes:
        return {"passes": window.passes, "pass_ends": len(ends)}
    moments = (interval.start_s, *ends)
    if any(not a < b for a, b in pairwise(moments)):
        return {"pass_ends_s": list(ends), "reason": "they do not ascend within the window"}
    last_s = max((t for t in table.last_token_s if t is not None), default=None)
    known_s = ends[-1] if ends else last_s
    if known_s is None:
        return None
    mean_s = interval.duration_s / window.passes
    allowed_s = PASS_TOLERANCE_S + (0 if ends else PASS_TOLERANCE * mean_s)
    if abs(interval.end_s - known_s) > allowed_s:
        return {"window_end_s": interval.end_s, "last_pass_end_s": known_s, "mean_pass_s": mean_s}
    rows = workload.requests
    if len(table.request_id) != window.passes * rows:
        return {"passes": window.passes, "requests": rows, "rows": len(table.request_id)}
    names = [table.request_id[n * rows : (n + 1) * rows] for n in range(window.passes)]
    if any(set(one) != set(names[0]) or len(set(one)) != rows for one in names):
        return {"reason": "not each request once a pass"}
    for number, (begin_s, end_s) in enumerate(pairwise(moments)):
        times = [
            t for t in table.last_token_s[number * rows : (number + 1) * rows] if t is not None
        ]
        if times and not (
            begin_s - TIME_TOLERANCE_S <= min(times) and max(times) <= end_s + TIME_TOLERANCE_S
        ):
            return {"pass": number + 1, "last_tokens_s": [min(times), max(times)], "end_s": end_s}
    return None


def _scaled(table: RequestTable, greedy: bool) -> dict | None:
    """Say by how much later passes count otherwise than the first one, or return None."""
    counts: dict[str, list[int]] = {}
    for name, count in zip(table.request_id, table.output_tokens, strict=True):
        counts.setdefault(name, []).append(count)
    ratios = sorted(
        sum(later) / len(later) / first for first, *later in counts.values() if first and later
    )
    if len(ratios) < LEAST_REQUESTS:
        return None
    median = ratios[len(ratios) // 2]
    above, below = sum(r > 1 for r in ratios), sum(r < 1 for r in ratios)
    by_chance = 2.0 ** (1 - (above + below)) if min(above, below) == 0 else 1.0
    off = abs(median - 1) > OTHER_COUNT
    if off and (greedy or by_chance < CHANCE):
        return {"later_over_first": median, "longer": above, "shorter": below, "of": len(ratios)}
    return None


def _beyond(window: Window, steady: SteadyState) -> dict | None:
    """Say in what a steady state exceeds its window, or return None."""
    whole = window.interval
    parts = [(part.start_s, part.end_s) for part in steady.intervals]
    moments = [whole.start_s, *(moment for part in parts for moment in part), whole.end_s]
    if any(not a <= b for a, b in pairwise(moments)):
        return {"intervals_s": parts[:5], "window_s": [whole.start_s, whole.end_s]}
    tokens = sum(window.requests.output_tokens)
    if steady.output_tokens > tokens:
        return {"output_tokens": steady.output_tokens, "of_window": tokens}
    limits = {(p.component, p.device, p.method): p.energy_j for p in whole.energy}
    sums: dict[tuple, list[float]] = {}
    for interval in steady.intervals:
        for part in interval.energy:
            if part.energy_j is not None:
                name = (part.component, part.device, part.method)
                sums.setdefault(name, []).append(part.energy_j)
    for name, found in sums.items():
        total, limit = math.fsum(found), limits.get(name)
        if limit is not None and total > limit * (1 + ROUNDING):
            return {"component": name[0], "device": name[1], "energy_j": total, "of_window": limit}
    return None


def _tokens_between(window: Window, steady: SteadyState) -> float | None:
    """Return the tokens that came in the steady state if each request's came evenly, else None."""
    table = window.requests
    rows = list(zip(table.first_token_s, table.last_token_s, table.output_tokens, strict=True))
    if any(first is None or last is None for first, last, _ in rows):
        return None
    found = 0.0
    for part in steady.intervals:
        for first, last, count in rows:
            inside = min(last, part.end_s) - max(first, part.start_s)
            if inside > 0 and last > first:
                found += (count - 1) * inside / (last - first)
    return found
