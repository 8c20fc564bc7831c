"""Ask a server over HTTP and stream its answers, in one process beside it.

The client shares the host with what it measures. So it is one thread, which sleeps until bytes come
or a request is due; request bodies are made before a window, and no text is made of tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from llm_energy.backends.base import STEADY_BEGIN, STEADY_END, Mark, Queue, no_mark
from llm_energy.backends.served.answer import Answer, Events, refusal
from llm_energy.backends.served.server import EPITAPH_S, Elsewhere, Server, ServerFailure
from llm_energy.core.errors import Unsupported

CONNECT_S = 10.0
STALL_S = 300.0  # in which no request in flight gets a token: the server hangs
LOOK_S = 1.0  # between two looks for that
CALL_S = 60.0  # for a call that generates nothing
# Servers close a connection that was idle for some seconds; one of that age is not used again.
KEEP_S = 2.0
REFUSED = (400, 404, 405, 413, 422)  # statuses by which a server says that it can't do this
LONGEST_REPLY = 2**22
# An engine gives a token to all requests under way at once. So many connections are read before the
# loop looks for what is due.
FEW = 8

# Makes the request at a prompt's place anew, for an arrival that was due at a time in s.
Make = Callable[[int, float], Answer]


class FewAtOnce(selectors.EpollSelector):
    """Give the loop a few ready connections at a time, so that no request waits for all of them."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as the other selectors do; what is ready and not given now comes the next time."""
        try:
            ready = self._selector.poll(-1 if timeout is None else max(0.0, timeout), FEW)
        except InterruptedError:
            return []
        found = []
        for descriptor, event in ready:
            reads = selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
            writes = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
            key = self.get_map().get(descriptor)
            if key is not None:
                found.append((key, (reads | writes) & key.events))
        return found


class Client:
    """Ask one server; usable from one thread, and in one call at a time.

    Without ``reuse`` each request has a connection of its own, for servers that close one after an
    answer and do not say so.
    """

    def __init__(
        self,
        server: Server | Elsewhere,
        stall_s: float = STALL_S,
        call_s: float = CALL_S,
        reuse: bool = True,
    ) -> None:
        self._server, self._reuse = server, reuse
        self.stall_s, self._call_s = stall_s, call_s
        self._runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(FewAtOnce()))
        self._session = self._runner.run(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        how = {"keepalive_timeout": KEEP_S} if self._reuse else {"force_close": True}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, **how),
            headers={"Authorization": f"Bearer {self._server.key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            trust_env=False,  # a proxy has no business between us and the loopback interface
        )

    def healthy(self, path: str = "/health") -> bool:
        """Return whether the server answers at its health address now."""
        try:
            self._runner.run(self._get(path))
        except (ServerFailure, aiohttp.ClientError, OSError):
            return False
        return True

    def get(self, path: str) -> str:
        """Return what is at a path as text; ServerFailure where that is not to be had in time."""
        return self._run(self._get(path))

    def generate(self, make: Make, count: int, at_once: int, mark: Mark = no_mark) -> list[Answer]:
        """Serve ``count`` requests that are all there, ``at_once`` in flight, in their order.

        Marks are made by the rule of ``Backend.generate``.
        """
        return self._run(self._generate(make, count, at_once, mark))

    def serve(self, make: Make, queue: Queue, at_once: int) -> list[Answer]:
        """Serve timed traffic until the queue has no more; answers are by number of arrival."""
        return self._run(self._serve(make, queue, at_once))

    def close(self) -> None:
        """Close all connections; a second time does nothing."""
        if not self._session.closed:
            self._runner.run(self._session.close())
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end; a broken connection is a ServerFailure, with how the server ended."""
        try:
            return self._runner.run(work)
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the connection broke: {type(error).__name__}: {error}"
        # A server whose connections break may be dying, and only its end says why.
        if epitaph := self._server.epitaph(EPITAPH_S):
            reason = f"{epitaph}{self._server.last_words()}"
        raise ServerFailure(reason)

    async def _get(self, path: str) -> str:
        try:
            async with (
                asyncio.timeout(self._call_s),
                self._session.get(self._server.url + path, allow_redirects=False) as response,
            ):
                text = await _text(response)
        except TimeoutError:
            raise ServerFailure(f"no answer from {path} within {self._call_s:g} s") from None
        if response.status != 200:
            raise ServerFailure(refusal(response.status, text))
        return text

    async def _generate(self, make: Make, count: int, at_once: int, mark: Mark) -> list[Answer]:
        now_s = time.monotonic()
        waiting = deque(range(count))
        # The batch is full until so many requests are left, if it is full before that.
        last = at_once + 1
        begun, ended = False, count <= last

        def look() -> None:
            """Mark the begin of the full batch; called at each first token."""
            nonlocal begun
            if not (begun or ended) and flights.decoding == len(flights.tasks) == at_once:
                begun = True
                mark(STEADY_BEGIN, flights.output_tokens)

        async with _Flights(self, look) as flights:
            while waiting or flights.tasks:
                while waiting and len(flights.tasks) < at_once:
                    place = waiting.popleft()
                    flights.start(place, make(place, now_s))
                await flights.wait()
                if not ended and len(waiting) + len(flights.tasks) <= last:
                    ended = True
                    if begun:
                        mark(STEADY_END, flights.output_tokens)
        return flights.answers

    async def _serve(self, make: Make, queue: Queue, at_once: int) -> list[Answer]:
        async with _Flights(self) as flights:
            while True:
                for arrival in queue.take(at_once - len(flights.tasks)):
                    flights.start(arrival.number, make(arrival.prompt, arrival.time_s))
                if flights.tasks:
                    queue.step(ended=await flights.wait(queue.next_s()))
                elif not queue.wait():  # it sleeps: with nothing in flight there's nothing to hear
                    return flights.answers

    async def ask(self, answer: Answer, heard: Callable[[Answer], None]) -> None:
        """Send one request and take what comes; ``heard`` is called when tokens have come."""
        events = Events()
        answer.sent_s = time.monotonic()
        async with self._session.post(
            self._server.url + "/v1/completions",
            data=answer.body,
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                text = refusal(response.status, await _text(response))
                raise (Unsupported if response.status in REFUSED else ServerFailure)(text)
            while data := await response.content.readany():
                now_s = time.monotonic()
                before = len(answer.times_s)
                for event in events.feed(data):
                    answer.take(event, now_s)
                if len(answer.times_s) > before:
                    heard(answer)


class _Flights:
    """The requests in flight; what is left of them is given up when the block is left.

    ``decoding`` are those in flight that have a first token, ``output_tokens`` counts all so far.
    ``look`` is called after each first token.
    """

    def __init__(self, client: Client, look: Callable[[], None] = lambda: None) -> None:
        self._client, self._look = client, look
        self.tasks: dict[asyncio.Task[None], tuple[int, Answer]] = {}
        self.decoding = 0
        self._ended: dict[int, Answer] = {}
        self._heard_s = time.monotonic()
        # Of those in flight; waiting for each of them anew at every arrival would take a
        # millisecond where there are some hundred.
        self._landed: list[asyncio.Task[None]] = []
        self._bell = asyncio.Event()

    @property
    def output_tokens(self) -> int:
        """Count the output tokens so far."""
        answers = [*self._ended.values(), *(answer for _, answer in self.tasks.values())]
        return sum(len(answer.ids) for answer in answers)

    @property
    def answers(self) -> list[Answer]:
        """Return the ended requests in the order of their numbers."""
        return [self._ended[number] for number in sorted(self._ended)]

    def start(self, number: int, answer: Answer) -> None:
        """Send a request."""
        if not self.tasks:  # before that nobody could hear anything
            self._heard_s = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._client.ask(answer, self._heard))
        task.add_done_callback(self._land)
        self.tasks[task] = number, answer

    def _land(self, task: asyncio.Task[None]) -> None:
        self._landed.append(task)
        self._bell.set()

    async def wait(self, until_s: float | None = None) -> int:
        """Wait until a request has ended or it is ``until_s``; return how many have ended.

        Raises what a request failed with, and ServerFailure where none gets on any more.
        """
        while True:
            now_s = time.monotonic()
            patience_s = LOOK_S if until_s is None else min(LOOK_S, max(0.0, until_s - now_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._bell.wait()
            self._bell.clear()
            done, self._landed = self._landed, []
            for task in done:
                task.result()
                number, answer = self.tasks.pop(task)
                self.decoding -= bool(answer.times_s)
                self._ended[number] = answer
            now_s = time.monotonic()
            if done or (until_s is not None and now_s >= until_s):
                return len(done)
            if now_s - self._heard_s > self._client.stall_s:
                raise ServerFailure(
                    f"none of {len(self.tasks)} requests in flight got a token within "
                    f"{self._client.stall_s:g} s"
                )

    def _heard(self, answer: Answer) -> None:
        self._heard_s = answer.times_s[-1]
        if answer.times_s[0] == self._heard_s:
            self.decoding += 1
            self._look()

    async def __aenter__(self) -> _Flights:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _text(response: aiohttp.ClientResponse) -> str:
    """Return the body, or as much of it as any reply to a call may have."""
    parts, size = [], 0
    while size < LONGEST_REPLY and (data := await response.content.readany()):
        parts.append(data)
        size += len(data)
    return b"".join(parts).decode("utf-8", "replace")
