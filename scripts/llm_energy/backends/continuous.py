"""Keep the batch of an engine that batches continuously full, one of its steps at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END, Arrival, Mark, Queue


class StepEngine(Protocol):
    """What is asked of an engine; a request in flight goes by a key of its own."""

    def add(self, key: int, place: int, number: int) -> None:
        """Hand over the request at a place of the workload; its steps are noted under a number."""

    def step(self) -> dict[int, Any]:
        """Do one step, and return what ended in it by key."""

    def all_decode(self) -> bool:
        """Return whether every request in flight has its first token."""

    def output_tokens(self, ended: Iterable[Any]) -> int:
        """Return the output tokens of what has ended and of what is in flight."""

    def abort(self, keys: Iterable[int]) -> None:
        """Forget the requests in flight."""


def serve_all(engine: StepEngine, count: int, most: int, first: int, mark: Mark) -> list[Any]:
    """Serve ``count`` requests that are all there, at most ``most`` at once; return what ended.

    The next is handed over when one has ended. Marks follow ``Backend.generate``; ``first`` is the
    number of the first request.
    """
    waiting, in_flight, done = deque(range(count)), set[int](), dict[int, Any]()
    # The batch is full until so many requests are left, if it is full before that.
    last = most + 1
    begun, over = False, count <= last
    try:
        while waiting or in_flight:
            while waiting and len(in_flight) < most:
                place = waiting.popleft()
                engine.add(place, place, first + place)
                in_flight.add(place)
            ended = engine.step()
            in_flight.difference_update(ended)
            done |= ended
            if over:
                continue
            if len(waiting) + len(in_flight) <= last:
                over = True
                if begun:
                    mark(STEADY_END, engine.output_tokens(done.values()))
            elif not begun and len(in_flight) == most and engine.all_decode():
                begun = True
                mark(STEADY_BEGIN, engine.output_tokens(done.values()))
    except Exception:
        engine.abort(in_flight)
        raise
    return [done[place] for place in range(count)]


def serve_queue(engine: StepEngine, queue: Queue, most: int) -> list[tuple[Arrival, Any]]:
    """Serve requests as they are due, at most ``most`` at once, and sleep between.

    Return each arrival and what ended, in the order of their numbers.
    """
    in_flight: dict[int, Arrival] = {}
    done: dict[int, tuple[Arrival, Any]] = {}
    try:
        while True:
            for arrival in queue.take(most - len(in_flight)):
                engine.add(arrival.number, arrival.prompt, arrival.number)
                in_flight[arrival.number] = arrival
            if not in_flight:
                if not queue.wait():
                    break
                continue
            ended: Mapping[int, Any] = engine.step()
            queue.step(ended=len(ended))
            done |= {key: (in_flight.pop(key), output) for key, output in ended.items()}
    except Exception:
        engine.abort(in_flight)
        raise
    return [done[number] for number in sorted(done)]
