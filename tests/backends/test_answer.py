"""What a server sends that is no event of a completion fails its request, and nothing else."""

from __future__ import annotations

import json

import pytest

from llm_energy.backends.served.answer import Answer, ServerFailure, refusal
from llm_energy.records import Request


def event(**changes) -> bytes:
    return json.dumps({"choices": [], **changes}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        event(usage="many"),
        event(usage={"prompt_tokens_details": "all"}),
        event(usage={"prompt_tokens_details": {"cached_tokens": -1}}),
        event(usage={"prompt_tokens_details": {"cached_tokens": 0.5}}),
    ],
    ids=["text", "details", "negative", "fraction"],
)
def test_an_event_that_is_none_is_a_failure_of_its_request(sent):
    answer = Answer(Request("r", (1, 2)), b"", 1, 1, 0.0)
    with pytest.raises(ServerFailure, match="request r: the server sent what is no event"):
        answer.take(sent, 0.0)


def test_cached_tokens_are_those_of_the_usage_block():
    answer = Answer(Request("r", (1, 2)), b"", 1, 1, 0.0, gives_ids=False)
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    choice = {"text": "a", "finish_reason": "length"}
    details = {"prompt_tokens_details": {"cached_tokens": 1}}
    answer.take(event(choices=[choice], usage=usage | details), 1.0)
    answer.take(b"[DONE]", 1.0)
    assert answer.completion().cached_prompt_tokens == 1


def test_a_refusal_that_is_nested_too_deep_is_shown_as_it_is():
    assert refusal(400, "[" * 100_000).startswith("the server answered 400: [[[")
