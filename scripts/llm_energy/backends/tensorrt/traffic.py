"""Timed traffic: hand requests over when they are due, and sleep while there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from llm_energy.backends.base import Arrival, Queue


class Answer(NamedTuple):
    """One request of the traffic: what the engine gave, and when each token came here, in s."""

    arrival: Arrival
    output: Any
    received_s: list[float]


class Traffic:
    """Serve a queue of (prompt, sampling parameters), at most ``concurrency`` at a time."""

    def __init__(
        self,
        llm: Any,
        asked: Sequence[tuple[list[int], Any]],
        concurrency: int,
        queue: Queue,
    ) -> None:
        self._llm, self._asked = llm, asked
        self._concurrency, self._queue = concurrency, queue
        self._answers: list[Answer] = []
        self._under_way: dict[asyncio.Task, Answer] = {}
        self._ended = 0

    def run(self) -> list[Answer]:
        """Serve until the queue has no more; give the answers by number."""
        asyncio.run(self._run())
        return sorted(self._answers, key=lambda answer: answer.arrival.number)

    async def _run(self) -> None:
        self._news = asyncio.Event()
        try:
            while True:
                for arrival in self._queue.take(self._concurrency - len(self._under_way)):
                    self._begin(arrival)
                if self._under_way:
                    await self._news.wait()
                    self._news.clear()
                    ended, self._ended = self._ended, 0
                    self._queue.step(ended)
                    self._fail_with_the_first()
                elif not self._queue.wait():  # nothing runs, so nothing else waits for this thread
                    return
        except BaseException:
            for task, answer in self._under_way.items():
                if not task.done():
                    answer.output.abort()
            raise

    def _begin(self, arrival: Arrival) -> None:
        prompt, sampling = self._asked[arrival.prompt]
        output = self._llm.generate_async(prompt, sampling, streaming=True)
        answer = Answer(arrival, output, [])
        self._answers.append(answer)
        self._under_way[asyncio.create_task(self._follow(answer))] = answer

    async def _follow(self, answer: Answer) -> None:
        """Note when tokens come, and tell the loop that it has something to look at."""
        try:
            async for output in answer.output:
                new = len(output.outputs[0].token_ids) - len(answer.received_s)
                answer.received_s.extend([time.monotonic()] * new)
                self._news.set()
            self._ended += 1
        finally:
            self._news.set()

    def _fail_with_the_first(self) -> None:
        for task in [task for task in self._under_way if task.done()]:
            del self._under_way[task]
            task.result()
