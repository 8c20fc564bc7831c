"""One pass over prepared requests: who is under way, and when the batch was full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END, Mark


class Pass:
    """Serve every (prompt, sampling parameters) once, at most ``concurrency`` at a time.

    Tokens are streamed: only so is it known while a pass runs how many requests have begun.
    """

    def __init__(
        self, llm: Any, asked: Sequence[tuple[list[int], Any]], concurrency: int, mark: Mark
    ) -> None:
        self._llm, self._mark = llm, mark
        self._waiting = deque(enumerate(asked))
        self._concurrency = concurrency
        self._outputs: dict[int, Any] = {}
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        # The batch is full until so many requests are left, if it is full before that.
        self._last = concurrency + 1
        self._steady_begun, self._steady_over = False, len(asked) <= self._last

    def run(self) -> list[Any]:
        """Serve, and give the outputs when the last token of the last request is here."""
        return asyncio.run(self._run())

    async def _run(self) -> list[Any]:
        try:
            await asyncio.gather(
                *(self._serve() for _ in range(min(self._concurrency, len(self._waiting))))
            )
        except BaseException:
            for place in self._outputs.keys() - self._ended:
                self._outputs[place].abort()
            raise
        return [output for _, output in sorted(self._outputs.items())]

    async def _serve(self) -> None:
        """Serve one request after the other; as many of these run as the batch has places."""
        while self._waiting:
            place, (prompt, sampling) = self._waiting.popleft()
            output = self._llm.generate_async(prompt, sampling, streaming=True)
            self._outputs[place] = output
            async for _ in output:
                if place not in self._begun:
                    self._begun.add(place)
                    self._look_for_the_beginning()
            self._ended.add(place)
            self._look_for_the_end()

    def _look_for_the_beginning(self) -> None:
        under_way = self._outputs.keys() - self._ended
        full = len(under_way) == self._concurrency and under_way <= self._begun
        if full and not (self._steady_begun or self._steady_over):
            self._steady_begun = True
            self._mark(STEADY_BEGIN, self._output_tokens())

    def _look_for_the_end(self) -> None:
        left = len(self._waiting) + len(self._outputs) - len(self._ended)
        if not self._steady_over and left <= self._last:
            self._steady_over = True
            if self._steady_begun:
                self._mark(STEADY_END, self._output_tokens())

    def _output_tokens(self) -> int:
        return sum(len(output.outputs[0].token_ids) for output in self._outputs.values())
