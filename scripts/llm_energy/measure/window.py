"""Lay out what a window served as columns, and cut out the part in which its batch was full."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END
from llm_energy.inputs.traffic.arrivals import gap_variation
from llm_energy.measure.arrival_queue import ArrivalQueue
from llm_energy.meter.meter import MeteredInterval
from llm_energy.records import (
    Arrivals,
    Completion,
    Histogram,
    Interval,
    RequestTable,
    SteadyState,
    TrafficReport,
    Workload,
)
from llm_energy.records.steps import Run, StepTable

RATIO = 1.01  # of the bins of inter-token latencies: a quantile is within half a percent
SHORTEST_S = 1e-6  # tokens that an engine gives at once have no gap


def table(rows: Sequence[Completion], window: Interval | None = None) -> RequestTable:
    """Lay completions out as columns; with a ``window`` also count the tokens inside it."""
    return RequestTable(
        request_id=tuple(c.request_id for c in rows),
        prompt_tokens=tuple(c.prompt_tokens for c in rows),
        padding_tokens=tuple(c.padding_tokens for c in rows),
        cached_prompt_tokens=tuple(c.cached_prompt_tokens for c in rows),
        output_tokens=tuple(c.output_tokens for c in rows),
        finish_reason=tuple(c.finish_reason for c in rows),
        arrival_s=tuple(c.arrival_s for c in rows),
        first_token_s=tuple(c.first_token_s for c in rows),
        last_token_s=tuple(c.last_token_s for c in rows),
        service_start_s=tuple(c.service_start_s for c in rows),
        output_tokens_inside=tuple(_inside(c, window) for c in rows) if window else (),
    )


def ids(rows: Iterable[Completion]) -> dict[str, tuple[int, ...]]:
    """Return the output ids by request, of equal ones the last; none of those without ids."""
    return {c.request_id: c.output_token_ids for c in rows if c.counted_tokens is None}


def touching(
    rows: Sequence[Completion], window: Interval, edges_s: tuple[float, float]
) -> list[Completion]:
    """Return requests that were due between the edges of the traffic, or served in the window."""
    return [
        c
        for c in rows
        if edges_s[0] <= c.arrival_s < edges_s[1]
        or (_started_s(c) < window.end_s and _ended_s(c) > window.start_s)
    ]


def steps(
    taken: StepTable | str, window: Interval, rows: Mapping[int, int] | None = None
) -> StepTable | str:
    """Cut out the steps that reach into a window; where there are none, it stays with the reason.

    ``rows`` has, by a request's number, the place of its row in the window's table; without it the
    number is that place.
    """
    if isinstance(taken, str):
        return taken
    first = bisect_right(taken.end_s, window.start_s)
    last = bisect_left(taken.start_s, window.end_s)
    runs = []
    for run in taken.runs:
        begin, end = max(run.first_step, first), min(run.first_step + run.steps, last)
        if begin < end:
            skipped = begin - run.first_step
            own = run.prefill_tokens + run.decode_tokens
            runs.append(
                run._replace(
                    request=run.request if rows is None else rows.get(run.request),
                    first_step=begin - first,
                    steps=end - begin,
                    context_tokens=run.context_tokens + skipped * own,
                    context_padding=run.context_padding + skipped * run.padding_tokens,
                )
            )
    return StepTable(
        taken.start_s[first:last],
        taken.end_s[first:last],
        *(tuple(getattr(run, name) for run in runs) for name in Run._fields),
    )


def inter_token(rows: Sequence[Completion], window: Interval | None = None) -> Histogram | None:
    """Count the gaps between each request's tokens; with a ``window`` those that end inside it.

    None where no completion has the times of its tokens. Where a server gave no ids, tokens were
    laid over its events, and no gap of theirs was seen.
    """
    rows = [c for c in rows if c.counted_tokens is None]
    if all(c.token_times_s is None for c in rows):
        return None
    low, high = (window.start_s, window.end_s) if window else (-math.inf, math.inf)
    scale = 1 / math.log(RATIO)
    counts = Counter(
        math.floor(math.log(max(b - a, SHORTEST_S)) * scale)
        for c in rows
        for a, b in itertools.pairwise(c.token_times_s or ())
        if low < b <= high
    )
    return Histogram(RATIO, tuple(sorted(counts.items())))


def report(
    arrivals: Arrivals, queue: ArrivalQueue, rows: Sequence[Completion], window: Interval
) -> TrafficReport:
    """Say what came of timed arrivals between the edges of the window."""
    begin_s, end_s = queue.edges_s
    due_s = sorted(c.arrival_s for c in rows if begin_s <= c.arrival_s < end_s)

    def between(times_s: Iterator[float]) -> int:
        return sum(window.start_s < time_s <= window.end_s for time_s in times_s)

    def at_edges(spans_s: Sequence[tuple[float, float]]) -> tuple[int, int]:
        edges_s = (window.start_s, window.end_s)
        first, last = (sum(a <= edge_s < b for a, b in spans_s) for edge_s in edges_s)
        return first, last

    return TrafficReport(
        mode=arrivals.mode,
        begin_s=begin_s,
        end_s=end_s,
        requested_rate_per_s=arrivals.rate_per_s,
        arrived=len(due_s),
        started=between(map(_started_s, rows)),
        ended=between(map(_ended_s, rows)),
        waiting=at_edges([(c.arrival_s, _started_s(c)) for c in rows]),
        in_flight=at_edges([(_started_s(c), _ended_s(c)) for c in rows]),
        gap_cv=gap_variation(due_s),
    )


def _inside(completion: Completion, window: Interval) -> int:
    """Count the tokens that came inside; a backend that serves timed traffic gives their times."""
    times_s = completion.token_times_s
    if times_s is None:
        raise ValueError(f"request {completion.request_id}: timed traffic needs its tokens' times")
    return sum(window.start_s < time_s <= window.end_s for time_s in times_s)


def _started_s(completion: Completion) -> float:
    """Return when service began, at the latest with the first token; never if there was none."""
    first_s = completion.service_start_s or completion.first_token_s
    return math.inf if first_s is None else first_s


def _ended_s(completion: Completion) -> float:
    return math.inf if completion.last_token_s is None else completion.last_token_s


class Marks:
    """Take the marks that a backend makes in one window; an instance is its ``mark``.

    ``passes`` is what the window collects, so its length says which pass is on.
    """

    def __init__(self, interval: MeteredInterval, passes: Sized) -> None:
        self._interval = interval
        self._passes = passes
        self._output_tokens: dict[str, int] = {}

    def __call__(self, label: str, output_tokens: int) -> None:
        """Read clock and counters, and note the pass's output tokens so far."""
        name = _name(label, len(self._passes))
        self._interval.mark(name)
        self._output_tokens[name] = output_tokens

    def steady_state(self, workload: Workload) -> SteadyState:
        """Return the steady state of every pass, once the window has ended.

        From ``batch_size`` requests with a first token until all but ``batch_size + 1`` have ended:
        the rule of Chung et al., The ML.ENERGY Benchmark, arXiv:2505.06371.
        """
        intervals, output_tokens = [], 0
        for index in range(len(self._passes)):
            begin, end = _name(STEADY_BEGIN, index), _name(STEADY_END, index)
            emitted = self._output_tokens.get(end, 0) - self._output_tokens.get(begin, 0)
            # With few requests, the last of them may end before the batch has filled up.
            if begin in self._output_tokens and emitted > 0:
                intervals.append(self._interval.between(begin, end, "steady_state"))
                output_tokens += emitted
        return SteadyState(
            tuple(intervals), output_tokens, None if intervals else _why_none(workload)
        )


def _name(label: str, index: int) -> str:
    return f"{label} {index}"


def _why_none(workload: Workload) -> str:
    batch_size, requests = workload.batch_size, workload.requests
    sharding = workload.parameters.get("sharding") or {}
    if sharding.get("strategy") == "data_parallel":
        return "each copy of the model fills its own batch, at its own time"
    if requests < batch_size + 2:
        return (
            f"a steady state at batch size {batch_size} needs {batch_size + 2} requests or more, "
            f"this workload has {requests}"
        )
    return (
        f"all but {batch_size + 1} of {requests} requests had ended before {batch_size} at a time "
        "had their first token"
    )
