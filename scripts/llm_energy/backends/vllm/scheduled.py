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

    ``drafts`` counts the tokens that speculative decoding drafted, and those of them that the model
    accepted. A step then gives more than one token, and the log is not told of it.
    """

    def __init__(self, scheduler: Any, drafting: bool = False) -> None:
        self.log = StepLog()
        self._drafting = drafting
        self._alive = scheduler.requests
        self._requests: dict[str, tuple[int, int]] = {}  # number and prompt's tokens, by vLLM's id
        self._begun_s: dict[int, float] = {}  # by the identity of what was scheduled
        self._ended_s = 0.0
        self.drafts = {"drafted_tokens": 0, "accepted_tokens": 0} if drafting else {}
        scheduler.schedule = partial(self._schedule, scheduler.schedule)
        scheduler.update_from_output = partial(self._update, scheduler.update_from_output)

    def add(self, internal_id: str, number: int, prompt_tokens: int) -> None:
        """Say which request is in flight under ``internal_id``."""
        self._requests[internal_id] = number, prompt_tokens

    def take(self) -> StepTable | None:
        """Return the steps since the last call; None with speculative decoding."""
        self._requests.clear()
        found = self.log.take()
        return None if self._drafting else found

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
            if self._drafting:
                self._count(scheduled.scheduled_spec_decode_tokens, *output)
                return update(scheduled, *output, **more)
            self.log.note(
                begun_s, ended_s, scheduled.num_scheduled_tokens, partial(self._about, scheduled)
            )
        return update(scheduled, *output, **more)

    def _count(self, drafted: dict[str, list[int]], output: Any) -> None:
        """Count the drafts of a step; of what the model gives one token is its own."""
        for internal_id, tokens in drafted.items():
            given = output.sampled_token_ids[output.req_id_to_index[internal_id]]
            self.drafts["drafted_tokens"] += len(tokens)
            self.drafts["accepted_tokens"] += max(0, len(given) - 1)

    def _about(self, scheduled: Any, internal_id: str) -> tuple[int, int, int]:
        """Return a request's number, its prompt's tokens and those in its cache before the step."""
        asked = self._requests.get(internal_id, NOBODY)
        for request in scheduled.scheduled_new_reqs:
            if request.req_id == internal_id:
                return *asked, request.num_computed_tokens
        cached = scheduled.scheduled_cached_reqs
        return *asked, cached.num_computed_tokens[cached.req_ids.index(internal_id)]
