"""What each kind of server is asked, and what none of them can be asked."""

from __future__ import annotations

import json
import sys
import types

import pytest

from llm_energy.backends.openai.gpus import visible_uuids
from llm_energy.backends.openai.kinds import KINDS
from llm_energy.backends.served.backend import most_tokens
from llm_energy.core.errors import Unsupported
from llm_energy.records import Completion

GREEDY = {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
GREEDY |= {"repetition_penalty": 1.0, "min_tokens": 0, "ignore_eos": False, "seed": 3}
FORCED = GREEDY | {"min_tokens": 8, "ignore_eos": True}
SAMPLED = GREEDY | {"temperature": 0.7, "top_p": 0.9, "top_k": 5}


def asked(kind: str, parameters: dict, prompt: list[int] | str = (1, 2)) -> dict:
    return json.loads(KINDS[kind].body(parameters, "m", prompt))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_streams_a_greedy_answer_of_the_named_model(kind):
    body = asked(kind, GREEDY)
    told = body | json.loads(body.get("generation_config", "{}"))
    assert (told["model"], told["stream"], told["seed"]) == ("m", True, 3)
    assert told.get("max_tokens", told.get("max_new_tokens")) == 8
    assert told.get("temperature") == 0.0 or told["do_sample"] is False


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("vllm", {"min_tokens": 8, "ignore_eos": True}),
        ("sglang", {"min_tokens": 8, "ignore_eos": True}),
        ("trtllm", {"min_tokens": 8, "ignore_eos": True}),
        ("llama.cpp", {"ignore_eos": True}),
        ("transformers", {"min_new_tokens": 8}),
    ],
)
def test_a_length_is_forced_in_each_kinds_own_words(kind, told):
    body = asked(kind, FORCED)
    assert told.items() <= (body | json.loads(body.get("generation_config", "{}"))).items()


@pytest.mark.parametrize(
    ("asked_for", "parameter"),
    [
        (FORCED, "min_output_tokens"),
        (GREEDY | {"top_k": 5}, "decoder.top_k"),
        (GREEDY | {"repetition_penalty": 1.1}, "decoder.repetition_penalty"),
    ],
)
def test_what_the_plain_api_lacks_is_refused_with_the_key_and_never_left_out(asked_for, parameter):
    with pytest.raises(Unsupported, match=f"{parameter} asks for.*leave {parameter} at"):
        asked("plain", asked_for)


def test_a_least_length_below_the_most_needs_a_server_that_has_one():
    with pytest.raises(Unsupported, match="min_output_tokens"):
        asked("llama.cpp", GREEDY | {"min_tokens": 3})


def test_sampling_of_transformers_replaces_the_models_own_generation_settings():
    inside = json.loads(asked("transformers", SAMPLED)["generation_config"])
    assert inside["do_sample"] is True
    assert (inside["temperature"], inside["top_p"], inside["top_k"]) == (0.7, 0.9, 5)
    greedy = json.loads(asked("transformers", GREEDY)["generation_config"])
    assert greedy.keys().isdisjoint({"temperature", "top_p", "top_k", "min_p"})


def test_ids_or_usage_are_asked_for_wherever_a_server_must_be_asked():
    assert asked("vllm", GREEDY)["return_token_ids"] is True
    for kind in ("plain", "vllm", "llama.cpp", "sglang", "trtllm"):
        assert asked(kind, GREEDY)["stream_options"] == {"include_usage": True}


def test_the_largest_use_of_the_cache_is_what_requests_held_at_once():
    def done(begin_s: float, times_s: tuple[float, ...]) -> Completion:
        ids, last_s = tuple(range(len(times_s))), times_s[-1]
        spans = (begin_s, times_s[0], last_s, times_s, begin_s)
        return Completion("r", 10, 0, 0, ids, "length", *spans)

    together = [done(0.0, (1.0, 2.0, 3.0)), done(0.5, (1.5, 2.5, 4.0))]
    after = [done(0.0, (1.0, 2.0)), done(2.0, (3.0, 4.0))]
    assert most_tokens(together) == 2 * 10 + 2 + 2
    assert most_tokens(after) == 10 + 1
    assert most_tokens([]) == 0


GPUS = ("GPU-aa", "GPU-ab", "GPU-c")


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [
        (None, 2, ["GPU-aa", "GPU-ab"]),
        ("2,0", 2, ["GPU-c", "GPU-aa"]),
        ("GPU-ab", 1, ["GPU-ab"]),
        ("7", 1, "names '7', allowed an index below 3"),
        ("MIG-1", 1, "names 'MIG-1'"),
        ("1", 2, "2 GPUs were asked for and this process may use 1"),
        ("", 1, "1 GPUs were asked for and this process may use 0"),
    ],
)
def test_a_server_gets_the_first_gpus_that_this_process_may_use(monkeypatch, visible, count, found):
    class NVMLError(Exception): ...

    nvml = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(GPUS),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: GPUS[handle].encode(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if isinstance(found, list):
        assert visible_uuids(count) == found
    else:
        with pytest.raises(Unsupported, match=found):
            visible_uuids(count)
