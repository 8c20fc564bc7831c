"""The times of one answered request, in seconds on the host's monotonic clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Times:
    """When the engine began with a request, and had its first and its last token; None if unknown.

    ``tokens_s`` has one time a token where these were asked for.
    """

    of_the_engine: bool
    begin_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    tokens_s: tuple[float, ...] | None = None

    def with_tokens(self, received_s: Sequence[float]) -> Times:
        """Add a time for each token, by when it was received.

        The engine's own times stand at both ends, and none lies outside of them. Where there are
        none, the received ones stand for them.
        """
        if not received_s:
            return self
        if not self.of_the_engine:
            first_s, last_s = received_s[0], received_s[-1]
            return replace(self, first_s=first_s, last_s=last_s, tokens_s=tuple(received_s))
        inner = (min(max(time_s, self.first_s), self.last_s) for time_s in received_s[1:-1])
        tokens_s = (self.first_s, *inner, self.last_s)[: len(received_s)]
        return replace(self, last_s=tokens_s[-1], tokens_s=tokens_s)


def engine_times(output: Any, arrival_s: float, end_s: float) -> Times:
    """Read the engine's times, and leave out those that cannot be of this clock.

    They must lie in order between when the request arrived and when its answer was here.
    """
    metrics = output.outputs[0].request_perf_metrics
    if metrics is None:
        return Times(of_the_engine=False)
    times = metrics.timing_metrics
    found_s = [
        times.first_scheduled_time.total_seconds(),
        times.first_token_time.total_seconds(),
        times.last_token_time.total_seconds(),
    ]
    in_order_s = [arrival_s, *found_s, end_s]
    if in_order_s != sorted(in_order_s):
        return Times(of_the_engine=False)
    return Times(True, *found_s)
