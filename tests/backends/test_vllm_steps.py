"""The steps of vLLM's scheduler, on a stand-in that schedules ahead as vLLM does on a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_energy.backends.vllm import scheduled
from llm_energy.backends.vllm.scheduled import ScheduledSteps


class FakeScheduler:
    """Schedules what it is told to, and forgets requests that have ended."""

    def __init__(self) -> None:
        self.requests: dict[str, object] = {}

    def schedule(self, new: dict[str, tuple[int, int]], cached: dict[str, tuple[int, int]]):
        """Schedule requests by id, each with its tokens and those in its cache."""
        self.requests |= dict.fromkeys(new)
        return SimpleNamespace(
            scheduled_new_reqs=[
                SimpleNamespace(req_id=id, num_computed_tokens=held)
                for id, (_, held) in new.items()
            ],
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=[*cached], num_computed_tokens=[held for _, held in cached.values()]
            ),
            num_scheduled_tokens={id: count for id, (count, _) in (new | cached).items()},
        )

    def update_from_output(self, output, ended: tuple[str, ...]) -> None:
        for id in ended:
            del self.requests[id]


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that shows what it is set to."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(scheduled.time, "monotonic", lambda: now.s)
    return now


def test_a_step_that_is_scheduled_ahead_begins_when_the_one_before_has_ended(clock):
    scheduler = FakeScheduler()
    steps = ScheduledSteps(scheduler)
    steps.add("a-1", 0, 5)
    steps.add("b-2", 1, 3)
    clock.s = 1.0
    first = scheduler.schedule({"a-1": (3, 2), "b-2": (3, 0)}, {})
    clock.s = 1.1
    second = scheduler.schedule({}, {"a-1": (1, 5), "b-2": (1, 3)})
    clock.s = 2.0
    scheduler.update_from_output(first, ("b-2",))
    clock.s = 2.1
    third = scheduler.schedule({}, {"a-1": (1, 6)})
    clock.s = 3.0
    scheduler.update_from_output(second, ("a-1",))
    clock.s = 9.0
    scheduler.update_from_output(third, ())
    table = steps.take()
    assert list(table.spans) == [(1.0, 2.0), (2.0, 3.0)], "the last one was for nobody any more"
    work = zip(table.request, table.prefill_tokens, table.decode_tokens, strict=True)
    assert list(work) == [(0, 3, 0), (1, 3, 0), (0, 0, 1), (1, 0, 1)]
    assert table.context_tokens == (2, 0, 5, 3), "two tokens came from the prefix cache"


def test_a_step_without_tokens_and_a_text_that_is_scored_are_no_request_s(clock):
    scheduler = FakeScheduler()
    steps = ScheduledSteps(scheduler)
    scheduler.update_from_output(scheduler.schedule({}, {}), ())
    scheduler.update_from_output(scheduler.schedule({"quality": (7, 0)}, {}), ("quality",))
    assert steps.take().request == (-1,)
