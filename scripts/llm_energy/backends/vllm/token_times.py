"""Note when vLLM gave each token, for the price of one look at each request in a step."""

from __future__ import annotations

from typing import Any


class TokenTimes:
    """The times of the tokens of all requests in flight.

    vLLM keeps the time of a request's last token only, and would make an output object for each
    request and step to tell of the others. So its own state of each request is looked at after
    each step: how many tokens it has, and when the engine's core gave the last one.
    """

    def __init__(self, engine: Any) -> None:
        self._states = engine.output_processor.request_states
        self._times_s: dict[str, list[float]] = {}  # by the engine's own id, and by ours

    def add(self, internal_id: str, request_id: str) -> None:
        """Begin with a request; the engine shows it under ``internal_id`` while it is in flight."""
        self._times_s[internal_id] = self._times_s[request_id] = []

    def note(self) -> None:
        """Look at the requests in flight, once after each step."""
        times_s = self._times_s
        for internal_id, state in self._states.items():
            stats, known_s = state.stats, times_s[internal_id]
            if stats.num_generation_tokens > len(known_s):
                added = stats.num_generation_tokens - len(known_s)
                known_s += [stats.last_token_ts] * added

    def of(self, output: Any) -> tuple[float, ...]:
        """Return the times of a finished request, whose last tokens no look has seen."""
        known_s = self._times_s[output.request_id]
        missing = len(output.outputs[0].token_ids) - len(known_s)
        return (*known_s, *[output.metrics.last_token_ts] * missing)
