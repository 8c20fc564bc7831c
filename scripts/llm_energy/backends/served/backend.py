"""What every backend behind a server does alike: send, take answers, count, and end the server."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llm_energy.backends.base import Mark, Queue, no_mark
from llm_energy.backends.served import counters
from llm_energy.backends.served.answer import Answer
from llm_energy.backends.served.failures import serving_failure
from llm_energy.backends.served.server import Server, ServerFailure
from llm_energy.core.errors import Unsupported
from llm_energy.records import Completion, Request, Workload

# With so many under way, what is due is still sent in time (tests/benchmarks/client_cost.py).
MOST_IN_FLIGHT = 500


class Asked(NamedTuple):
    """What is asked for one request: the body that is sent, and how many tokens may come."""

    body: bytes
    least: int
    most: int


class ServedBackend:
    """The half of a backend that has a server and a client; an engine's own half loads it.

    ``load`` sets ``_server`` and ``_client``, ``prepare`` calls ``_expect``. ``COUNTERS`` and
    ``GAUGES`` name what the server counts and has in hand, ``CACHE`` how full its KV cache is; none
    where it tells nothing. ``_cache_tokens`` is how many tokens that cache holds, where known.
    """

    COUNTERS: Mapping[str, str] = {}
    GAUGES: tuple[str, ...] = ()
    CACHE: str | None = None
    # Whether answers come with ids, and streams end with [DONE]
    GIVES_IDS, SAYS_DONE = True, True

    def __init__(self) -> None:
        self._server: Server | None = None
        self._client: Any = None
        self._requests: tuple[Request, ...] = ()
        self._asked: list[Asked] = []
        self._at_once = 1
        self._begin: dict[str, float] = {}  # the server's counters at ``prepare``
        self._returned: Counter[str] = Counter()
        self._running = [0.0, 0.0]  # seconds of requests, and of the passes that served them
        self._cache_tokens: int | None = None
        self._done: list[Completion] = []

    def _expect(
        self, workload: Workload, requests: Sequence[Request], asked: Sequence[Asked], at_once: int
    ) -> None:
        """Get ready to ask for these, at most ``at_once`` at a time.

        Raises Unsupported where arrivals are timed and the client could not keep their times.
        """
        if workload.arrivals_sha256 is not None and at_once > MOST_IN_FLIGHT:
            raise Unsupported(
                f"batching.batch_size: found {at_once} with timed traffic behind a server, allowed "
                f"at most {MOST_IN_FLIGHT}: with more under way the client sends requests late; "
                "lower it, or measure the engine in process"
            )
        self._requests, self._asked, self._at_once = tuple(requests), list(asked), at_once
        self._returned, self._running, self._done = Counter(), [0.0, 0.0], []
        # Of requests that a failure gave up, the gauges tell until the next ones come.
        self._begin = self._counted()

    def generate(self, mark: Mark = no_mark) -> list[Completion]:
        """Serve all requests; those beyond the batch size wait in the client."""
        begin_s = time.monotonic()
        # The marks of a full batch count tokens while they come, which only ids can.
        marks = mark if self.GIVES_IDS else no_mark
        with self._telling_why():
            answers = self._client.generate(self._make, len(self._asked), self._at_once, marks)
            return self._completions(answers, begin_s)

    def serve(self, queue: Queue) -> list[Completion]:
        """Send requests as they are due, up to a batch size at a time."""
        begin_s = time.monotonic()
        with self._telling_why():
            answers = self._client.serve(self._make, queue, self._at_once)
            return self._completions(answers, begin_s)

    def events(self) -> dict[str, Any]:
        """Return what the server and the client counted since ``prepare``.

        The mean of requests in flight is the client's, since its last call, and so is the largest
        use of the KV cache: what the answers that came back must have held at once. While none is
        under way the server's own gauge must say that the cache is empty.
        """
        found = self._counted()
        if busy := sum(found[name] for name in self.GAUGES):
            raise ServerFailure(f"the server has {busy:g} requests that are not ours")
        if self.CACHE and (use := found[self.CACHE]):
            raise ServerFailure(
                f"the server's KV cache is {use:.2%} full and no request is under way"
            )
        requests_s, duration_s = self._running
        done, self._running, self._done = self._done, [0.0, 0.0], []
        counted = {
            ours: int(found[name] - self._begin[name]) for ours, name in self.COUNTERS.items()
        }
        if counted:
            counted |= {f"returned_{name}": self._returned[name] for name in RETURNED}
        if self._cache_tokens:
            counted["largest_kv_cache_use"] = (
                most_tokens(done) / self._cache_tokens if done else None
            )
        return counted | {"mean_running_requests": requests_s / duration_s if duration_s else None}

    def close(self) -> None:
        """End the server, if it is ours, with all of its processes."""
        client, self._client = self._client, None
        server, self._server = self._server, None
        if client is not None:
            client.close()
        if server is not None:
            server.end()

    @contextlib.contextmanager
    def _telling_why(self) -> Iterator[None]:
        """Add to a failure what the server said of it, which is lost when the server ends."""
        try:
            yield
        except ServerFailure as error:
            said = self._server.output() if self._server else ""
            raise serving_failure(error, said) from None

    def _make(self, place: int, arrival_s: float) -> Answer:
        body, least, most = self._asked[place]
        ways = (self.GIVES_IDS, self.SAYS_DONE)
        return Answer(self._requests[place], body, least, most, arrival_s, *ways)

    def _completions(self, answers: Sequence[Answer], begin_s: float) -> list[Completion]:
        duration_s = time.monotonic() - begin_s
        completions = [answer.completion() for answer in answers]
        for done in completions:
            self._returned["prompt_tokens"] += done.prompt_tokens
            self._returned["output_tokens"] += done.output_tokens
            self._running[0] += done.last_token_s - done.service_start_s
        self._running[1] += duration_s
        self._done += completions
        return completions

    def _counted(self) -> dict[str, float]:
        """Read the server's counters and gauges, by its own names."""
        names = (*self.COUNTERS.values(), *self.GAUGES, *filter(None, [self.CACHE]))
        if not names:
            return {}
        found = counters.read(self._client.get("/metrics"), names)
        if missing := [name for name in names if name not in found]:
            raise ServerFailure(f"the server does not count {', '.join(missing)}")
        return found


RETURNED = ("prompt_tokens", "output_tokens")


def most_tokens(done: Sequence[Completion]) -> int:
    """Return the most tokens, of prompts and answers, that requests under way had at one time."""
    steps: list[tuple[float, int]] = []
    for one in done:
        steps.append((one.service_start_s, one.prompt_tokens))
        steps += [(time_s, 1) for time_s in one.token_times_s]
        steps.append((one.last_token_s, -one.prompt_tokens - one.output_tokens))
    # At one moment what ends makes room first, since the cache need not hold both.
    return max(itertools.accumulate(tokens for _, tokens in sorted(steps)), default=0)
