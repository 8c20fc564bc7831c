"""How long requests took, from when they were due, and the quantiles of that."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

from llm_energy.records import Histogram, Window

PERCENTILES = (50, 90, 95, 99)
# For intervals where arrivals are drawn: ``tests/benchmarks/latency_coverage.py`` shows what holds.
DEPENDENT = 3  # requests that queue tell as much as one that stands alone
OUTERMOST = 95  # the last percentile that may have one
QUANTITIES = ("ttft", "service_ttft", "tpot", "itl", "e2e", "queueing")


def latencies_s(window: Window) -> dict[str, list[float]]:
    """Return, by quantity, the latencies of a window's requests in seconds.

    ``ttft`` is first token minus arrival, ``service_ttft`` first token minus begin of service,
    ``tpot`` the time from first to last token over the
    tokens after the first, ``e2e`` last token minus arrival, ``queueing`` begin of service minus
    arrival. Arrival is when a request was due, so what delays the engine is in the latency of each
    request that it delays. Of timed traffic, requests that were due between the window's edges
    count, however late they were served. A request without the times that a quantity needs does
    not enter it.
    """
    table, traffic = window.requests, window.traffic
    starts_s = table.service_start_s or (None,) * len(table.request_id)
    times_s = (table.arrival_s, starts_s, table.first_token_s, table.last_token_s)
    columns = (*times_s, table.output_tokens)
    if traffic is not None:
        counted = [traffic.begin_s <= due_s < traffic.end_s for due_s in table.arrival_s]
        columns = (tuple(itertools.compress(column, counted)) for column in columns)
    dues_s, starts_s, firsts_s, lasts_s, tokens = columns
    return {
        "ttft": _since(dues_s, firsts_s),
        "service_ttft": _since(starts_s, firsts_s),
        "tpot": [
            (last - first) / (n - 1)
            for first, last, n in zip(firsts_s, lasts_s, tokens, strict=True)
            if first is not None and last is not None and n > 1
        ],
        "e2e": _since(dues_s, lasts_s),
        "queueing": _since(dues_s, starts_s),
    }


def _since(begins_s: Sequence[float | None], ends_s: Sequence[float | None]) -> list[float]:
    """Return how long each request took from one point to another, where both are known."""
    pairs = zip(begins_s, ends_s, strict=True)
    return [end - begin for begin, end in pairs if begin is not None and end is not None]


def quantiles_s(window: Window, latencies: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the quantiles of each latency that is known, such as ``ttft_p50``.

    A quantile that so few values do not reach is left out: above the p-th must lie one of them, so
    that p50 takes 2, p90 10, p95 20 and p99 100 requests. Of ``itl``, the gaps between the
    tokens of a request, they are over tokens, and come from the window's histogram.
    """
    gaps = window.inter_token.bins if window.inter_token else ()
    counts = {name: len(values) for name, values in latencies.items()}
    counts["itl"] = sum(count for _, count in gaps)
    found = {}
    for name in QUANTITIES:
        if name == "itl":
            values = [histogram_quantile(window.inter_token, p / 100) for p in PERCENTILES]
        else:
            ordered = sorted(latencies[name])
            values = [quantile(ordered, percent / 100) for percent in PERCENTILES]
        for percent, value in zip(PERCENTILES, values, strict=True):
            if value is not None and reached(percent, counts[name]):
                found[f"{name}_p{percent}"] = value
    return found


def reached(percent: int, count: int) -> bool:
    """Return whether so many values have one above their percentile, on average.

    >>> reached(99, 99), reached(99, 100), reached(50, 2)
    (False, True, True)
    """
    return count * (100 - percent) >= 100


def percent_of(name: str) -> int:
    """Return the percentile that the name of a quantile says.

    >>> percent_of("service_ttft_p95")
    95
    """
    return int(name.rpartition("_p")[2])


@functools.cache
def least_requests(percent: int) -> float:
    """Return how many requests of drawn traffic a repeat needs for an interval of its percentile.

    The share of requests beyond an outer quantile is skewed, so that its mean over few repeats is
    mostly too small. W. G. Cochran (Sampling Techniques, 3rd ed. 1977, section 2.15) asks for
    25 G² independent values, where G is the skewness of one of them. Requests that queue are much
    like those before them, so this is ``DEPENDENT`` times that. Beyond p95 no number is enough: as
    soon as repeats differ, their mean is not what all requests wait.

    >>> [least_requests(percent) for percent in PERCENTILES]
    [0, 534, 1279, inf]
    """
    if percent > OUTERMOST:
        return math.inf
    beyond = 1 - percent / 100
    squared_skewness = (1 - 2 * beyond) ** 2 / (beyond * (1 - beyond))
    return math.ceil(DEPENDENT * 25 * squared_skewness)


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return statistics.fmean(values) if values else None


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return a quantile with linear interpolation between ascending values, None of nothing.

    Type 7 of Hyndman and Fan, Sample quantiles in statistical packages, The American Statistician
    50 (1996), which numpy takes too.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.5
    """
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def histogram_quantile(histogram: Histogram | None, share: float) -> float | None:
    """Return the geometric middle of the bin in which a quantile lies, None of nothing.

    >>> histogram_quantile(Histogram(2.0, ((0, 9), (3, 1))), 0.5)
    1.4142135623730951
    """
    if histogram is None or not histogram.bins:
        return None
    reached = itertools.accumulate(count for _, count in histogram.bins)
    total = sum(count for _, count in histogram.bins)
    pairs = zip(histogram.bins, reached, strict=True)
    k = next(k for (k, _), count in pairs if count >= share * total)
    return histogram.ratio ** (k + 0.5)
