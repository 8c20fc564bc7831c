"""Hand requests to a backend when they are due, and tell when the window's edges pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from llm_energy.backends.base import Arrival, BatchRule
from llm_energy.records import Arrivals

BEGIN, END = "window_begin", "window_end"


class ArrivalQueue:
    """The requests of one stretch of traffic; the n-th one asks prompt n modulo ``prompts``.

    A backend calls ``take`` or ``next_batch`` for what is due, ``step`` after each of its steps,
    and ``wait`` when it has nothing to do. Everything is counted from when a request was due,
    however late the backend came for it. ``mark`` is called once an edge of the window has passed,
    by whichever of these calls comes first.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        prompts: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        mark: Callable[[str], None],
    ) -> None:
        self._prompts, self._clock, self._sleep, self._mark = prompts, clock, sleep, mark
        self._waiting: deque[Arrival] = deque()
        self._count = 0
        self.begin_s = clock()
        self._due_s = deque(self.begin_s + time_s for time_s in arrivals.times_s)
        self.edges_s = (self.begin_s + arrivals.begin_s, self.begin_s + arrivals.end_s)
        self._marks = deque(zip((BEGIN, END), self.edges_s, strict=True))
        self._edge_s = self.edges_s[0]
        self._closed = arrivals.concurrency is not None
        if arrivals.concurrency:
            self._admit([self.begin_s] * arrivals.concurrency)

    def take(self, most: int) -> list[Arrival]:
        """Return up to ``most`` requests that are due, the oldest first."""
        self._look()
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def next_batch(self, rule: BatchRule) -> Sequence[Arrival]:
        """Wait until ``rule`` makes a batch of what is due; empty once all is served."""
        while True:
            now_s = self._look()
            again_s = None
            if self._waiting:
                count, again_s = rule(self._waiting, now_s)
                if count:
                    return [self._waiting.popleft() for _ in range(count)]
            if not self.wait(again_s):
                return ()

    def step(self, ended: int = 0) -> None:
        """Note that a step of the engine is done and that so many requests ended in it."""
        now_s = self._clock()
        if now_s >= self._edge_s:
            self._pass_edges(now_s)
        # In a closed loop whoever got an answer asks again at once, until the window has ended.
        if ended and self._closed and now_s < self.edges_s[1]:
            self._admit([now_s] * ended)

    def next_s(self) -> float | None:
        """Return when the next request is due or the next edge passes; None if nothing will."""
        next_s = min(self._due_s[0] if self._due_s else inf, self._edge_s)
        return None if next_s == inf else next_s

    def wait(self, until_s: float | None = None) -> bool:
        """Sleep until something is due, an edge passes or ``until_s``; False if nothing will."""
        next_s = self.next_s()
        if until_s is None and next_s is None:
            return bool(self._waiting)
        next_s = min(time_s for time_s in (next_s, until_s) if time_s is not None)
        delay_s = next_s - self._clock()
        if delay_s > 0:
            self._sleep(delay_s)
        self.step()
        return True

    def _look(self) -> float:
        """Let what is due by now wait to be taken."""
        now_s = self._clock()
        if now_s >= self._edge_s:
            self._pass_edges(now_s)
        due_s = []
        while self._due_s and self._due_s[0] <= now_s:
            due_s.append(self._due_s.popleft())
        self._admit(due_s)
        return now_s

    def _admit(self, times_s: Sequence[float]) -> None:
        for time_s in times_s:
            self._waiting.append(Arrival(self._count, self._count % self._prompts, time_s))
            self._count += 1

    def _pass_edges(self, now_s: float) -> None:
        while self._marks and self._marks[0][1] <= now_s:
            self._mark(self._marks.popleft()[0])
        self._edge_s = self._marks[0][1] if self._marks else inf
