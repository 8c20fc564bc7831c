"""A server that misbehaves ends in an outcome with its reason: nothing hangs, nothing is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import fake_server

pytest.importorskip("aiohttp")  # which the environments of engines with servers hold
import psutil

from llm_energy.backends.engine_errors import outcome
from llm_energy.backends.served import counters, keeper
from llm_energy.backends.served.answer import Answer
from llm_energy.backends.served.client import Client
from llm_energy.backends.served.server import Server
from llm_energy.measure.arrival_queue import BEGIN, END, ArrivalQueue
from llm_energy.records import Arrivals, Request

pytestmark = pytest.mark.engine

TOKENS = 4
REQUESTS = [Request(f"r{k}", (10 * k + 1, 10 * k + 2)) for k in range(5)]
# A limit within which each fault must have ended, far above what it takes.
LIMIT_S = 20.0


def make(place: int, arrival_s: float) -> Answer:
    import json

    request = REQUESTS[place]
    body = json.dumps({"prompt": request.prompt_token_ids, "max_tokens": TOKENS})
    return Answer(request, body.encode(), TOKENS, TOKENS, arrival_s)


def start(fault: str = "none") -> Server:
    command = [sys.executable, str(Path(fake_server.__file__)), "{port}", fault]
    return Server(command, {}, "FAKE_SERVER_KEY")


@pytest.fixture
def started():
    """Return a maker of servers with their clients, and hold that nothing is left of them."""
    made = []

    def make_one(fault: str = "none", limit_s: float = 10.0, **limits):
        server = start(fault)
        client = Client(server, **limits)
        made.append((server, client))
        family = [psutil.Process(server.pid)]
        server.wait_ready(client.healthy, limit_s)
        family += family[0].children(recursive=True)
        made[-1] = (server, client, family)
        return server, client

    yield make_one
    for server, client, *rest in made:
        client.close()
        server.end()
        server.end()
        assert not [p for family in rest for p in family if p.is_running()]
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", server.port)) != 0


# a healthy server


def test_ids_prompts_and_times_come_back(started):
    _, client = started()
    begin_s = time.monotonic()
    done = [answer.completion() for answer in client.generate(make, 5, 2)]

    assert [c.request_id for c in done] == ["r0", "r1", "r2", "r3", "r4"]
    assert [c.output_token_ids[0] for c in done] == [3, 13, 23, 33, 43]
    for one in done:
        assert one.prompt_tokens == 2
        assert begin_s <= one.arrival_s <= one.service_start_s <= one.first_token_s
        assert list(one.token_times_s) == sorted(one.token_times_s)
        assert len(one.token_times_s) == TOKENS


def test_no_more_than_asked_are_in_flight(started):
    _, client = started()
    spans_s = [(a.sent_s, a.times_s[-1]) for a in client.generate(make, 5, 2)]
    for start_s, _ in spans_s:
        assert sum(begin_s <= start_s < end_s for begin_s, end_s in spans_s) <= 2


def test_traffic_is_sent_when_it_is_due_and_marks_both_edges(started):
    _, client = started()
    marks, slept_s = [], []

    def sleep(duration_s: float) -> None:
        slept_s.append(duration_s)
        time.sleep(duration_s)

    arrivals = Arrivals("constant", 0.05, 0.3, (0.05, 0.1, 0.25))
    queue = ArrivalQueue(arrivals, 5, time.monotonic, sleep, marks.append)
    answers = client.serve(make, queue, 2)

    assert marks == [BEGIN, END]
    assert slept_s
    assert [a.request.id for a in answers] == ["r0", "r1", "r2"]
    for answer, due_s in zip(answers, arrivals.times_s, strict=True):
        assert answer.arrival_s == queue.begin_s + due_s
        assert answer.sent_s >= answer.arrival_s


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(started, monkeypatch):
    server, client = started()
    monkeypatch.setattr("llm_energy.backends.served.client.KEEP_S", 0.0)
    client.generate(make, 1, 1)
    for connection in psutil.Process(server.pid).children()[0].net_connections():
        assert connection.laddr.ip == "127.0.0.1"
    assert len(client.generate(make, 5, 2)) == 5


def test_counters_are_added_up_over_their_labels(started):
    _, client = started()
    client.generate(make, 3, 3)

    assert counters.read(client.get("/metrics"), ["output_total", "absent"]) == {
        "output_total": 3.0 * TOKENS
    }


# the ways of failing: what a server does, and what is said of it

IN_A_WINDOW = {
    "bad_request": ("unsupported", "the server answered 400: bad request"),
    "unknown_model": ("unsupported", "the server answered 404: unknown model"),
    "too_large": ("unsupported", "the server answered 413: too large"),
    "unauthorized": ("failed", "the server answered 401"),
    "too_many_requests": ("failed", "the server answered 429: too many requests"),
    "internal_error": ("failed", "the server answered 500: internal error"),
    "unavailable": ("failed", "the server answered 503: unavailable"),
    "redirect": ("failed", "the server answered 307"),
    "no_ids": ("failed", "text without token ids"),
    "no_ids_and_no_text": ("failed", "no token ids, so nothing can be counted"),
    "ids_that_are_text": ("failed", "no event of a completion"),
    "too_few_tokens": ("failed", "3 tokens came, 4 to 4 were asked for"),
    "too_many_tokens": ("failed", "5 tokens came, 4 to 4 were asked for"),
    "wrong_usage": ("failed", r"counts \(2, 5\) prompt and output tokens, its ids are \(2, 4\)"),
    "no_usage": ("failed", r"counts \(None, None\)"),
    "other_prompt": ("failed", "prompt's ids that came back are not those that were sent"),
    "no_reason": ("failed", "ended for the reason None"),
    "odd_reason": ("failed", "ended for the reason 'content_filter'"),
    "error_event": ("failed", "failed in the server: the engine died"),
    "no_choices": ("failed", "no event of a completion.*KeyError"),
    "closed_early": ("failed", "closed after 1 tokens, before its end"),
    "cut_in_an_event": ("failed", "closed after 1 tokens, before its end"),
    "truncated": ("failed", "the connection broke: ClientPayloadError"),
    "malformed": ("failed", "no event of a completion"),
    "not_text": ("failed", "no event of a completion"),
    "huge_line": ("failed", "an event of more than 1048576 bytes"),
    "stalled": ("failed", "none of 2 requests in flight got a token within 0.3 s"),
    "slow_loris": ("failed", "none of 2 requests in flight got a token within 0.3 s"),
    "endless_comments": ("failed", "none of 2 requests in flight got a token within 0.3 s"),
    "dies": ("failed", "ended with exit status 3.*ValueError: I was told to die"),
    "dies_at_once": ("failed", "ended with exit status 3, and it said nothing"),
}


@pytest.mark.parametrize("fault", IN_A_WINDOW)
def test_a_fault_in_a_window_is_an_outcome_with_its_reason(started, fault):
    expected, reason = IN_A_WINDOW[fault]
    _, client = started(fault, stall_s=0.3)
    begin_s = time.monotonic()
    with outcome() as found:
        for answer in client.generate(make, 5, 2):
            answer.completion()

    assert (found.outcome, time.monotonic() - begin_s < LIMIT_S) == (expected, True)
    assert re.search(reason, found.reason, re.DOTALL), found.reason


BEFORE_IT_IS_READY = {
    "never_ready": "not ready within 1 s, and it said nothing",
    "never_listens": "not ready within 1 s, and it said nothing",
    "exits": "ended with exit status 1 before it was ready. It last said: RuntimeError: no such",
    "killed": "the server was killed .* before it was ready",
    "tells_its_key": r"the key is \*\*\*",
}


@pytest.mark.parametrize("fault", BEFORE_IT_IS_READY)
def test_a_server_that_never_gets_ready_is_an_outcome_with_its_reason(started, fault):
    begin_s = time.monotonic()
    with outcome() as found:
        started(fault, limit_s=1.0)

    assert (found.outcome, time.monotonic() - begin_s < LIMIT_S) == ("failed", True)
    assert re.search(BEFORE_IT_IS_READY[fault], found.reason), found.reason


def test_a_call_without_an_answer_ends(started):
    _, client = started("silent", call_s=0.2)
    with outcome() as found:
        client.get("/metrics")
    assert found.reason.endswith("no answer from /metrics within 0.2 s")


def test_requests_that_did_not_fail_are_given_up_with_the_one_that_did(started):
    _, client = started("stalled", stall_s=0.2)
    for _ in range(2):
        with outcome() as found:
            client.generate(make, 5, 5)
        assert "none of 5 requests" in found.reason


# the server's life

OWNER = """
import signal, sys, time
from support import fake_server
from llm_energy.backends.served.server import Server
command = [sys.executable, fake_server.__file__, "{port}", sys.argv[1]]
signal.signal(signal.SIGINT, signal.SIG_DFL)  # in the background it is ignored
server = Server(command, {}, "FAKE_SERVER_KEY")
print(server.pid, flush=True)
time.sleep(600)
"""


def family_of(pid: int, members: int) -> list[psutil.Process]:
    """Wait until a process has so many descendants, and return it with them."""
    head, deadline_s = psutil.Process(pid), time.monotonic() + LIMIT_S
    while len(found := head.children(recursive=True)) < members:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return [head, *found]


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_whatever_ends_its_owner_ends_the_server_and_its_children(signal_name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "-c", OWNER, "leaves_children"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        family = family_of(int(owner.stdout.readline()), 2)
        owner.send_signal(signal.Signals[signal_name])

    _, alive = psutil.wait_procs(family, timeout=2 * keeper.END_S)
    assert not alive


def test_a_keeper_that_is_told_to_end_ends_everything_before():
    server = start("leaves_children")
    family = family_of(server.pid, 2)
    for _ in range(3):
        family[0].terminate()
    _, alive = psutil.wait_procs(family[1:], timeout=2 * keeper.END_S)

    assert not alive
    assert server.epitaph(LIMIT_S) == "the server was ended by SIGTERM"
    server.end()


def test_a_killed_keeper_takes_the_server_with_it():
    server = start()
    family = family_of(server.pid, 1)
    os.kill(server.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family[1:], timeout=LIMIT_S)

    assert not alive
    assert "killed" in server.epitaph(LIMIT_S)
    server.end()


def test_a_child_that_will_not_end_is_ended(started):
    server, _ = started("leaves_children")
    child = psutil.Process(int(re.search(r"child (\d+)", server.output())[1]))
    server.end()
    assert not child.is_running()


def test_the_key_is_in_no_command_line(started):
    server, _ = started()
    for process in family_of(server.pid, 1):
        assert server.key not in " ".join(process.cmdline())
