"""Time two calls in pairs, so that what slows the host down meets both alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

LEAST = 0.98  # of the bare loop's tokens/s, which a backend has to reach


class Ratio(NamedTuple):
    """The median of paired ratios with its quartiles, and how many pairs there were."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return (
            f"{self.median:.4f} (quartiles {self.low:.4f} to {self.high:.4f}, {self.pairs} pairs)"
        )


def paired_times(
    first: Callable[[], object], second: Callable[[], object], pairs: int
) -> list[tuple[float, float]]:
    """Return the seconds that each of the two took, pair by pair, in random order within a pair.

    Both are called once before, and nothing is collected in between.
    """
    first(), second()
    order = random.Random(1)
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(pairs):
            taken = {}
            for call in order.sample((first, second), 2):
                begin = time.perf_counter()
                call()
                taken[call] = time.perf_counter() - begin
            times.append((taken[first], taken[second]))
    finally:
        gc.enable()
    return times


def speed_ratio(times: Sequence[tuple[float, float]]) -> Ratio:
    """Return the speed of the first of each pair over that of the second; 1 is equally fast."""
    low, median, high = statistics.quantiles((second / first for first, second in times), n=4)
    return Ratio(median, low, high, len(times))
