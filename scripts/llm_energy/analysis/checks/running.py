"""Checks of how the engine ran inside the window: steadily, full, and with nothing else to do."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from llm_energy.analysis.checks.catalogue import Finding, check
from llm_energy.analysis.energy.latency import latencies_s, quantile
from llm_energy.analysis.evidence.windows import (
    WindowEvidence,
    finite,
    is_continuous,
    mapping,
    number,
)
from llm_energy.inputs.traffic.rates import is_few, is_other_rate

SLOW_PASS = 3.0  # times the median of the others
# What a slow pass must have cost of the window, so that no jitter of short passes counts.
NOTABLE_SHARE = 0.01
MANY_PREEMPTED = 0.01
FULL_BATCH = 0.8
PREFILL_SHARE = 0.1
UNEQUAL_POWER = 0.3
DRIFT = 0.02
KEPT_RATE = 0.98
MOST_REQUESTS = 0.9
EDGE_SHARE, CHANCE = 0.02, 3.0
# Of five passes against five, a difference of six standard errors comes by chance in one window of
# 3,000 (Student's t with eight degrees of freedom).
DRIFT_PASSES, DRIFT_ERRORS = 5, 6.0


@check(
    "E06",
    "window",
    "invalid",
    "prompts taken from a cache",
    "Switch prefix caching off, or declare it in the engine's arguments and say so.",
)
def cached_prompts(case: WindowEvidence) -> Finding | None:
    """Find prompt tokens that the engine did not compute; where that is asked for it is a note."""
    cached = sum(case.window.requests.cached_prompt_tokens)
    cached = max(cached, number(case.window.events, "cached_prompt_tokens") or 0)
    if not cached:
        return None
    declared = case.measurement.spec.engine.get("enable_prefix_caching") is True
    evidence = {"cached": cached, "prompt_tokens": sum(case.window.requests.prompt_tokens)}
    return Finding(evidence, "note" if declared else "invalid")


@check(
    "E07",
    "window",
    "invalid",
    "compilation inside the window",
    "Warm up with the same shapes (protocol.warmup_min_passes), so that all is compiled before.",
)
def compiled_inside(case: WindowEvidence) -> Finding | None:
    """Find graphs that were captured inside the window, or a first pass that took far too long.

    The first pass is held against the others, or, where it is the only one, against the last
    warm-up passes.
    """
    events = case.window.events
    counted = {
        name: n for name in ("compilations", "graph_captures") if (n := number(events, name))
    }
    if counted:
        return Finding(counted)
    durations_s = _pass_durations_s(case)
    if not durations_s:
        return None
    first_s, *others_s = durations_s
    others_s = others_s or list(case.window.warmup_durations_s[-3:])
    if not others_s or not finite(others_s):
        return None
    usual_s = statistics.median(others_s)
    if first_s <= SLOW_PASS * usual_s:
        return None
    if first_s - usual_s < NOTABLE_SHARE * case.window.interval.duration_s:
        return None
    return Finding({"first_pass_s": first_s, "median_of_others_s": usual_s})


@check(
    "E08",
    "window",
    "warning",
    "requests preempted",
    "The KV cache was too small: lower the batch size, or give the cache more memory.",
)
def preempted(case: WindowEvidence) -> Finding | None:
    """Find requests whose work was thrown away and done again; over 1 % of them is invalid."""
    count = number(case.window.events, "preempted_requests")
    if not count:
        return None
    of = len(case.window.requests.request_id)
    severity = "invalid" if count > MANY_PREEMPTED * of else "warning"
    return Finding({"preempted": count, "of": of}, severity)


@check(
    "E09",
    "window",
    "warning",
    "batch not full",
    "Ask more requests, or look for what keeps the engine from taking them (its KV cache).",
)
def batch_not_full(case: WindowEvidence) -> Finding | None:
    """Find continuous batching that ran, on average, under 80 % of the batch size.

    What is missing because there are few requests, or some with long answers, is a note: no engine
    could fill the batch then.
    """
    if not is_continuous(case) or case.window.traffic is not None:
        return None
    running, size = number(case.window.events, "mean_running_requests"), case.workload.batch_size
    if running is None:
        running = _mean_running(case)
    if running is None or running >= FULL_BATCH * size:
        return None
    least = _least_running(case)
    evidence = {"mean_running": running, "expected_at_least": least, "batch_size": size}
    return Finding(evidence, "note" if running >= FULL_BATCH * least else "warning")


@check(
    "E24",
    "window",
    "invalid",
    "window opened before the model was loaded",
    "The load has its own interval; a window begins after it has ended.",
)
def load_inside(case: WindowEvidence) -> Finding | None:
    """Find a load that reaches into the window."""
    load, interval = case.measurement.load, case.window.interval
    if load is None or not load.end_s > interval.start_s:
        return None
    return Finding({"load_end_s": load.end_s, "window_start_s": interval.start_s})


@check(
    "E27",
    "window",
    "warning",
    "GPUs drew unequal power",
    "Look at how the model is spread: ranks of tensor parallelism work, or wait, together.",
)
def unequal_gpus(case: WindowEvidence) -> Finding | None:
    """Find GPUs of one model whose powers differ by more than 30 % of their mean.

    Where whole layers lie on each GPU one works at a time, and this says nothing.
    """
    interval = case.window.interval
    sharding = mapping(case.workload.parameters, "sharding")
    parts = [e for e in interval.energy if e.component == "gpu" and e.energy_j is not None]
    if len(parts) < 2 or sharding.get("strategy") == "device_map" or not interval.duration_s > 0:
        return None
    powers_w = {str(part.device): part.energy_j / interval.duration_s for part in parts}
    if not finite(list(powers_w.values())):
        return None
    spread_w, mean_w = max(powers_w.values()) - min(powers_w.values()), math.fsum(powers_w.values())
    mean_w /= len(powers_w)
    return Finding({"power_w": powers_w}) if spread_w > UNEQUAL_POWER * mean_w else None


@check(
    "E28",
    "window",
    "warning",
    "requests served at a lower rate than they came",
    "The engine is overloaded: its latencies grow with the horizon. Lower the rate, or say so.",
)
def falls_behind(case: WindowEvidence) -> Finding | None:
    """Find open traffic of which under 98 % of the requests that came were taken into service.

    As many as make a batch may be waiting for it. In a closed loop nobody asks before an answer.
    """
    report = case.window.traffic
    if report is None or report.mode == "closed_loop" or not report.arrived:
        return None
    ratio, behind = report.started / report.arrived, report.arrived - report.started
    if ratio >= KEPT_RATE or behind <= case.workload.batch_size:
        return None
    return Finding(
        {
            "arrival_rate_per_s": report.arrival_rate_per_s,
            "achieved_rate_per_s": report.achieved_rate_per_s,
            "ratio": ratio,
            "waiting": list(report.waiting),
        }
    )


@check(
    "E33",
    "window",
    "warning",
    "a trace with too few requests, or at another rate than asked for",
    "Lengthen horizon_s, let the trace begin elsewhere (start_s), or leave out its rate_per_s.",
)
def other_traffic(case: WindowEvidence) -> Finding | None:
    """Find a window of a trace with fewer than ten requests, or at another rate than asked for.

    That is a rate that differs by over a fifth, and by two standard deviations of a Poisson count.
    Other arrivals are drawn as they were asked for.
    """
    report = case.window.traffic
    if report is None or report.mode != "trace":
        return None
    duration_s, asked_per_s = report.end_s - report.begin_s, report.requested_rate_per_s
    if not is_few(report.arrived) and not is_other_rate(report.arrived, asked_per_s, duration_s):
        return None
    return Finding(
        {
            "arrived": report.arrived,
            "arrival_rate_per_s": report.arrival_rate_per_s,
            "requested_rate_per_s": report.requested_rate_per_s,
        }
    )


@check(
    "E34",
    "window",
    "warning",
    "a ramp shorter than the requests",
    "Raise ramp_s above the time that most requests take, or shorten the answers.",
)
def short_ramp(case: WindowEvidence) -> Finding | None:
    """Find timed traffic whose ramp is shorter than nine in ten requests take from end to end.

    The window then begins with fewer requests under way than it has later: what they cost is in its
    joules, and part of their tokens come after it.
    """
    asked = case.workload.parameters.get("traffic_simulation")
    if case.window.traffic is None or not asked:
        return None
    ramp_s, latency = number(asked, "ramp_s"), sorted(latencies_s(case.window)["e2e"])
    e2e_s = quantile(latency, MOST_REQUESTS)
    if ramp_s is None or e2e_s is None or not e2e_s > ramp_s:
        return None
    return Finding({"ramp_s": ramp_s, "e2e_p90_s": e2e_s})


@check(
    "E35",
    "window",
    "warning",
    "more requests under way at one edge of the window than at the other",
    "Lengthen the ramp until the load is steady, and the horizon until the edges count little.",
)
def unbalanced_edges(case: WindowEvidence) -> Finding | None:
    """Find a window whose edges differ by over 2 % of its tokens: so much work counts on one side.

    The requests under way at the end, minus those at the begin, times the mean tokens of a request.
    Within three standard deviations of Poisson counts that is chance, which the scatter of repeats
    holds, and a note.
    """
    report, table = case.window.traffic, case.window.requests
    inside = sum(table.output_tokens_inside)
    if report is None or not inside:
        return None
    begin, end = report.in_flight
    size = abs(end - begin) * statistics.fmean(table.output_tokens) / inside
    if size < EDGE_SHARE:
        return None
    chance = abs(end - begin) <= CHANCE * math.sqrt(begin + end)
    found = {"in_flight": [begin, end], "share_of_tokens": size}
    return Finding(found, "note" if chance else "warning")


@check(
    "E29",
    "window",
    "warning",
    "warm-up not converged",
    "Raise protocol.warmup_min_passes or warmup_max_passes, or find what slows single passes down.",
)
def not_warm(case: WindowEvidence) -> Finding | None:
    """Find a window that began cold, or though its passes still differed, or whose passes drifted.

    Cold is one without a warm-up pass. The drift is the difference between the first and the last
    third of the passes: over 2 %, and more than their scatter explains.
    """
    window = case.window
    if not window.warmup_durations_s:
        return Finding({"warmup_passes": 0}, bias_bound_percent=_bias_of_passes_percent(case))
    if window.warmup_converged is False:
        evidence = {"warmup_durations_s": [str(d) for d in window.warmup_durations_s]}
        return Finding(evidence, bias_bound_percent=_bias_of_passes_percent(case))
    durations_s = _pass_durations_s(case)
    third = len(durations_s) // 3
    if third < DRIFT_PASSES:
        return None
    first, last = durations_s[:third], durations_s[-third:]
    first_s, last_s = statistics.fmean(first), statistics.fmean(last)
    error_s = math.sqrt((statistics.variance(first) + statistics.variance(last)) / third)
    drift_s = abs(last_s - first_s)
    if drift_s <= DRIFT * first_s or drift_s <= DRIFT_ERRORS * error_s:
        return None
    evidence = {"first_third_s": first_s, "last_third_s": last_s, "passes": len(durations_s)}
    return Finding(evidence, bias_bound_percent=_bias_of_passes_percent(case))


@check(
    "E30",
    "window",
    "invalid",
    "GPU still in use by an earlier process",
    "End what is left of an earlier run; `nvidia-smi` lists the processes on the GPU.",
)
def leftovers(case: WindowEvidence) -> Finding | None:
    """Find a GPU whose memory was not free when the repeat began."""
    preflight = case.measurement.preflight
    for condition in preflight.conditions if preflight else ():
        if condition.name == "board_memory" and not condition.ok:
            return Finding({"found": condition.found, "allowed": condition.allowed})
    return None


def _pass_durations_s(case: WindowEvidence) -> list[float]:
    """Return how long each pass of the window took, empty where that is not known."""
    ends_s = case.window.pass_ends_s
    edges_s = (case.window.interval.start_s, *ends_s)
    if not ends_s or not finite(edges_s):
        return []
    return [b - a for a, b in pairwise(edges_s)]


def _bias_of_passes_percent(case: WindowEvidence) -> float | None:
    """Return by how much a window may differ from one of passes like its last third, in percent.

    That is the difference of their mean durations and twice its standard error, joules following
    time. None with fewer than three passes.
    """
    durations_s = _pass_durations_s(case)
    third = len(durations_s) // 3
    if not third:
        return None
    last_s = statistics.fmean(durations_s[-third:])
    error_s = statistics.stdev(durations_s) * math.sqrt(1 / third - 1 / len(durations_s))
    differ_s = abs(statistics.fmean(durations_s) - last_s)
    return 100 * (differ_s + 2 * error_s) / last_s if last_s > 0 else None


def _mean_running(case: WindowEvidence) -> float | None:
    """Estimate from the requests' times how many ran at once, while any did.

    A request counts from its first token, so this is too low where prefill takes long: None there,
    and where times are missing.
    """
    table, size = case.window.requests, case.workload.requests
    rows = list(zip(table.arrival_s, table.first_token_s, table.last_token_s, strict=True))
    if not rows or any(first is None or last is None for _, first, last in rows):
        return None
    busy_s, span_s, prefill_s = 0.0, 0.0, 0.0
    for begin in range(0, len(rows), size):
        served: Sequence[tuple[float, float, float]] = rows[begin : begin + size]
        busy_s += math.fsum(last - first for _, first, last in served)
        span_s += max(last for _, _, last in served) - min(first for _, first, _ in served)
        prefill_s += len(served) * min(first - arrival for arrival, first, _ in served)
    if not finite((busy_s, span_s, prefill_s)) or span_s <= 0:
        return None
    return busy_s / span_s if prefill_s <= PREFILL_SHARE * span_s else None


def _least_running(case: WindowEvidence) -> float:
    """Return the mean of requests running if but one joined at each step in which a place was free.

    Time is counted in steps of the first pass, each of which gives every request one token; engines
    that let several join at once do better.
    """
    lengths = case.window.requests.output_tokens[: case.workload.requests]
    free_at, start = [0] * max(1, case.workload.batch_size), -1
    for length in lengths:
        start = max(start + 1, free_at[0])
        heapq.heapreplace(free_at, start + length)
    return sum(lengths) / max(*free_at, 1)
