"""Lay completions out as columns, and count what lies between the edges of a window."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from llm_energy.inputs.arrivals import gap_variation
from llm_energy.measure.arrival_queue import ArrivalQueue
from llm_energy.records import (
    Arrivals,
    Completion,
    Histogram,
    Interval,
    RequestTable,
    TrafficReport,
)

RATIO = 1.01  # of the bins of inter-token latencies: a quantile is within half a percent
SHORTEST_S = 1e-6  # tokens that an engine gives at once have no gap


def table(rows: Sequence[Completion], window: Interval | None = None) -> RequestTable:
    """Lay completions out as columns; with a ``window`` also count the tokens inside it."""
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
        service_start_s=tuple(c.service_start_s for c in rows),
        output_tokens_inside=tuple(_inside(c, window) for c in rows) if window else (),
    )


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


def inter_token(rows: Sequence[Completion], window: Interval | None = None) -> Histogram | None:
    """Count the gaps between each request's tokens; with a ``window`` those that end inside it.

    None where no completion has the times of its tokens.
    """
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
