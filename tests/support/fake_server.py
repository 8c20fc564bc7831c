"""A server of completions that is right, slow or wrong as it is told; it needs no package.

    python tests/support/fake_server.py PORT FAULT

Tokens are numbers: a prompt is answered by the ids that follow its last one. ``FAULT`` names one of
the functions below, ``none`` the healthy one; one of ``before_it_serves`` acts on the whole server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Chunks = list[dict[str, Any]]
KEY = os.environ.get("FAKE_SERVER_KEY", "")


def length(asked: dict[str, Any]) -> int:
    """Return how many tokens are asked for, also where transformers serve is told."""
    return asked.get("max_tokens") or json.loads(asked["generation_config"])["max_new_tokens"]


def answer(asked: dict[str, Any]) -> Chunks:
    """Return the events of a right answer, one for each token and one for the usage."""
    prompt, count = asked["prompt"], length(asked)
    if isinstance(prompt, str):  # of which each word is a token
        prompt = list(range(len(prompt.split())))
    ids = [prompt[-1] + 1 + place for place in range(count)]
    chunks: Chunks = [
        {"choices": [{"text": f"{id} ", "token_ids": [id], "finish_reason": None}]} for id in ids
    ]
    chunks[0]["choices"][0]["prompt_token_ids"] = prompt
    chunks[-1]["choices"][0]["finish_reason"] = "length"
    usage = {"prompt_tokens": len(prompt), "completion_tokens": count}
    return [*chunks, {"choices": [], "usage": usage}]


# What is wrong with the events of an answer


def no_ids(chunks: Chunks) -> Chunks:
    for chunk in chunks[:-1]:
        del chunk["choices"][0]["token_ids"]
    return chunks


def no_ids_and_no_text(chunks: Chunks) -> Chunks:
    for chunk in no_ids(chunks)[:-1]:
        chunk["choices"][0]["text"] = ""
    return chunks


def ids_that_are_text(chunks: Chunks) -> Chunks:
    chunks[1]["choices"][0]["token_ids"] = ["7"]
    return chunks


def too_few_tokens(chunks: Chunks) -> Chunks:
    del chunks[1]
    chunks[-1]["usage"]["completion_tokens"] -= 1
    return chunks


def too_many_tokens(chunks: Chunks) -> Chunks:
    chunks[-1]["usage"]["completion_tokens"] += 1
    return [chunks[0], *chunks]


def wrong_usage(chunks: Chunks) -> Chunks:
    chunks[-1]["usage"]["completion_tokens"] += 1
    return chunks


def other_usage(chunks: Chunks) -> Chunks:
    chunks[-1]["usage"]["prompt_tokens"] += 1
    return no_ids(chunks)


def no_usage(chunks: Chunks) -> Chunks:
    return chunks[:-1]


def other_prompt(chunks: Chunks) -> Chunks:
    chunks[0]["choices"][0]["prompt_token_ids"] = [1, 2]
    return chunks


def no_reason(chunks: Chunks) -> Chunks:
    chunks[-2]["choices"][0]["finish_reason"] = None
    return chunks


def odd_reason(chunks: Chunks) -> Chunks:
    chunks[-2]["choices"][0]["finish_reason"] = "content_filter"
    return chunks


def error_event(chunks: Chunks) -> Chunks:
    return [chunks[0], {"error": {"message": "the engine died"}}]


def no_choices(chunks: Chunks) -> Chunks:
    return [{"choice": []}]


EVENTS: dict[str, Callable[[Chunks], Chunks]] = {
    f.__name__: f
    for f in (
        *(no_ids, no_ids_and_no_text, ids_that_are_text, too_few_tokens, too_many_tokens),
        *(wrong_usage, other_usage, no_usage, other_prompt, no_reason, odd_reason),
        *(error_event, no_choices),
    )
}
# What is wrong with the stream: the bytes of a right answer go in, and what is sent comes out. A
# float is a pause in seconds, None the end of the process.
Sent = Iterator[bytes | float | None]


def closed_early(events: list[bytes]) -> Sent:
    yield events[0]


def without_done(events: list[bytes]) -> Sent:
    yield b"".join(events[:-1])


def cut_in_an_event(events: list[bytes]) -> Sent:
    yield events[0] + events[1][:9]


def malformed(events: list[bytes]) -> Sent:
    yield b"data: {not json\n\n"


def not_text(events: list[bytes]) -> Sent:
    yield b"data: {\x22\xff\xfe\x22: 1}\n\n"


def huge_line(events: list[bytes]) -> Sent:
    for _ in range(40):
        yield b"data: " + b"x" * 2**16


def stalled(events: list[bytes]) -> Sent:
    yield events[0]
    yield 60.0


def slow_loris(events: list[bytes]) -> Sent:
    for byte in b"".join(events):
        yield bytes([byte])
        yield 0.1


def endless_comments(events: list[bytes]) -> Sent:
    while True:
        yield b": still here\n\n"
        yield 0.05


def dies(events: list[bytes]) -> Sent:
    yield events[0]
    yield None


STREAMS = {
    f.__name__: f
    for f in (
        *(closed_early, without_done, cut_in_an_event, malformed, not_text, huge_line),
        *(stalled, slow_loris, endless_comments, dies),
    )
}
STATUSES = {
    **{"bad_request": 400, "unauthorized": 401, "unknown_model": 404, "too_large": 413},
    **{"too_many_requests": 429, "internal_error": 500, "unavailable": 503},
}
OFTEN = 20  # tokens a second of the healthy server, where it is told to be slow


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault = "none"
    prompt_tokens = output_tokens = 0

    def log_message(self, *_: object) -> None:
        """Say nothing of requests that are as they should be."""

    def do_GET(self) -> None:
        """Answer at the addresses of health and of counters."""
        if self.path == "/health":
            return self._reply(503 if self.fault == "never_ready" else 200, b"")
        if self.fault == "silent":
            time.sleep(60)
        if self.path == "/v1/models":
            return self._reply(200, json.dumps({"data": [{"id": "the-model"}]}).encode())
        return self._reply(200, f"output_total {Handler.output_tokens}\n".encode())

    def do_POST(self) -> None:
        """Answer a request for a completion."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self._reply(401, b"{}")
        if status := STATUSES.get(self.fault):
            text = {"error": {"message": self.fault.replace("_", " ")}}
            return self._reply(status, json.dumps(text).encode())
        if self.fault == "redirect":
            return self._reply(307, b"", Location="http://198.51.100.1/v1/completions")
        if self.fault == "dies_at_once":
            os._exit(3)
        fault = "no_ids" if self.fault in ("without_done", "closes_unsaid") else self.fault
        chunks = EVENTS.get(fault, lambda same: same)(answer(asked))
        events = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        events.append(b"data: [DONE]\n\n")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in STREAMS.get(self.fault, iter)(events):
            if part is None:
                print("ValueError: I was told to die", file=sys.stderr, flush=True)
                os._exit(3)
            if isinstance(part, float):
                time.sleep(part)
            else:
                self._send(part)
        Handler.output_tokens += length(asked)
        if self.fault == "truncated":
            self.close_connection = True
        else:
            self._send(b"")
            self.close_connection = self.fault == "closes_unsaid"

    def _send(self, part: bytes) -> None:
        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.flush()

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def before_it_serves(fault: str) -> None:
    """Do what a server does wrong while it starts."""
    if fault == "exits":
        sys.exit("RuntimeError: no such device")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "never_listens":
        time.sleep(60)
    if fault == "tells_its_key":
        sys.exit(f"the key is {KEY}")
    if fault == "leaves_children":
        # One of its own session, that ignores what asks it to end.
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        print(f"child {child.pid}", flush=True)


def main(port: str, fault: str) -> None:
    """Serve until it is ended."""
    before_it_serves(fault)
    Handler.fault = fault
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
