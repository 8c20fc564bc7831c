"""One request to an OpenAI-compatible server, and what comes back of it as server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from llm_energy.backends.served.server import ServerFailure
from llm_energy.records import Completion, Request

LONGEST_LINE = 2**20  # bytes of one event; a token takes some hundred
DONE = b"[DONE]"
REASONS = ("length", "stop", "abort")


class Events:
    """Cut a stream of bytes into the data of its events, each on one line as OpenAI's are."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete.

        >>> events = Events()
        >>> events.feed(b'data: {"a"'), events.feed(b': 1}\\r\\n\\n: hello\\n\\ndata: [DONE]\\n')
        ([], [b'{"a": 1}', b'[DONE]'])
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ServerFailure(f"the server sent an event of more than {LONGEST_LINE} bytes")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


@dataclass
class Answer:
    """A request under way, and its tokens so far with the times at which they arrived.

    ``most`` and ``least`` are how many output tokens were asked for; ``arrival_s`` is when the
    request was due, ``sent_s`` when it was sent, all on the monotonic clock. ``gives_ids`` tells
    whether the server gives token ids; where it doesn't, its usage block counts, and ``times_s``
    are those of its events with text. ``says_done`` tells whether a stream ends with ``[DONE]``,
    else it ends with the usage block.
    """

    request: Request
    body: bytes
    least: int
    most: int
    arrival_s: float
    gives_ids: bool = True
    says_done: bool = True
    sent_s: float = 0.0
    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    _prompt: list[int] | None = None
    _reason: str | None = None
    _usage: dict[str, Any] | None = None
    _ended: bool = False
    _last_s: float = 0.0

    def take(self, event: bytes, now_s: float) -> None:
        """Take one event that arrived at ``now_s``; ServerFailure if it is none of an answer."""
        if event == DONE:
            self._ended = True
            return
        try:
            chunk = json.loads(event)
            if error := chunk.get("error"):
                raise ServerFailure(f"{self._name} failed in the server: {_message(error)}")
            for choice in chunk["choices"]:
                ids = choice.get("token_ids") if self.gives_ids else None
                if not self.gives_ids and choice["text"]:
                    self.times_s.append(now_s)
                elif ids is None and choice["text"]:
                    raise ServerFailure(
                        f"{self._name}: the server gave text without token ids, and neither text "
                        "nor chunks count tokens"
                    )
                if ids and not all(type(id) is int for id in ids):
                    raise TypeError("token ids that are no integers")
                self.ids += ids or ()
                self.times_s += [now_s] * len(ids or ())
                self._prompt = choice.get("prompt_token_ids") or self._prompt
                self._reason = choice.get("finish_reason") or self._reason
            if usage := chunk.get("usage"):
                self._usage = usage | {"cached": _cached(usage)}
            self._last_s = now_s
            if not self.says_done:
                self._ended = bool(self._reason and self._usage)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ServerFailure(
                f"{self._name}: the server sent what is no event of a completion: {event[:80]!r} "
                f"({type(error).__name__}: {error})"
            ) from None

    def completion(self) -> Completion:
        """Return the whole answer; ServerFailure where what came back is not what was asked."""
        if not self._ended:
            raise self._fault(
                f"the stream was closed after {len(self.times_s)} tokens, before its end"
            )
        if self._reason not in REASONS:
            raise self._fault(f"it ended for the reason {self._reason!r}")
        if self.gives_ids and not self.ids:
            raise self._fault("the server gave no token ids, so nothing can be counted")
        if self.gives_ids and self._prompt != list(self.request.prompt_token_ids):
            raise self._fault("the prompt's ids that came back are not those that were sent")
        output = len(self.ids) if self.gives_ids else self._counted("completion_tokens")
        short = output < (self.most if self._reason == "length" else self.least)
        if short or output > self.most:
            raise self._fault(
                f"{output} tokens came, {self.least} to {self.most} were asked for, and the "
                f"reason for the end is {self._reason!r}"
            )
        usage = self._usage or {}
        counted = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        if counted != (found := (len(self.request.prompt_token_ids), output)):
            source = "its ids are" if self.gives_ids else "what was sent and came back is"
            raise self._fault(
                f"the server counts {counted} prompt and output tokens, {source} {found}"
            )
        times_s = tuple(self.times_s) if self.gives_ids else self._spread(output)
        return Completion(
            request_id=self.request.id,
            prompt_tokens=found[0],
            padding_tokens=0,
            cached_prompt_tokens=usage.get("cached", 0),
            output_token_ids=tuple(self.ids),
            finish_reason=self._reason,
            arrival_s=self.arrival_s,
            first_token_s=times_s[0],
            last_token_s=times_s[-1],
            token_times_s=times_s,
            service_start_s=self.sent_s,
            counted_tokens=None if self.gives_ids else output,
        )

    def _counted(self, name: str) -> int:
        """Return a count of the usage block; ServerFailure where there is none."""
        count = (self._usage or {}).get(name)
        if type(count) is not int or count < 1:
            raise self._fault(
                f"the server gave neither token ids nor a usage block with {name} (found "
                f"{count!r}), so nothing can be counted"
            )
        return count

    def _spread(self, output: int) -> tuple[float, ...]:
        """Lay so many tokens evenly over the events with text, whose number may be another."""
        events_s = self.times_s or [self._last_s]
        return tuple(events_s[place * len(events_s) // output] for place in range(output))

    @property
    def _name(self) -> str:
        return f"request {self.request.id}"

    def _fault(self, what: str) -> ServerFailure:
        return ServerFailure(f"{self._name}: {what}")


def _cached(usage: dict[str, Any]) -> int:
    """Return how many of the prompt's tokens a usage block says that a cache held."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if type(cached) is not int or cached < 0:
        raise ValueError(f"cached_tokens is {cached!r}, allowed a whole number")
    return cached


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:500]


def refusal(status: int, text: str) -> str:
    """Say what a server answered in place of a completion.

    >>> refusal(404, '{"error": {"message": "no such model"}}')
    'the server answered 404: no such model'
    """
    try:
        text = _message(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        text = text.strip()[:500]
    return f"the server answered {status}: {text}"
