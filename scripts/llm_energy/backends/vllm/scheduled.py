"""Note what vLLM's scheduler let each step compute, and when the step began and ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from llm_energy.backends.steps import StepLog
from llm_energy.records.steps import StepTable

NOBODY = (-1, 0)  # number and prompt of what is asked outside a pass: a text that is scored


class ScheduledSteps:
    """The steps of an engine whose scheduler is in this process.

    A step begins when it is scheduled, or when the one before it has ended: where vLLM schedules
    asynchronously, that is later. It ends when the scheduler is given its tokens. One that is under
    way when all its requests have ended is told of only at the next pass, and left out.
    """

    def __init__(self, scheduler: Any) -> None:
        self.log = StepLog()
        self._alive = scheduler.requests
        self._requests: dict[str, tuple[int, int]] = {}  # number and prompt's tokens, by vLLM's id
        self._begun_s: dict[int, float] = {}  # by the identity of what was scheduled
        self._ended_s = 0.0
        scheduler.schedule = partial(self._schedule, scheduler.schedule)
        scheduler.update_from_output = partial(self._update, scheduler.update_from_output)

    def add(self, internal_id: str, number: int, prompt_tokens: int) -> None:
        """Say which request is in flight under ``internal_id``."""
        self._requests[internal_id] = number, prompt_tokens

    def take(self) -> StepTable:
        """Return the steps since the last call."""
        self._requests.clear()
        return self.log.take()

    def _schedule(self, schedule: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        begun_s = time.monotonic()
        scheduled = schedule(*arguments, **options)
        self._begun_s[id(scheduled)] = begun_s
        return scheduled

    def _update(self, update: Callable[..., Any], scheduled: Any, *output: Any, **more: Any) -> Any:
        ended_s = time.monotonic()
        begun_s = max(self._begun_s.pop(id(scheduled), 0.0), self._ended_s)
        if any(id in self._alive for id in scheduled.num_scheduled_tokens):
            self._ended_s = ended_s
            self.log.note(
                begun_s, ended_s, scheduled.num_scheduled_tokens, partial(self._about, scheduled)
            )
        return update(scheduled, *output, **more)

    def _about(self, scheduled: Any, internal_id: str) -> tuple[int, int, int]:
        """Return a request's number, its prompt's tokens and those in its cache before the step."""
        asked = self._requests.get(internal_id, NOBODY)
        for request in scheduled.scheduled_new_reqs:
            if request.req_id == internal_id:
                return *asked, request.num_computed_tokens
        cached = scheduled.scheduled_cached_reqs
        return *asked, cached.num_computed_tokens[cached.req_ids.index(internal_id)]
