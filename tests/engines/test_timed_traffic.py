"""What every backend must do that serves requests as they arrive."""

from __future__ import annotations

import time

import pytest
from support.subject import PROMPT

from llm_energy.measure.arrival_queue import BEGIN, END, ArrivalQueue
from llm_energy.records import Arrivals

pytestmark = pytest.mark.engine

PROMPTS = [PROMPT[:3], PROMPT, PROMPT[:1], PROMPT[4:9]]
# A pause, two at once, a few more; there are more requests than prompts, so these go round.
OPEN = Arrivals("poisson", 0.05, 0.4, (0.05, 0.05, 0.2, 0.21, 0.22, 0.23))
TRAFFIC = {"mode": "poisson", "batch_timeout_s": 0.02}
STRATEGIES = pytest.mark.parametrize("strategy", ["static", "dynamic", "continuous"])


class Traffic:
    """One stretch of traffic on the real clock, and what was seen of it."""

    def __init__(self, arrivals: Arrivals, prompts: int) -> None:
        self.marks: list[tuple[str, float]] = []
        self.slept_s = 0.0
        self.queue = ArrivalQueue(arrivals, prompts, time.monotonic, self.sleep, self.mark)

    def sleep(self, duration_s: float) -> None:
        self.slept_s += duration_s
        time.sleep(duration_s)

    def mark(self, label: str) -> None:
        self.marks.append((label, time.monotonic()))


def serve(backend, arrivals: Arrivals, **asked):
    backend.needs("timed_traffic")
    if asked.get("strategy") == "continuous":  # elsewhere the engine's own, whatever is asked
        backend.needs("continuous_strategy")
    traffic = asked.pop("traffic", TRAFFIC)
    effective = backend.prepare(PROMPTS, traffic=traffic, max_output_tokens=6, **asked)
    seen = Traffic(arrivals, len(PROMPTS))
    return backend.engine.serve(seen.queue), seen, effective


@STRATEGIES
def test_requests_are_answered_as_if_they_had_all_been_there(backend, strategy):
    completions, seen, effective = serve(backend, OPEN, batch_size=2, strategy=strategy)
    expected = backend.ids(PROMPTS, max_output_tokens=6, batch_size=2)

    assert [c.request_id for c in completions] == ["r0", "r1", "r2", "r3", "r0", "r1"]
    assert [c.output_token_ids for c in completions] == [expected[k % 4] for k in range(6)]
    assert seen.slept_s > 0  # in the pauses nothing spins
    assert [label for label, _ in seen.marks] == [BEGIN, END]
    assert effective["batching"]["max_requests_in_flight"] >= 2


@STRATEGIES
def test_times_count_from_when_a_request_was_due(backend, strategy):
    completions, seen, _ = serve(backend, OPEN, batch_size=2, strategy=strategy)

    for completion, due_s in zip(completions, OPEN.times_s, strict=True):
        times_s = completion.token_times_s
        assert completion.arrival_s == seen.queue.begin_s + due_s
        assert completion.arrival_s <= completion.service_start_s <= times_s[0]
        assert list(times_s) == sorted(times_s)
        assert len(times_s) == 6
        assert (times_s[0], times_s[-1]) == (completion.first_token_s, completion.last_token_s)


def test_no_more_run_at_once_than_the_batch_size(backend):
    at_once = Arrivals("constant", 0.0, 0.01, (0.0,) * 5)
    completions, _, _ = serve(backend, at_once, batch_size=2)

    spans_s = [(c.service_start_s, c.last_token_s) for c in completions]
    for start_s, _ in spans_s:
        assert sum(begin_s <= start_s < end_s for begin_s, end_s in spans_s) <= 2


def test_a_static_batch_waits_to_be_full_or_for_the_patience_of_its_oldest(backend):
    backend.needs("static_batches")
    arrivals = Arrivals("constant", 0.0, 0.5, (0.0, 0.05, 0.1))
    patient = {"mode": "constant", "batch_timeout_s": 0.3}
    first, second, third = serve(backend, arrivals, batch_size=2, traffic=patient)[0]

    assert first.service_start_s == second.service_start_s >= second.arrival_s
    assert third.service_start_s >= third.arrival_s + 0.3
    assert third.first_token_s - third.arrival_s > 0.3  # the waiting is in the latency


def test_a_dynamic_batch_keeps_to_its_budget(backend):
    backend.needs("dynamic_batches")
    at_once = Arrivals("constant", 0.0, 0.01, (0.0,) * 4)
    widest = max(map(len, PROMPTS)) + 6
    asked = {"strategy": "dynamic", "batch_size": 4, "max_batch_tokens": 2 * widest}
    completions, _, _ = serve(backend, at_once, **asked)

    starts_s = sorted({c.service_start_s for c in completions})
    sizes = [sum(c.service_start_s == start_s for c in completions) for start_s in starts_s]
    assert sizes == [2, 2]


def test_a_closed_loop_asks_again_when_it_is_answered(backend):
    closed = Arrivals("closed_loop", 0.05, 0.6, concurrency=2)
    completions, seen, _ = serve(backend, closed, batch_size=2)

    assert len(completions) > 2
    ends_s = sorted(c.last_token_s for c in completions)
    for number, completion in enumerate(completions[2:]):
        assert completion.arrival_s >= ends_s[number]
    assert max(c.arrival_s for c in completions) < seen.queue.edges_s[1]


@STRATEGIES
def test_requests_may_have_lengths_of_their_own(backend, strategy):
    lengths = [2, 6, 1, 4]
    asked = {"lengths": lengths, "strategy": strategy, "batch_size": 4}
    completions, _, _ = serve(backend, OPEN, **asked)
    expected = backend.ids(PROMPTS, max_output_tokens=6)

    for number, completion in enumerate(completions):
        own = lengths[number % 4]
        assert completion.output_token_ids == expected[number % 4][:own]
        assert completion.finish_reason == "length"
    at_once = backend.serve(PROMPTS, max_output_tokens=6, **asked)
    assert [len(c.output_token_ids) for c in at_once] == lengths


def test_a_backend_can_go_back_to_requests_that_are_all_there(backend):
    serve(backend, OPEN, batch_size=2)
    assert len(backend.serve(PROMPTS, batch_size=2, max_output_tokens=3)) == 4
