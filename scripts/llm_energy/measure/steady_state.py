"""Cut out of a window with continuous batching the part in which the batch was full throughout."""

from __future__ import annotations

from collections.abc import Sized

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END
from llm_energy.meter.meter import MeteredInterval
from llm_energy.records import SteadyState, Workload


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
